"""The faults: how each is made, and how it ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from metrics_pipeline_tests.faults.stage import Stage
from metrics_pipeline_tests.topology.running_topology import (
    CODE_SERVER,
    DAEMON,
    EXPORTER,
    GATEWAY,
    INFLUXDB,
    POSTGRESQL,
)

FOREVER_SECONDS = 1e6
HOUR_SECONDS = 3600
SOON_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Fault:
    """`missing` says why it cannot be made here."""

    name: str
    break_: Callable[[Stage], None]
    restore: Callable[[Stage], None]
    missing: Callable[[Stage], str] = lambda _: ""


def _killing(name: str, service: str) -> Fault:
    return Fault(name, lambda stage: stage.it.kill(service), lambda stage: stage.it.start(service))


def _cut(stage: Stage) -> None:
    for proxy in stage.proxies.values():
        proxy.cut()


def _fall_silent(stage: Stage) -> None:
    for proxy in stage.proxies.values():
        proxy.fall_silent()


def _mend(stage: Stage) -> None:
    for proxy in stage.proxies.values():
        proxy.mend()


def _fill(stage: Stage) -> None:
    stage.it.kill(INFLUXDB)
    stage.it.wait_until(lambda: stage.waiting_points() > 0, "something is spooled")
    stage.fill_disk()


def _store_comes_back_to_a_full_disk(stage: Stage) -> None:
    stage.it.start(INFLUXDB)
    try:
        stage.it.wait_until(lambda: stage.waiting_points() == 0, "what was spooled is stored")
    finally:
        stage.empty_disk()


def _no_disk(stage: Stage) -> str:
    return "" if stage.has_own_disk else "no small disk can be mounted here: it takes root"


def _no_compiler(_: Stage) -> str:
    return "" if shutil.which("cc") else "there is no C compiler: apt-get install gcc libc6-dev"


def _moving_clock(name: str, seconds: int) -> Fault:
    return Fault(name, lambda stage: stage.move_clock(seconds), _await_tick, _no_compiler)


def _await_tick(stage: Stage) -> None:
    """The clock stays as it is; it is the schedules that have to go on by it."""
    moment = time.time() + stage.load.wrong_seconds(time.time())
    soon = range(round(moment), round(moment) + SOON_SECONDS)
    stage.it.wait_until(
        lambda: any(round(tick["timestamp"]) in soon for tick in stage.it.ticks()),
        "the schedules go on by the new time",
    )


FAULTS: Sequence[Fault] = (
    _killing("store", INFLUXDB),
    _killing("PostgreSQL", POSTGRESQL),
    Fault(
        "hub",
        lambda stage: stage.it.event_hub.restart(FOREVER_SECONDS),
        lambda stage: stage.it.event_hub.restart(0),
    ),
    _killing("daemon", DAEMON),
    _killing("code server", CODE_SERVER),
    _killing("exporter", EXPORTER),
    _killing("gateway", GATEWAY),
    Fault("network: resets", _cut, _mend),
    Fault("network: silence", _fall_silent, _mend),
    Fault("disk full", _fill, _store_comes_back_to_a_full_disk, _no_disk),
    _moving_clock("clock +1 h", HOUR_SECONDS),
    _moving_clock("clock -1 h", -HOUR_SECONDS),
)


def chosen(names: str) -> Sequence[Fault]:
    """Those whose name begins with one of `names`, divided by commas; ValueError if none does."""
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    found = [f for f in FAULTS if any(f.name.lower().startswith(name) for name in wanted)]
    strange = [n for n in wanted if not any(f.name.lower().startswith(n) for f in FAULTS)]
    if strange:
        known = ", ".join(fault.name for fault in FAULTS)
        raise ValueError(f"No fault is called {', '.join(strange)}; there are: {known}.")
    return found or FAULTS
