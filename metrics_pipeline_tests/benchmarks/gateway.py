"""The robot gateway with many robots connected: REST, throughput, memory, and what is lost.

    python -m metrics_pipeline_tests.benchmarks.gateway [--robots N] [--seconds S] [--connects C]
                                                        [--json]

The gateway is a process of its own, which may use one core (where the system lets it be told so),
with the embedded store and events into a file, `telemetry.metrics_published` included. N robots, in
another process, connect at once and send a message a second each for S seconds; meanwhile this
process asks REST for the latest values of one of them, 50 times a second over one connection.
`sleep_overshoot_p99_ms` says how late this process itself was woken. `lost` are messages that were
acknowledged and are not in the store; `rss_mb` is of the gateway at the end, `rss_mb_at_half` half
way through.

`late_*`, `loop_cpu_*`, `all_cpu_*` and `gc_*` are what its event loop noted (`held_loop`).

Then C robots connect as fast as one process can: `connects_in` says how many were let in, sooner or
later, `connects_429` and `connects_503` how often one was told to come later (too fast, no room),
which it does after the `Retry-After` it was given, and `connects_s` when all were done.

At last two fresh gateways, with and without events, are connected to in turns:
`event_ms_per_connection` is the difference of the medians from handshake to goodbye.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.figures import memory_mb_of, percentile
from metrics_pipeline_tests.gateway.gateway_process import (
    TOKEN,
    GatewayProcess,
    fresh_gateway_process,
    message,
    stored,
    write_settings,
)
from metrics_pipeline_tests.servers import wait_until

EVENTS = {"transport": {"kind": "json_lines"}}
ASK_EVERY_SECONDS = 0.02
TURNS = 150
AT_ONCE = 500
"""Handshakes that the storm has open at the same time."""
FIELDS = {
    "cpu_usage": 41.5,
    "memory_usage": 50.5,
    "network_latency_ms": 12.25,
    "battery_percentage": 80,
}
HELD_LOOP = "held_loop.json"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Fleet:
    """What the robots' process saw: the times it sent and those that were acknowledged."""

    sent: int = 0
    acknowledged: list[tuple[str, int]] = field(default_factory=list)
    """Robot, and time of the message in microseconds."""
    ack_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class Robot:
    """One that sends a message a second, `count` of them, and waits until all are acknowledged."""

    id: str
    url: str
    count: int
    fleet: Fleet

    async def live(self, ready: asyncio.Semaphore, go: asyncio.Event) -> None:
        """Connect, say so, and send once all are."""
        times: dict[int, float] = {}
        async with _connect(self.url, self.id) as socket:
            ready.release()
            await go.wait()
            hearing = asyncio.create_task(self._hear(socket, times))
            await asyncio.sleep(Random(self.id).random())
            began = time.monotonic()
            for number in range(self.count):
                times[number] = round(time.time(), 6)
                await socket.send(message(number, times[number], **FIELDS))
                self.fleet.sent += 1
                await asyncio.sleep(max(0.0, began + number + 1 - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hearing, 60)

    async def _hear(self, socket: ClientConnection, times: Mapping[int, float]) -> None:
        for _ in range(self.count):
            said = json.loads(await socket.recv())
            assert said["type"] == "ack", said
            at = times[said["id"]]
            self.fleet.ack_ms.append((time.time() - at) * 1000)
            self.fleet.acknowledged.append((self.id, round(at * 1e6)))


def _connect(url: str, robot_id: str) -> connect:
    return connect(
        f"{url}/ws/telemetry/{robot_id}",
        additional_headers={"Authorization": f"Bearer {TOKEN}"},
        compression=None,
        proxy=None,
        open_timeout=120,
        ping_interval=None,
    )


def give_way() -> None:
    """Take no time from the gateway, nor from who asks it: the robots are not what is measured."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {max(cores)} or cores)
    os.nice(10)


def run_fleet(url: str, robots: int, seconds: float, pipe: Connection) -> None:
    """The robots' process: tells when all are connected, and at the end what it saw."""
    give_way()

    async def run() -> Fleet:
        fleet, ready, go = Fleet(), asyncio.Semaphore(0), asyncio.Event()
        began = time.monotonic()
        lives = [
            asyncio.create_task(Robot(f"robot-{n}", url, round(seconds), fleet).live(ready, go))
            for n in range(robots)
        ]
        for _ in range(robots):
            await ready.acquire()
        pipe.send(time.monotonic() - began)
        await asyncio.to_thread(pipe.recv)
        began = time.monotonic()
        go.set()
        await asyncio.gather(*lives)
        fleet.seconds = time.monotonic() - began
        return fleet

    pipe.send(asyncio.run(run()))


def run_storm(url: str, connects: int, pipe: Connection) -> None:
    """Another process: so many robots connect as fast as it can; what became of them."""
    give_way()

    async def one(number: int, slots: asyncio.Semaphore, found: Counter[str]) -> None:
        pause: float | None = 0.0
        while pause is not None:
            await asyncio.sleep(pause)
            async with slots:
                pause = await attempt(number, found)

    async def attempt(number: int, found: Counter[str]) -> float | None:
        """The seconds after which to come again; None where there is no reason to."""
        try:
            async with _connect(url, f"storm-{number}"):
                found["in"] += 1
        except InvalidStatus as error:
            found[str(error.response.status_code)] += 1
            return float(error.response.headers["Retry-After"])
        except (OSError, WebSocketException, TimeoutError) as error:
            found[type(error).__name__] += 1
        return None

    async def run() -> tuple[Counter[str], float]:
        slots, found = asyncio.Semaphore(AT_ONCE), Counter[str]()
        began = time.monotonic()
        await asyncio.gather(*(one(number, slots, found) for number in range(connects)))
        return found, time.monotonic() - began

    pipe.send(asyncio.run(run()))


class Prober:
    """Asks REST over one connection, and notes how long that and its own sleeping took."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._connection = HTTPConnection(*gateway.address)
        self.ask_ms: list[float] = []
        self.overshoot_ms: list[float] = []

    def ask(self, robot_id: str) -> int:
        path = f"/api/telemetry/robots/{robot_id}/metrics"
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = self._connection.getresponse()
        answer.read()
        self.ask_ms.append((time.perf_counter() - began) * 1000)
        return answer.status

    def ask_for(self, seconds: float, robots: int) -> None:
        """Ask of one robot after the other, with pauses."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.ask(f"robot-{len(self.ask_ms) % robots}") in (200, 404)
            self.pause()

    def pause(self) -> None:
        began = time.perf_counter()
        time.sleep(ASK_EVERY_SECONDS)
        self.overshoot_ms.append((time.perf_counter() - began - ASK_EVERY_SECONDS) * 1000)

    def close(self) -> None:
        self._connection.close()


def cpu_seconds(pid: int) -> float:
    """CPU time of all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


@contextlib.contextmanager
def gateway_on_one_core(state: Path, **sections: Any) -> Iterator[GatewayProcess]:
    """A gateway that may use one core, where that can be said."""
    write_settings(state, {"publish_seconds": 3.0}, **sections)
    watched = ("-m", "metrics_pipeline_tests.benchmarks.held_loop", str(state / HELD_LOOP))
    with fresh_gateway_process(state, watched) as gateway:
        cores = os.sched_getaffinity(0)
        if len(cores) > 1:
            for thread in Path(f"/proc/{gateway.process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {max(cores)})
        yield gateway


@contextlib.contextmanager
def child(target: Any, *arguments: Any) -> Iterator[Connection]:
    """A process that gets the other end of a pipe as its last argument."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()  # so that its end, however it comes, is one of the pipe
    try:
        yield ours
    finally:
        process.join(60)
        process.kill()


def measure_robots(gateway: GatewayProcess, robots: int, seconds: float) -> dict[str, float]:
    """The figures of `robots` that send, and of REST meanwhile."""
    pid, idle, prober = gateway.process.pid, Prober(gateway), Prober(gateway)
    with (
        child(run_fleet, gateway.url, robots, seconds) as pipe,
        contextlib.closing(idle),
        contextlib.closing(prober),
    ):
        connect_seconds = pipe.recv()
        idle.ask_for(seconds / 2, robots)
        held_loop(gateway)  # what was until now was connecting
        pipe.send("go")
        cpu, began = cpu_seconds(pid), time.monotonic()
        prober.ask_for(seconds / 2, robots)
        half = memory_mb_of(pid)
        prober.ask_for(seconds / 2, robots)
        cpu_share = (cpu_seconds(pid) - cpu) / (time.monotonic() - began)
        held = held_loop(gateway)
        fleet: Fleet = pipe.recv()
        cpu_in_all = cpu_seconds(pid) - cpu
    there = {(p.tags["robot_id"], p.time_ns // 1000) for p in stored(gateway.state)}
    return {
        "robots": robots,
        "connect_s": connect_seconds,
        "messages": fleet.sent,
        "acknowledged": len(fleet.acknowledged),
        "lost": len(set(fleet.acknowledged) - there),
        "messages_per_second": len(fleet.acknowledged) / fleet.seconds,
        "ack_p50_ms": statistics.median(fleet.ack_ms),
        "ack_p99_ms": percentile(fleet.ack_ms, 0.99),
        "rest_p99_ms_while_none_sends": percentile(idle.ask_ms, 0.99),
        "rest_p50_ms": statistics.median(prober.ask_ms),
        "rest_p99_ms": percentile(prober.ask_ms, 0.99),
        "sleep_overshoot_p99_ms": percentile(prober.overshoot_ms, 0.99),
        "cpu_share_of_one_core": cpu_share,
        "cpu_us_per_message": cpu_in_all / len(fleet.acknowledged) * 1e6,
        "rss_mb_at_half": half,
        "rss_mb": memory_mb_of(pid),
        **held,
    }


def held_loop(gateway: GatewayProcess) -> dict[str, float]:
    """What the gateway has noted of its own event loop since it was asked before."""
    report = gateway.state / HELD_LOOP
    report.unlink(missing_ok=True)
    gateway.process.send_signal(signal.SIGUSR1)
    wait_until(report.exists, "it says how long its loop was held", gateway.process)
    return {
        f"{name.removesuffix('_ms')}_{share}_ms": value
        for name, spread in json.loads(report.read_text()).items()
        for share, value in spread.items()
    }


def measure_storm(gateway: GatewayProcess, connects: int) -> dict[str, float]:
    """The figures of `connects` handshakes at once."""
    with child(run_storm, gateway.url, connects) as pipe:
        found, seconds = pipe.recv()
    prober = Prober(gateway)
    with contextlib.closing(prober):
        assert prober.ask("robot-0") == 200
    return {
        "connects": connects,
        "connects_s": seconds,
        "connects_in": found.pop("in", 0),
        "connects_429": found.pop("429", 0),
        "connects_503": found.pop("503", 0),
        "connects_failed": found.total(),
        "rss_mb_after_connects": memory_mb_of(gateway.process.pid),
    }


def measure_events(folder: Path, turns: int) -> dict[str, float]:
    """What events add to a connection, in ms: two gateways, asked in turns."""

    async def one(url: str) -> float:
        began = time.perf_counter()
        async with _connect(url, "turn") as socket:
            await socket.send(message(1, cpu_usage=101))  # answered at once, without the store
            await socket.recv()
        return (time.perf_counter() - began) * 1000

    async def run(urls: Sequence[str]) -> list[list[float]]:
        return [[await one(url) for url in urls] for _ in range(turns)]

    with (
        gateway_on_one_core(folder / "without") as without,
        gateway_on_one_core(folder / "with", events=EVENTS) as with_events,
    ):
        rounds = asyncio.run(run([without.url, with_events.url]))
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return {"connection_ms": medians[0], "event_ms_per_connection": medians[1] - medians[0]}


def measure(robots: int, seconds: float, connects: int) -> dict[str, float]:
    """The benchmark's figures."""
    with tempfile.TemporaryDirectory() as folder:
        with gateway_on_one_core(Path(folder) / "many", events=EVENTS) as gateway:
            figures = measure_robots(gateway, robots, seconds)
            figures |= measure_storm(gateway, connects)
        figures |= measure_events(Path(folder), TURNS)
    return {name: round(value, 3) for name, value in figures.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--robots", type=int, default=1000, help="connected at once (1000)")
    parser.add_argument("--seconds", type=float, default=60, help="so long they send (60)")
    parser.add_argument("--connects", type=int, default=10_000, help="of the storm (10000)")
    options = parser.parse_args(arguments)
    figures = measure(options.robots, options.seconds, options.connects)
    show(figures, options)


if __name__ == "__main__":
    main()
