"""CPU time of a sweep over SNMP v2c, against Debian's `prometheus-snmp-exporter` beside it.

    python -m metrics_pipeline_tests.benchmarks.snmp [--devices N] [--dead-share X] [--rounds N]
        [--gufo] [--json]

Each device has 110 values, asked by everybody in 4 requests of 28 known instances.

- Ours (`cpu_ms_per_device`): the fast engine, and as many points rendered to line protocol as the
  product writes for a device. Every value is compared with what the agent has; that is not counted.
- The peer (`peer_cpu_ms_per_device`): one scrape a device, every value as text over HTTP. The one
  who scrapes is not counted.
- `requests_cpu_ms_per_device`: what we take for the requests alone; with `--gufo` also what
  `gufo-snmp` takes for them, if it is installed.

The agents are processes of their own (`snmp_responder`), not counted. Everyone has a process of its
own, in turns; figures are medians. `sweep_s` is the wall time of our sweep, in which silent devices
wait for their time-outs together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline.core.devices import HOST_METRICS
from metrics_pipeline.core.line_protocol import render
from metrics_pipeline.core.points import Point
from metrics_pipeline.sources.snmp_engines.fast import FastEngine
from metrics_pipeline.sources.snmp_engines.spec import Community, EngineSettings
from metrics_pipeline.sources.snmp_session import SnmpFailure
from metrics_pipeline_tests.benchmarks.snmp_responder import (
    OWN_NUMBER,
    address_of,
    cells,
    is_dead,
    own_number,
)
from metrics_pipeline_tests.servers import listening_ports, require, running, wait_until

VARIABLES_A_REQUEST = 28
TIMEOUT_SECONDS = 2.0
TRIES = 2
IN_FLIGHT = 1000
SCRAPES_AT_ONCE = 50
AGENT_PROCESSES = 2
OIDS = tuple(cells())
TRUTH = {oid: int.from_bytes(value[2:], "big") for oid, value in cells().items()}
POINTS_AT_ONCE = 1000

_COMPARING: list[float] = []
"""CPU seconds the benchmark itself took to compare: not ours, nor the peer's."""


async def sweep(port: int, devices: int, dead_every: int) -> dict[str, Any]:
    """Our sweep, every value compared and rendered, and what this process took for it."""
    points, time_ns = _Rendered(), time.time_ns()

    def take(device: int, found: Mapping[str, Any]) -> int:
        points.add(device, found, time_ns)
        return _count_wrong(found, device)

    return await _sweep(port, devices, dead_every, take)


async def sweep_alone(port: int, devices: int, dead_every: int) -> dict[str, Any]:
    """Our sweep, for the requests alone."""
    return await _sweep(port, devices, dead_every, lambda _, found: len(OIDS) - len(found))


async def _sweep(
    port: int, devices: int, dead_every: int, take: Callable[[int, Mapping[str, Any]], int]
) -> dict[str, Any]:
    settings = EngineSettings(TIMEOUT_SECONDS, TRIES, VARIABLES_A_REQUEST)
    window, wrong, credential = asyncio.Semaphore(IN_FLIGHT), 0, Community(1, "public")

    async def poll(engine: FastEngine, device: int) -> None:
        nonlocal wrong
        async with window, engine.session((address_of(device), port), credential) as session:
            try:
                found = await session.get(OIDS)
            except SnmpFailure:
                wrong += 0 if is_dead(device, dead_every) else len(OIDS)
                return
        wrong += take(device, found)

    _COMPARING.clear()
    cpu, wall = time.process_time(), time.perf_counter()
    async with FastEngine(settings) as engine:
        await asyncio.gather(*(poll(engine, device) for device in range(devices)))
    return {
        "cpu_s": time.process_time() - cpu - sum(_COMPARING),
        "wall_s": time.perf_counter() - wall,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "wrong_values": wrong,
    }


