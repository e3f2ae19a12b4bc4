"""What goes through the topology while it is broken, and what became of it between two moments."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.core.catalog import (
    DEAD_LETTERS,
    DEVICE_METRICS,
    FLEET_COUNTS,
    POINTS_SPOOLED,
    ROBOT_METRICS,
    SERVICE_METRICS,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.orchestration.set_back_clock import WAS_OF
from metrics_pipeline.simulators.device_fleet import (
    SNMP_CREDENTIAL,
    Group,
    SimulatedDevice,
    make_devices,
)
from metrics_pipeline.simulators.fleet_inventory import mirror_devices
from metrics_pipeline.simulators.robots import Robot, RobotFleet, Way
from metrics_pipeline.simulators.snmp_agent import SimulatedAgent, SnmpAgents
from metrics_pipeline.simulators.snmp_objects import AgentKind, Identity
from metrics_pipeline.stack.ports import LOOPBACK
from metrics_pipeline.storage import tallies
from metrics_pipeline_tests.faults.accounting import (
    Tally,
    account_kept,
    account_numbers,
    account_rounds,
    account_slots,
    times_doubled,
)
from metrics_pipeline_tests.ingestion.ingesting import numbers
from metrics_pipeline_tests.topology.faster import SAMPLE_SECONDS
from metrics_pipeline_tests.topology.running_topology import FLEET_SCHEDULE, Account, Topology

ROBOTS = 10
ROBOT_STEP_SECONDS = 0.5
MINUTE_SECONDS = 60
ASKED = (Outcome.SAMPLED, Outcome.FAILED)
UPLINKS, SAMPLES, COUNTS, POLLS = "uplinks", "samples", "counts", "polls of devices"
MESSAGES = "robots' messages"
DEVICES = 20
GROUP = Group(DEVICES, "switch", 9, "snmp", (SNMP_CREDENTIAL,), agent=AgentKind.CISCO)
POLL_SCHEDULE = "device_metrics_every_1_minutes"


def _microseconds() -> float:
    return round(time.time(), 6)


class RememberingRobot(Robot):
    """Remembers which of its messages were acknowledged: their times, in the order of the acks."""

    def __init__(self, robot_id: str, random: Random) -> None:
        super().__init__(robot_id, random, _microseconds)
        self.promised_ns: list[int] = []

    def hear(self, text: str | bytes) -> None:
        said = json.loads(text)
        kept = self.unacknowledged.get(said["id"])
        super().hear(text)
        if kept is not None and said["type"] == "ack":
            self.promised_ns.append(round(json.loads(kept)["time"] * 1e6) * 1000)


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: what was promised by then, and what was counted."""

    moment: float
    uplinks: int
    account: Account
    promised: Mapping[str, int]
    dead_letters: int
    spooled: int


@dataclass(frozen=True, slots=True)
class Rounds:
    """Of one kind: how many points each minute's round has, how many are stored of it, and how many
    more than once."""

    kind: str
    size: int
    stored: Mapping[int, int]
    ticks: Sequence[Mapping[str, Any]]
    statuses: Mapping[str, str]
    doubled: Mapping[int, int] = field(default_factory=dict)

    @property
    def told(self) -> set[int]:
        """Those of which Dagster says why something is missing."""
        return {round(t["timestamp"]) for t in self.ticks if is_told(t, self.statuses)}

    @property
    def untold(self) -> list[int]:
        """Those of which it has not said that yet."""
        times = {round(tick["timestamp"]) for tick in self.ticks} - self.told
        return [at for at in times if self.stored.get(at, 0) < self.size]


@dataclass(slots=True)
class Load:
    """Uplinks, samples, counts of the fleet and robots' messages, through `it`."""

    it: Topology
    robots: Sequence[RememberingRobot]
    leaps: list[tuple[float, int]] = field(default_factory=list)
    """When the clock of the product was set, and by how many seconds it is wrong since."""

    def mark(self) -> Mark:
        """Now; the operational database has to be there."""
        totals = self._totals()
        return Mark(
            time.time(),
            self.it.sending.count,
            self.it.account(),
            {robot.id: len(robot.promised_ns) for robot in self.robots},
            sum(totals.get(DEAD_LETTERS.name, {}).values()),
            sum(totals.get(POINTS_SPOOLED.name, {}).values()),
        )

    def _totals(self) -> Mapping[str, Mapping[str, int]]:
        url = self.it.postgresql.url("metrics", self.it.postgresql.password)
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return tallies.totals(connection)

    def acknowledged(self) -> int:
        """How many messages of all robots."""
        return sum(len(robot.promised_ns) for robot in self.robots)

    def sampled(self) -> int:
        """How often the service was asked so far."""
        outcomes = self.it.account().outcomes
        return sum(outcomes.get(what, 0) for what in ASKED)

    def are_devices_polled(self) -> bool:
        """Whether anything of them is stored."""
        return bool(self.it.influxdb.read(DEVICE_METRICS.name, DEVICE_METRICS.database))

    def tallies(self, marks: Sequence[Mark]) -> list[dict[str, Tally]]:
        """Between each mark and the next, once nothing is on its way any more."""
        found = list(numbers(self.it.uplinks()).elements())
        stored = self._stored_messages()
        rounds = self._rounds()
        return [
            {
                UPLINKS: account_numbers(
                    found, begin.uplinks, end.uplinks, end.dead_letters - begin.dead_letters
                ),
                SAMPLES: self._samples(begin, end),
                **{
                    each.kind: account_rounds(
                        self._minutes(begin.moment, end.moment),
                        *(each.size, each.stored, each.told, each.doubled),
                    )
                    for each in rounds
                },
                MESSAGES: account_kept(self._promised(begin, end), stored),
            }
            for begin, end in pairwise(marks)
        ]

    def _samples(self, begin: Mark, end: Mark) -> Tally:
        back = min(0, self.wrong_seconds(end.moment) - self.wrong_seconds(begin.moment))
        step = SAMPLE_SECONDS * NS_PER_SECOND
        first = begin.account.slot_ns + back * NS_PER_SECOND
        slots = range(first + step, end.account.slot_ns + step, step)
        points = self.it.influxdb.read(SERVICE_METRICS.name, SERVICE_METRICS.database)
        stored, doubled = {point.time_ns for point in points}, _doubled(points, step)
        return account_slots(slots, end.account.since(begin.account), ASKED, stored, doubled)

    def _rounds(self) -> list[Rounds]:
        """What is done each minute: counts of the fleet, and polls of devices."""
        statuses = {run.id: run.status for run in self.it.runs()}
        counts = self.it.influxdb.read(FLEET_COUNTS.name, FLEET_COUNTS.database)
        points = self.it.influxdb.read(DEVICE_METRICS.name, DEVICE_METRICS.database)
        counted = {(point.time_ns // NS_PER_SECOND, "") for point in counts}
        polled = {(point.time_ns // NS_PER_SECOND, point.tags["device_id"]) for point in points}
        return [
            Rounds(
                *(kind, size, Counter(at for at, _ in there)),
                *([*map(as_it_was, self.it.ticks(schedule))], statuses),
                _in_seconds(_doubled(found, MINUTE_SECONDS * NS_PER_SECOND)),
            )
            for kind, size, schedule, there, found in (
                (COUNTS, 1, FLEET_SCHEDULE, counted, counts),
                (POLLS, DEVICES, POLL_SCHEDULE, polled, points),
            )
        ]

    def untold(self) -> list[int]:
        """Times of rounds that are not stored whole, and of which no reason is known yet."""
        return [at for each in self._rounds() for at in each.untold]

    def _minutes(self, begin: float, end: float) -> list[int]:
        return sorted({minute for span in self.spans(begin, end) for minute in minutes(*span)})

    def wrong_seconds(self, moment: float) -> int:
        """By how much the clock of the product was ahead."""
        return next((by for at, by in reversed(self.leaps) if at <= moment), 0)

    def spans(self, begin: float, end: float) -> list[tuple[float, float]]:
        """From `begin` to `end` by the clock of the product, which may have leapt."""
        edges = [begin, *(at for at, _ in self.leaps if begin < at < end), end]
        wrong = map(self.wrong_seconds, edges)
        return [(a + by, b + by) for a, b, by in zip(edges, edges[1:], wrong, strict=False)]

    def _promised(self, begin: Mark, end: Mark) -> set[tuple[str, int]]:
        return {
            (robot.id, time_ns)
            for robot in self.robots
            for time_ns in robot.promised_ns[begin.promised[robot.id] : end.promised[robot.id]]
        }

    def _stored_messages(self) -> list[tuple[str, int]]:
        points = self.it.influxdb.read(ROBOT_METRICS.name, ROBOT_METRICS.database)
        return [(point.tags["robot_id"], point.time_ns) for point in points]


def _doubled(points: Sequence[Point], every_ns: int) -> Mapping[int, int]:
    """By the time of their round, in ns, those beyond the first of a series."""
    return times_doubled(((point.time_ns, point.series) for point in points), every_ns)


def _in_seconds(by_time_ns: Mapping[int, int]) -> Mapping[int, int]:
    return {time_ns // NS_PER_SECOND: count for time_ns, count in by_time_ns.items()}


def minutes(begin: float, end: float) -> range:
    """Those that begin in this time, in seconds since the epoch."""
    return range(math.ceil(begin / MINUTE_SECONDS) * MINUTE_SECONDS, math.ceil(end), MINUTE_SECONDS)


def is_told(tick: Mapping[str, Any], statuses: Mapping[str, str]) -> bool:
    """Whether Dagster says why there is no count: a run that failed, a tick that was skipped."""
    ended = {statuses.get(run, "") for run in tick["runIds"]}
    return bool(ended & {"FAILURE", "CANCELED"} or tick["skipReason"] or tick["error"])


def as_it_was(tick: Mapping[str, Any]) -> Mapping[str, Any]:
    """One of a clock that was ahead with its own time again, and with why it launched nothing."""
    found = re.fullmatch(rf"{re.escape(WAS_OF)} (\S+)\.(.*)", tick["skipReason"] or "")
    if found is None:
        return tick
    at = datetime.fromisoformat(found[1]).timestamp()
    return {**tick, "timestamp": at, "skipReason": found[2].strip()}


@contextmanager
def devices(folder: Path) -> Iterator[tuple[Sequence[SimulatedDevice], Mapping[str, Any]]]:
    """Switches that answer, and the settings by which they are polled each minute."""
    community = secrets.token_urlsafe(16)
    file = folder / "community"
    file.write_text(community)
    made = make_devices(Random(1), [GROUP], time.time())
    agents = [
        SimulatedAgent(
            each.device.address, Identity(AgentKind.CISCO, each.device.hostname, ""), each.figures
        )
        for each in made
    ]
    settings = {
        "polling": {
            "enabled": True,
            "status_by": "protocol",
            "metrics_every_minutes": 1,
            "snmp": {"credentials": {SNMP_CREDENTIAL: {"community": {"file": str(file)}}}},
        }
    }
    with SnmpAgents(agents, community=community) as serving:
        yield [replace(m, device=replace(m.device, port=serving.port)) for m in made], settings


@contextmanager
def loaded(
    it: Topology, polled: Sequence[SimulatedDevice], progress: Callable[[str], None]
) -> Iterator[Load]:
    """Devices and robots come to what the topology has as load by itself."""
    engine = sa.create_engine(it.postgresql.url("metrics", it.postgresql.password))
    mirror_devices(engine, polled)
    engine.dispose()
    token = (it.machine.secrets / "robot_token").read_text().strip()
    way = Way(f"ws://{LOOPBACK}:{it.ports['8765']}", token)
    fleet = RobotFleet(0, way, step_seconds=ROBOT_STEP_SECONDS, seed=1)
    robots = [RememberingRobot(f"robot-{n}", Random(n)) for n in range(1, ROBOTS + 1)]
    fleet.robots.extend(robots)
    load = Load(it, robots)
    with fleet:
        it.wait_until(lambda: load.acknowledged() > 0, "a robot's message is acknowledged")
        it.wait_until(lambda: load.sampled() > 0, "the service is sampled")
        it.wait_until(lambda: it.uplink_count() > 0, "an uplink is stored")
        it.wait_until(load.are_devices_polled, "the devices are polled")
        progress("all goes through it: uplinks, samples, counts, polls, robots' messages")
        yield load
        it.sending.stop()
