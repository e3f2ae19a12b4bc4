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
    run_ids = [stack.webserver.launch(JOB)] if stack.settings.fleet else []
    expected = [m.family.name for asset in stack.settings.fleet_assets() for m in asset.metrics]
    stack.say(f"the first count has started; {len(expected)} gauges to come")
    missing = _await_gauges(stack, run_ids, expected, until)
    while until is None or time.monotonic() < until:
        stack.look()
        time.sleep(LOOK_EVERY_SECONDS)
    return missing


def _await_gauges(
    stack: Stack, run_ids: Sequence[str], expected: Sequence[str], until: float | None
) -> Sequence[str]:
    """Show every gauge as it comes, as long as more may come; those that did not."""
    missing = list(expected)
    give_up = until
    while missing and (give_up is None or time.monotonic() < give_up):
        values = stack.exporter.values()
        for name in [name for name in missing if name in values]:
            stack.say(f"  {name} {float(values[name]):g}")
            missing.remove(name)
        if give_up is until and stack.webserver.have_ended(run_ids):
            give_up = time.monotonic() + 2 * stack.settings.exporter.refresh_seconds
        stack.look()
        time.sleep(LOOK_EVERY_SECONDS)
    _tell_outcome(stack, missing)
    return missing


def _tell_outcome(stack: Stack, missing: Sequence[str]) -> None:
    if missing:
        stack.say(f"no value for {', '.join(missing)}")
        stack.say(f"{stack.layout.webserver_url}/runs says why; try `metrics-pipeline check`")
    else:
        stack.say("all gauges are there; from now on the schedules count. Ctrl-C ends everything.")


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