async def sweep_with_gufo(port: int, devices: int, dead_every: int) -> dict[str, Any]:
    """The same requests with `gufo-snmp`: a socket a device, nothing compared or rendered."""
    from gufo.snmp.aio import SnmpSession

    window, wrong = asyncio.Semaphore(IN_FLIGHT), 0

    async def poll(device: int) -> None:
        nonlocal wrong
        async with window:
            session = SnmpSession(address_of(device), port=port, timeout=TIMEOUT_SECONDS)
            for at in range(0, len(OIDS), VARIABLES_A_REQUEST):
                asked = OIDS[at : at + VARIABLES_A_REQUEST]
                for left in reversed(range(TRIES)):
                    try:
                        found = await session.get_many(asked)
                        wrong += len(asked) - len(found)
                        break
                    except TimeoutError:
                        if left == 0:
                            return

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(poll(device) for device in range(devices)))
    taken = time.process_time() - cpu
    return {"cpu_s": taken, "wall_s": time.perf_counter() - wall, "wrong_values": wrong}


class _Rendered:
    """The points of a device, as many as the product writes, rendered in batches."""

    def __init__(self) -> None:
        self._points: list[Point] = []

    def add(self, device: int, found: Mapping[str, Any], time_ns: int) -> None:
        share = len(OIDS) // len(HOST_METRICS)
        values = list(found.values())
        self._points += [
            Point(
                "device_metrics",
                {"device_id": f"device-{device:05d}", "metric_name": metric},
                {"value": float(sum(values[at * share : (at + 1) * share]))},
                time_ns,
            )
            for at, metric in enumerate(HOST_METRICS)
        ]
        if len(self._points) >= POINTS_AT_ONCE:
            render(self._points)
            self._points.clear()


def _count_wrong(found: Mapping[str, Any], device: int) -> int:
    started = time.process_time()
    expected = TRUTH | {OWN_NUMBER: own_number(device)}
    wrong: int = sum(found.get(oid) != value for oid, value in expected.items())
    _COMPARING.append(time.process_time() - started)
    return wrong


class Peer:
    """A `prometheus-snmp-exporter` that runs."""

    def __init__(self, pid: int, port: int, agent_port: int) -> None:
        self._pid, self._port, self._agent_port = pid, port, agent_port

    async def sweep(self, devices: int, dead_every: int) -> dict[str, Any]:
        """Scrape all devices; what the exporter took."""
        window, values = asyncio.Semaphore(SCRAPES_AT_ONCE), 0
        free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def scrape(device: int) -> None:
            nonlocal values
            async with window:
                connection = (
                    free.pop() if free else await asyncio.open_connection("127.0.0.1", self._port)
                )
                found = await self._scrape(*connection, device)
                values += found
                free.append(connection)

        cpu = self._cpu_seconds()
        await asyncio.gather(*(scrape(device) for device in range(devices)))
        taken = self._cpu_seconds() - cpu
        for _, writer in free:
            writer.close()
        alive = sum(not is_dead(device, dead_every) for device in range(devices))
        return {"cpu_s": taken, "wrong_values": alive * len(OIDS) - values}

    async def _scrape(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, device: int
    ) -> int:
        target = f"{address_of(device)}:{self._agent_port}"
        request = f"GET /snmp?module=benchmark&target={target} HTTP/1.1\r\nHost: peer\r\n\r\n"
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        else:
            length = int(head.partition("content-length:")[2].split()[0])
            body = await reader.readexactly(length)
        return body.count(b"\nvalue_")

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def agents(dead_every: int) -> Iterator[int]:
    """Processes that answer for all devices; gives their port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved, ExitStack() as stack:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Bound to an address that no device has, so it holds the port and gets no request.
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        module = "metrics_pipeline_tests.benchmarks.snmp_responder"
        for _ in range(AGENT_PROCESSES):
            stack.enter_context(running([sys.executable, "-m", module, str(port), str(dead_every)]))
        wait_until(lambda: _answers(port), "the agents answer")
        yield port


@contextmanager
def peer(agent_port: int) -> Iterator[Peer]:
    """The exporter, with a module that asks for the same instances."""
    program = require("prometheus-snmp-exporter")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "snmp.yml"
        file.write_text(yaml.safe_dump({"benchmark": peer_module()}))
        argv = [program, f"--config.file={file}", "--web.listen-address=127.0.0.1:0"]
        argv += ["--log.level=error"]
        with running(argv) as pid:
            wait_until(lambda: bool(listening_ports(pid)), "the exporter listens")
            yield Peer(pid, listening_ports(pid).pop(), agent_port)


def peer_module() -> dict[str, Any]:
    """A module of the exporter's snmp.yml (version 0.21)."""
    columns = dict.fromkeys(oid.rpartition(".")[0] for oid in OIDS)
    metrics = [
        {
            "name": f"value_{at}",
            "oid": column,
            "type": "gauge",
            "help": column,
            "indexes": [] if f"{column}.0" in OIDS else [{"labelname": "row", "type": "gauge"}],
        }
        for at, column in enumerate(columns)
    ]
    return {
        "get": list(OIDS),
        "metrics": metrics,
        "version": 2,
        "max_repetitions": VARIABLES_A_REQUEST,
        "retries": TRIES - 1,
        "timeout": f"{TIMEOUT_SECONDS:g}s",
        "auth": {"community": "public"},
    }


