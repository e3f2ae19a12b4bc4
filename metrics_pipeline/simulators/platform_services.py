"""The four services of a platform, simulated: health pages over HTTP that rise, fall and break.

Messages come in, rules raise alerts of them, alerts are dispatched and delivered, and what waits in
between rises and falls. From time to time a service is slow, hangs, refuses connections or answers
with something else; one that refused has been started again, and counts from 0.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from metrics_pipeline.access.whole_file import write_private
from metrics_pipeline.core.service_counters import KNOWN_COUNTERS
from metrics_pipeline.simulators.loopback_server import (
    Answer,
    LoopbackServer,
    NoAnswer,
    Request,
)

HEALTH_PATH = "/health"
HUGE_PAGE_BYTES = 50_000_000
DRIBBLE_SECONDS_PER_BYTE = 1.0
MOST_SLOW_SECONDS = 2.0
"""A slow service is still in time for the usual time-out of 5 s."""

WELL_STEPS = 24
"""In the first steps nothing breaks, so that `metrics-pipeline check` finds all well at first."""

BREAK_SHARE = 0.02
"""How likely it is that a service breaks in a step, in which it is well."""

LONGEST_BREAK_STEPS = 6
FAILED_SHARE = 0.1
"""Of the deliveries."""


class Condition(StrEnum):
    """How a service answers, or does not."""

    WELL = "well"
    SLOW = "slow"
    HANGING = "hanging"
    DRIBBLING = "dribbling"
    REFUSING = "refusing"
    WRONG_STATUS = "wrong status"
    BAD_JSON = "bad JSON"
    HUGE_PAGE = "huge page"
    REDIRECTING = "redirecting"
    BAD_COUNTERS = "bad counters"


BREAKS = tuple(condition for condition in Condition if condition is not Condition.WELL)


class PlatformService(LoopbackServer):
    """One listening service. `counters` and `condition` may be changed while it runs."""

    def __init__(
        self, counters: Mapping[str, int], *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(port, tls)
        self._scheme = "http" if tls is None else "https"
        self.counters: dict[str, int] = dict(counters)
        self.condition = Condition.WELL
        self.slow_seconds = MOST_SLOW_SECONDS

    @property
    def url(self) -> str:
        """Its health page."""
        return f"{self._scheme}://{self.host}{HEALTH_PATH}"

    def answer(self, request: Request) -> Answer | NoAnswer:
        """The next fault, or what its condition lets it say; nothing once it was stopped."""
        if self.condition is Condition.SLOW:
            self.stopped.wait(self.slow_seconds)
        said = super().answer(request)
        # Connections that are open already outlive the listener.
        is_silent = self.condition is Condition.HANGING or self.stopped.is_set()
        return NoAnswer() if is_silent else said

    def respond(self, request: Request) -> Answer:
        """The health page, or what comes in its place."""
        if request.path != HEALTH_PATH:
            return Answer(HTTPStatus.NOT_FOUND, b"no such page")
        page = json.dumps({"status": "ok", "counters": self.counters}).encode()
        twist = TWISTS.get(self.condition)
        return Answer(HTTPStatus.OK, page) if twist is None else twist(page)


def _redirect(_page: bytes) -> Answer:
    return Answer(HTTPStatus.FOUND, b"", {"Location": f"{HEALTH_PATH}?again"})


def _bad_counters(page: bytes) -> Answer:
    """Some are text, and the others negative."""
    counters = json.loads(page)["counters"]
    odd = {name: str(n) if at % 2 else -1 - n for at, (name, n) in enumerate(counters.items())}
    return Answer(HTTPStatus.OK, json.dumps({"status": "ok", "counters": odd}).encode())


TWISTS: Mapping[Condition, Callable[[bytes], Answer]] = {
    Condition.DRIBBLING: lambda page: Answer(
        HTTPStatus.OK, page, seconds_per_byte=DRIBBLE_SECONDS_PER_BYTE
    ),
    Condition.WRONG_STATUS: lambda page: Answer(HTTPStatus.SERVICE_UNAVAILABLE, page),
    Condition.BAD_JSON: lambda page: Answer(HTTPStatus.OK, page[: len(page) // 2]),
    Condition.HUGE_PAGE: lambda page: Answer(HTTPStatus.OK, page.ljust(HUGE_PAGE_BYTES)),
    Condition.REDIRECTING: _redirect,
    Condition.BAD_COUNTERS: _bad_counters,
}
"""What a service in that condition makes of its page."""


class ServiceProcess:
    """A service that can go away and come back, at another port if need be, counting from 0.

    Its address is in `url_file` for as long as this is entered, and stays there afterwards.
    """

    def __init__(self, name: str, url_file: Path) -> None:
        self.name = name
        self._url_file = url_file
        self._port = 0
        self._service: PlatformService | None = None

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._service is not None

    @property
    def condition(self) -> Condition:
        """How it answers."""
        return Condition.REFUSING if self._service is None else self._service.condition

    def show(self, counters: Mapping[str, int]) -> None:
        """Let its page have `counters`, if it is up."""
        if self._service is not None:
            self._service.counters = dict(counters)

    def become(self, condition: Condition) -> None:
        """Answer like this from now on. Raises OSError if it cannot listen again."""
        if condition is Condition.REFUSING:
            self._stop()
            return
        if self._service is None:
            self._start()
        assert self._service is not None
        self._service.condition = condition

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        nothing = dict.fromkeys(KNOWN_COUNTERS[self.name], 0)
        try:
            service = PlatformService(nothing, port=self._port)
        except OSError:  # somebody has taken the port meanwhile
            service = PlatformService(nothing)
        self._service = service.__enter__()
        self._port = int(service.host.rpartition(":")[2])
        write_private(self._url_file, f"{service.url}\n")

    def _stop(self) -> None:
        if self._service is not None:
            self._service.__exit__(None, None, None)
            self._service = None


class PlatformTraffic:
    """What the four services count. Each step some messages come in, and the rest follows."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.counters = {name: dict.fromkeys(known, 0) for name, known in KNOWN_COUNTERS.items()}

    def restart(self, service: str) -> None:
        """Let `service` count from 0."""
        self.counters[service] = dict.fromkeys(KNOWN_COUNTERS[service], 0)

    def step(self) -> None:
        """Let some time pass. No service waits for one that is broken: each has its own queue."""
        random = self._random
        ingest = self.counters["ingest"]
        received = random.randint(50, 150)
        rejected = random.randint(0, received // 25)
        waiting = ingest["queue_depth"] + received - rejected
        written = min(waiting, random.randint(40, 160))
        ingest["messages_received"] += received
        ingest["messages_rejected"] += rejected
        ingest["messages_written"] += written
        ingest["queue_depth"] = waiting - written
        alerts = random.randint(0, 6)
        self.counters["evaluator"]["rules_evaluated"] += written * 3
        self.counters["evaluator"]["alerts_created"] += alerts
        self.counters["dispatcher"]["alerts_processed"] += alerts
        routes = sum(random.randint(0, 2) for _ in range(alerts))
        self.counters["dispatcher"]["routes_matched"] += routes
        self._deliver(routes)

    def _deliver(self, routes: int) -> None:
        delivery = self.counters["delivery"]
        pending = delivery["jobs_pending"] + routes
        ended = min(pending, self._random.randint(0, 8))
        failed = sum(self._random.random() < FAILED_SHARE for _ in range(ended))
        delivery["jobs_succeeded"] += ended - failed
        delivery["jobs_failed"] += failed
        delivery["jobs_pending"] = pending - ended


class SimulatedPlatform:
    """The four services and their traffic. Steps are made from one thread at a time."""

    def __init__(self, processes: Mapping[str, ServiceProcess], random: Random) -> None:
        self._processes = processes
        self._random = random
        self._traffic = PlatformTraffic(random)
        self._steps = 0
        self._breaks_until: dict[str, int] = {}

    def step(self) -> None:
        """Count on, break what is due to break, and mend what was broken for long enough."""
        self._steps += 1
        self._traffic.step()
        for name, process in self._processes.items():
            self._age(name, process)
            process.show(self._traffic.counters[name])

    def _age(self, name: str, process: ServiceProcess) -> None:
        if process.condition is not Condition.WELL:
            if self._steps >= self._breaks_until[name]:
                self._mend(name, process)
        elif self._steps > WELL_STEPS and self._random.random() < BREAK_SHARE:
            self._breaks_until[name] = self._steps + self._random.randint(1, LONGEST_BREAK_STEPS)
            process.become(self._random.choice(BREAKS))

    def _mend(self, name: str, process: ServiceProcess) -> None:
        if not process.is_up:
            self._traffic.restart(name)
        process.become(Condition.WELL)


@contextmanager
def serve_platform_services(
    *, directory: Path, step_seconds: float, seed: int
) -> Iterator[Mapping[str, ServiceProcess]]:
    """Serve the four services, which change every `step_seconds`, as long as the `with` lasts.

    Once inside, all answer, each on any free port, and their addresses are in `directory` in files
    called `NAME_url`. Raises OSError when these cannot be written.
    """
    stop = threading.Event()
    with ExitStack() as running:
        processes = {
            name: running.enter_context(ServiceProcess(name, directory / f"{name}_url"))
            for name in KNOWN_COUNTERS
        }
        platform = SimulatedPlatform(processes, Random(seed))  # noqa: S311  (dice, not a key)
        stepper = threading.Thread(
            target=_step, args=(platform, step_seconds, stop), name="platform-services"
        )
        stepper.start()
        try:
            yield processes
        finally:
            stop.set()
            stepper.join()


def _step(platform: SimulatedPlatform, step_seconds: float, stop: threading.Event) -> None:
    while True:
        platform.step()
        if stop.wait(step_seconds):
            return
