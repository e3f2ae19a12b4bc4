"""Where faults happen: the topology of docker/compose.yaml with a network and a disk to break."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from metrics_pipeline.storage.spool import SpoolSettings
from metrics_pipeline.storage.spool_state import SpoolWatch
from metrics_pipeline_tests.faults.cutting_proxy import CuttingProxy, cutting_proxy
from metrics_pipeline_tests.faults.load import MINUTE_SECONDS, Load, devices, loaded
from metrics_pipeline_tests.faults.wrong_clock import WrongClock, make_wrong_clock
from metrics_pipeline_tests.small_disk import empty, fill, small_disk
from metrics_pipeline_tests.topology.running_topology import (
    CODE_SERVER,
    DAEMON,
    Topology,
    running_topology,
)

SPOOL = "image/var/lib/metrics_pipeline/spool"
DISK = "4m"
"""Room for the spool, on a disk of its own."""

PAUSE = (15, 35)
"""Seconds of a minute in which the counts and polls of that minute are done."""


@dataclass(slots=True)
class Stage:
    """What is broken and mended."""

    load: Load
    proxies: Mapping[str, CuttingProxy]
    spool: Path
    folder: Path
    has_own_disk: bool
    clock: WrongClock | None = None

    @property
    def it(self) -> Topology:
        """Its processes."""
        return self.load.it

    def waiting_points(self) -> int:
        """Of the spool."""
        return SpoolWatch(SpoolSettings(directory=self.spool)).look().points

    def fill_disk(self) -> None:
        """Until there is not a byte left."""
        fill(self.spool)

    def empty_disk(self) -> None:
        """Take away what filled it."""
        empty(self.spool)

    def move_clock(self, seconds: int) -> None:
        """Set the clock of daemon and code server forward or back, while they sample."""
        if self.clock is None:
            _await_pause()
            self.clock = make_wrong_clock(self.folder / "clock")
            for name in (CODE_SERVER, DAEMON):
                self._start_with(self.clock, name)
            sampled = self.load.sampled()
            self.it.wait_until(lambda: self.load.sampled() > sampled, "that clock is gone by")
        wrong_seconds = self.load.wrong_seconds(time.time()) + seconds
        self.clock.set(wrong_seconds)
        self.load.leaps.append((time.time(), wrong_seconds))

    def _start_with(self, clock: WrongClock, name: str) -> None:
        container = self.it.containers[name]
        environment = {**container.service.get("environment", {}), **clock.environment}
        self.it.kill(name)
        clocked = replace(container, service={**container.service, "environment": environment})
        self.it.children[name] = clocked.start()


def _await_pause() -> None:
    """Between two rounds: to have the clock both are started anew, which is not this fault."""
    while not PAUSE[0] < time.time() % MINUTE_SECONDS < PAUSE[1]:
        time.sleep(1)


@contextmanager
def opened(folder: Path, progress: Callable[[str], None]) -> Iterator[Stage]:
    """All of it, under load."""
    proxies: dict[str, CuttingProxy] = {}
    with ExitStack() as stack:

        def between(name: str, port: int) -> int:
            proxies[name] = stack.enter_context(cutting_proxy(port))
            return proxies[name].port

        spool = folder / SPOOL
        has_own_disk = stack.enter_context(small_disk(spool, DISK))
        progress("the processes of docker/compose.yaml start (a minute or two)")
        polled, settings = stack.enter_context(devices(folder))
        (folder / "clock").mkdir()
        it = stack.enter_context(running_topology(folder, settings, between))
        load = stack.enter_context(loaded(it, polled, progress))
        yield Stage(load, proxies, spool, folder, has_own_disk)