def measure(devices: int, dead_share: float, rounds: int, with_gufo: bool) -> dict[str, Any]:
    """The benchmark's figures."""
    dead_every = round(1 / dead_share) if dead_share else 0
    names = ["ours", "alone", *(["gufo"] if with_gufo else [])]
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in (*names, "peer")}
    with agents(dead_every) as port, peer(port) as exporter:
        for _ in range(rounds):
            for name in names:
                taken[name].append(_in_a_process(name, port, devices, dead_every))
            taken["peer"].append(asyncio.run(exporter.sweep(devices, dead_every)))
    figures = {
        "devices": devices,
        "dead_share": dead_share,
        "rounds": rounds,
        "values_per_device": len(OIDS),
        "cpu_ms_per_device": _cpu_ms(taken["ours"], devices),
        "peer_cpu_ms_per_device": _cpu_ms(taken["peer"], devices),
        "requests_cpu_ms_per_device": _cpu_ms(taken["alone"], devices),
        "sweep_s": round(statistics.median(each["wall_s"] for each in taken["ours"]), 2),
        "rss_mb": round(max(each["rss_mb"] for each in taken["ours"]), 1),
        "wrong_values": max(each["wrong_values"] for each in taken["ours"]),
        "peer_missing_values": max(each["wrong_values"] for each in taken["peer"]),
    }
    if with_gufo:
        figures["gufo_cpu_ms_per_device"] = _cpu_ms(taken["gufo"], devices)
        figures["gufo_missing_values"] = max(each["wrong_values"] for each in taken["gufo"])
    return figures


def _cpu_ms(taken: Sequence[Mapping[str, Any]], devices: int) -> float:
    seconds: float = statistics.median(each["cpu_s"] for each in taken)
    return round(seconds / devices * 1000, 3)


def _in_a_process(who: str, port: int, devices: int, dead_every: int) -> dict[str, Any]:
    argv = [sys.executable, "-m", "metrics_pipeline_tests.benchmarks.snmp", "--child", who]
    numbers = map(str, (port, devices, dead_every))
    done = subprocess.run([*argv, *numbers], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _answers(port: int) -> bool:
    async def ask() -> bool:
        async with FastEngine(EngineSettings(0.2, 1)) as engine:
            session = engine.session((address_of(0), port), Community(1, "public"))
            return await session.get([OWN_NUMBER]) == {OWN_NUMBER: own_number(0)}

    try:
        return asyncio.run(ask())
    except SnmpFailure:
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1000, help="devices in a sweep (1000)")
    parser.add_argument("--dead-share", type=float, default=0.1, help="share that is silent (0.1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of (3)")
    parser.add_argument("--gufo", action="store_true", help="measure gufo-snmp, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        who, *numbers = options.child
        contender = {"ours": sweep, "alone": sweep_alone, "gufo": sweep_with_gufo}[who]
        print(json.dumps(asyncio.run(contender(*map(int, numbers)))))
        return
    figures = measure(options.devices, options.dead_share, options.rounds, options.gufo)
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
