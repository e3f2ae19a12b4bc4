"""Starts the stack, counts once, tells what is where, serves, and ends it all."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence

from metrics_pipeline.access.environment import (
    DAGSTER_POSTGRES_FILE_VARIABLE,
    DAGSTER_POSTGRES_VARIABLE,
)
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.numerals import in_digits
from metrics_pipeline.core.telemetry_assets import JOB as TELEMETRY_JOB
from metrics_pipeline.settings import Settings
from metrics_pipeline.stack.layout import Layout
from metrics_pipeline.stack.stack import Stack, Stopped


def run(
    layout: Layout, settings: Settings, *, with_simulator: bool, for_seconds: float | None
) -> int:
    """Run until told to end, or for `for_seconds`. Returns the exit status.

    That is 1 if a process ended by itself, or if after `for_seconds` a gauge was still missing.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    stack = Stack(layout, settings, say, _stop_on_signals())
    until = None if for_seconds is None else began + for_seconds
    try:
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
    if DAGSTER_POSTGRES_VARIABLE in os.environ or DAGSTER_POSTGRES_FILE_VARIABLE in os.environ:
        stack.say(f"Dagster's runs are in PostgreSQL, as ${DAGSTER_POSTGRES_VARIABLE} says")
    stack.layout.prepare()
    if with_simulator and stack.settings.simulator is not None:
        _start_simulator(stack)
    stack.start()
    _tell_what_is_where(stack)
    missing = _count_once(stack, until)
    while until is None or time.monotonic() < until:
        stack.pause()
    return missing


def _start_simulator(stack: Stack) -> None:
    if stack.settings.reads_simulator():
        stack.start_simulator()
    else:
        stack.say(
            "no simulator is started: sources.azure_iot_hub does not read the simulator's file"
        )


def _count_once(stack: Stack, until: float | None) -> Sequence[str]:
    """Run every job once and tell what came of it; the gauges that have no value.

    Not that of telemetry: its sensor launches it as soon as there is something to store.
    """
    assets = stack.settings.fleet_assets()
    began_seconds = time.time()
    jobs = [job for job in stack.settings.jobs() if job != TELEMETRY_JOB]
    started = {job: stack.webserver.launch(job) for job in jobs}
    stack.say(f"first runs started: {', '.join(jobs)}" if jobs else "there is nothing to collect")
    run_ids = [started[JOB]] if assets else []
    _await_assets(stack, [asset.key for asset in assets], run_ids, began_seconds, until)
    values = stack.exporter.values()
    gauges = [metric.family.name for asset in assets for metric in asset.metrics]
    for name in gauges:
        if name in values:
            stack.say(f"  {name} {in_digits(float(values[name]))}")
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
        if has_ended:  # the exporter may not have seen it yet
            stack.stop.wait(2 * stack.settings.exporter.refresh_seconds)
        for key, counted_at in stack.exporter.counted_at(waiting).items():
            if counted_at >= began_seconds:
                stack.say(f"{key} is counted")
                waiting.remove(key)
        if has_ended:
            break
        stack.pause()


def _tell_what_is_where(stack: Stack) -> None:
    stack.say(f"Dagster UI  {stack.layout.webserver_url}  (lineage: /asset-groups)")
    stack.say(f"metrics     {stack.exporter.url}/metrics")
    stack.say(f"status      {stack.exporter.url}  (what was collected when, what fails and why)")
    if stack.settings.gateway is not None:
        stack.say(f"robots      {stack.gateway_url}/ws/telemetry/ROBOT")


def _stop_on_signals() -> threading.Event:
    """An event that SIGINT, SIGTERM and SIGHUP set; nothing is interrupted by them."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop
