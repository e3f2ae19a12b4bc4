"""Simulated robots: they connect, stream, drop and come back, and send again what nobody stored.

Each measures once a step, connected or not. What the gateway has not acknowledged is sent again
with the time that it had, so that it is stored once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from metrics_pipeline.access.whole_file import write_private
from metrics_pipeline.simulators.loop_thread import LoopThread

DROP_SHARE = 0.05
"""So often, of the steps, a robot loses its connection."""
LONGEST_ABSENCE_STEPS = 4
KEPT_MESSAGES = 1000
"""A robot forgets the oldest of what is not acknowledged beyond that."""
BATTERY_STEP = 0.5
LOW_BATTERY, FULL_BATTERY = 10.0, 100.0


@dataclass(frozen=True, slots=True)
class Way:
    """How robots reach the gateway."""

    url: str
    token: str
    tls: ssl.SSLContext | None = None


class Measurements:
    """What one robot measures: a walk at random, and a battery that is charged when it is low."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._cpu = random.uniform(10, 60)
        self._memory = random.uniform(20, 70)
        self._battery = random.uniform(LOW_BATTERY, FULL_BATTERY)
        self._is_charging = False

    def step(self) -> dict[str, float]:
        """The fields of the next message."""
        self._cpu = _within_percent(self._cpu + self._random.gauss(0, 5))
        self._memory = _within_percent(self._memory + self._random.gauss(0, 1))
        if not LOW_BATTERY < self._battery < FULL_BATTERY:
            self._is_charging = self._battery <= LOW_BATTERY
        change = BATTERY_STEP * (4 if self._is_charging else -1)
        self._battery = min(FULL_BATTERY, max(0.0, self._battery + change))
        return {
            "cpu_usage": round(self._cpu, 1),
            "memory_usage": round(self._memory, 1),
            "network_latency_ms": round(self._random.lognormvariate(3, 0.4), 1),
            "battery_percentage": round(self._battery, 1),
        }


def _within_percent(value: float) -> float:
    return min(100.0, max(0.0, value))


class Robot:
    """One robot; `acknowledged` counts what the gateway says it has stored."""

    def __init__(
        self, robot_id: str, random: Random, clock: Callable[[], float] = time.time
    ) -> None:
        self.id = robot_id
        self.acknowledged = 0
        self.refused = 0
        self.unacknowledged: dict[int, str] = {}
        self._random = random
        self._clock = clock
        self._measurements = Measurements(random)
        self._numbers = itertools.count(1)

    async def live(self, way: Way, step_seconds: float) -> None:
        """Connect, stream, drop and come back, until cancelled."""
        await asyncio.sleep(self._random.uniform(0, step_seconds))
        while True:
            try:
                async with self._connect(way) as socket:
                    await self._stream(socket, step_seconds)
            except (OSError, TimeoutError, WebSocketException):
                pass  # the gateway is away, or has sent it away: it comes back
            for _ in range(self._random.randint(1, LONGEST_ABSENCE_STEPS)):
                await asyncio.sleep(step_seconds)
                self.measure()

    def measure(self) -> tuple[int, str]:
        """A new message, by its number; it is kept until it is acknowledged."""
        number = next(self._numbers)
        content: dict[str, Any] = {"id": number, "time": self._clock()}
        self.unacknowledged[number] = text = json.dumps(content | self._measurements.step())
        if len(self.unacknowledged) > KEPT_MESSAGES:
            del self.unacknowledged[min(self.unacknowledged)]
        return number, text

    def hear(self, text: str | bytes) -> None:
        """What the gateway says of a message: stored, or never to be."""
        said = json.loads(text)
        self.unacknowledged.pop(said["id"], None)
        if said["type"] == "ack":
            self.acknowledged += 1
        else:
            self.refused += 1

    def _connect(self, way: Way) -> connect:
        return connect(
            f"{way.url}/ws/telemetry/{self.id}",
            additional_headers={"Authorization": f"Bearer {way.token}"},
            ssl=way.tls,
            compression=None,
            proxy=None,
            open_timeout=30,
        )

    async def _stream(self, socket: ClientConnection, step_seconds: float) -> None:
        hearing = asyncio.create_task(self._hear_for_ever(socket))
        try:
            for text in list(self.unacknowledged.values()):
                await socket.send(text)
            while self._random.random() >= DROP_SHARE and not hearing.done():
                await socket.send(self.measure()[1])
                await asyncio.sleep(step_seconds)
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
        if self._random.random() < DROP_SHARE * 2:
            socket.transport.abort()  # as a radio does; the others say goodbye

    async def _hear_for_ever(self, socket: ClientConnection) -> None:
        async for text in socket:
            self.hear(text)


class RobotFleet(LoopThread):
    """Robots called `robot-1`, `robot-2`, …, in a thread of their own."""

    def __init__(self, count: int, way: Way, *, step_seconds: float, seed: int) -> None:
        super().__init__("robots")
        dice = (Random(seed + number) for number in range(count))  # noqa: S311  (no key)
        self.robots = [Robot(f"robot-{n}", random) for n, random in enumerate(dice, start=1)]
        self._way = way
        self._step_seconds = step_seconds

    async def _serve(self) -> None:
        lives = [
            asyncio.create_task(robot.live(self._way, self._step_seconds)) for robot in self.robots
        ]
        await self._stop.wait()
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)


@contextmanager
def serve_robots(
    *, token_file: Path, url: str, count: int, step_seconds: float, seed: int
) -> Iterator[RobotFleet]:
    """Have `count` robots send to the gateway at `url` (`ws://host:port`), a message each step.

    Their token is in `token_file`, for the owner alone to read, and stays what it is if it is there
    already. Raises OSError when it cannot be written.
    """
    if not token_file.exists():
        write_private(token_file, secrets.token_hex(32) + "\n")
    way = Way(url, token_file.read_text(encoding="utf-8").strip())
    with RobotFleet(count, way, step_seconds=step_seconds, seed=seed) as fleet:
        yield fleet
