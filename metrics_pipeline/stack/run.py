"""Starts the stack, counts once, tells what is where, serves, and ends it all."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from types import FrameType

from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.settings import Settings
from metrics_pipeline.stack.layout import Layout
from metrics_pipeline.stack.stack import Stack

LOOK_EVERY_SECONDS = 0.5


class Stopped(BaseException):
    """Somebody asked the stack to end: Ctrl-C or SIGTERM."""


def run(
    layout: Layout, settings: Settings, *, with_simulator: bool, for_seconds: float | None
) -> int:
    """Run until told to end, or for `for_seconds`. Returns the exit status.

    That is 1 if a process ended by itself, or if after `for_seconds` a gauge was still missing.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    stack = Stack(layout, settings, say)
    until = None if for_seconds is None else began + for_seconds
    try:
        _stop_on_signals()
        missing = _run(stack, with_simulator=with_simulator, until=until)
        return 1 if missing else 0
    except Stopped:
        return 0
    except MetricsPipelineError as error:
        say(f"stopped: {error}")
        return 1
    finally:
        say("ending all processes")
        stack.end()
        say("all processes have ended")


def _run(stack: Stack, *, with_simulator: bool, until: float | None) -> Sequence[str]:
    """Start and serve; the gauges that are missing at the end."""
    stack.say(f"state in {stack.layout.state_dir}, logs in {stack.layout.log_dir}")
    stack.layout.prepare()
    if with_simulator and stack.settings.simulator is not None:
        stack.start_simulator()
    stack.start()
    _tell_what_is_where(stack)
    missing = _count_once(stack, until)
    while until is None or time.monotonic() < until:
        stack.look()
        time.sleep(LOOK_EVERY_SECONDS)
    return missing


def _count_once(stack: Stack, until: float | None) -> Sequence[str]:
    """Run every job once and tell what came of it; the gauges that have no value."""
    assets = stack.settings.fleet_assets()
    began_seconds = time.time()
    run_ids = [stack.webserver.launch(JOB)] if assets else []
    stack.say(f"first run of {JOB} started" if assets else "nothing to count: no `fleet` section")
    _await_assets(stack, [asset.key for asset in assets], run_ids, began_seconds, until)
    values = stack.exporter.values()
    gauges = [metric.family.name for asset in assets for metric in asset.metrics]
    for name in gauges:
        if name in values:
            stack.say(f"  {name} {float(values[name]):g}")
    missing = [name for name in gauges if name not in values]
    if missing:
        stack.say(f"no value for {', '.join(missing)}")
        stack.say(f"{stack.layout.webserver_url}/runs says why; try `metrics-pipeline check`")
    stack.say("from now on the schedules count; Ctrl-C ends everything")
    return missing


def _await_assets(
    stack: Stack,
    keys: Sequence[str],
    run_ids: Sequence[str],
    began_seconds: float,
    until: float | None,
) -> None:
    """Return when the page shows each asset as counted since `began_seconds`, or none more will."""
    waiting = list(keys)
    while waiting and (until is None or time.monotonic() < until):
        has_ended = stack.webserver.have_ended(run_ids)
        if has_ended:
            time.sleep(2 * stack.settings.exporter.refresh_seconds)
        for key in [key for key in waiting if stack.exporter.counted_at(key) >= began_seconds]:
            stack.say(f"{key} is counted")
            waiting.remove(key)
        if has_ended:
            break
        stack.look()
        time.sleep(LOOK_EVERY_SECONDS)


def _tell_what_is_where(stack: Stack) -> None:
    stack.say(f"Dagster UI  {stack.layout.webserver_url}  (lineage: /asset-groups)")
    stack.say(f"metrics     {stack.exporter.url}/metrics")


def _stop_on_signals() -> None:
    """Make SIGINT and SIGTERM raise Stopped, once: the second Ctrl-C must not orphan processes."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
