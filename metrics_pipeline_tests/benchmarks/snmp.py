"""CPU time of a sweep over SNMP, against Debian's `prometheus-snmp-exporter` beside it.

    python -m metrics_pipeline_tests.benchmarks.snmp [--devices N] [--dead-share X] [--rounds N]
        [--json]

Ours is what a run does: the probe, the sweep, 7 points a device through the writer into an embedded
store, 5,000 at once, by a process that knows the devices from the run before. In it a device is
asked for 110 variables in 4 requests of 28; every stored value is compared with what the agents'
numbers come to (`wrong_values`; `missing_values` are not stored although the device is alive, for
all sweeps), which is not counted. The peer is asked for the same values, and gives each as text
over HTTP; the one who scrapes is not counted. It walks the tables, as it does in a mixed fleet;
told each of the 110 instances by its configuration it needs as few requests as we do.

| key | CPU time of this process, all threads, in ms a device, dead ones included |
|---|---|
| `cpu_ms_per_device` | the sweep over version 2c, points stored |
| `memories_cpu_ms_per_device` | before it to load what is known of devices, after it to keep it |
| `publish_cpu_ms_per_device` | after it to make its points those that are shown |
| `discovery_cpu_ms_per_device` | the sweep of a process that knows no device, points stored |
| `v3_cpu_ms_per_device` | the sweep over version 3 (sha256, aes128), agents and keys known |
| `v3_first_cpu_ms_per_device` | the same for a new process, as each run is one |
| `peer_cpu_ms_per_device` | the peer, version 2c, walking the tables |
| `peer_told_cpu_ms_per_device` | the peer, version 2c, told each instance by its configuration |
| `v3_peer_cpu_ms_per_device` | the peer, version 3 (sha1, aes128: it knows no SHA-2), walking |
| `v3_peer_told_cpu_ms_per_device` | the peer, version 3, told each instance |
| `v3_peer_first_cpu_ms_per_device` | the same when it has just started and has no keys |

The agents are processes of their own (`snmp_responder`), not counted. Everyone has a process of its
own, in turns; figures are medians. `sweep_s` is the wall time of the sweep over version 2c, in
which silent devices wait for their time-outs together, `rss_mb` the most memory of that process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import CATALOG, DEVICE_METRICS
from metrics_pipeline.core.device_points import metric_points
from metrics_pipeline.core.devices import HOST_METRICS, Device
from metrics_pipeline.orchestration.device_sweep import Summary, Swept, sweep_and_store
from metrics_pipeline.polling import Question
from metrics_pipeline.sources.snmp import NAME, Snmp
from metrics_pipeline.sources.snmp_engines.fast import FastEngine
from metrics_pipeline.sources.snmp_engines.spec import Community, EngineSettings
from metrics_pipeline.sources.snmp_session import SnmpFailure
from metrics_pipeline.sources.snmp_settings import SnmpCommunity, SnmpSettings, SnmpUser
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.writer import Writer
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.snmp_fleet import (
    COMMUNITY,
    PASSWORD,
    USER,
    Generation,
    address_of,
    asked_when_known,
    expected,
    is_dead,
)
from metrics_pipeline_tests.benchmarks.snmp_peer import peer
from metrics_pipeline_tests.servers import running, wait_until

SETTINGS = SnmpSettings(timeout_seconds=2.0, tries=2, max_varbinds=28)
BUDGET_SECONDS = 10.0
"""The default of `polling`."""
AGENT_PROCESSES = 2
ASSET = "devices/snmp_metrics"
STORE, GENERATION = "embedded.sqlite", "generation"

T = TypeVar("T")


class Fleet(NamedTuple):
    """Who is asked, and the folder with the store, the memories and the generation."""

    folder: str
    port: int
    devices: int
    dead_every: int

    def inventory(self, credential: str) -> list[Device]:
        """The devices as the inventory has them."""
        return [
            Device(_name(at), _name(at), address_of(at), "switch", NAME, self.port, credential)
            for at in range(self.devices)
        ]


class Run:
    """A process that sweeps as a run of `device_metrics` does, and what each part of it takes."""

    def __init__(self, fleet: Fleet, writer: Writer, generation: Generation) -> None:
        self._fleet, self._writer, self._generation = fleet, writer, generation
        self._probe = Snmp(SETTINGS, _credentials())
        self._to_compare: list[tuple[int, int]] = []
        self.figures: dict[str, float] = {}

    def discover(self) -> None:
        """Sweep without a memory, and leave one."""
        self._sweep("sweep", "community")
        self._keep_memories()

    def know(self) -> None:
        """Sweep over version 2c with what is remembered."""
        self._load_memories()
        swept = self._sweep("sweep", "community")
        self._keep_memories()
        devices = self._fleet.inventory("community")
        self._measure("publish", lambda: self._writer.publish(ASSET, swept.packing, devices))

    def know_as_user(self) -> None:
        """Sweep over version 3, as a new process first, then with agents and keys known."""
        self._load_memories()
        self._sweep("first", "user")
        self._sweep("sweep", "user")

    def compare(self) -> None:
        """What the sweeps stored with what it should be; last, as it takes memory of its own."""
        for generation, time_ns in self._to_compare:
            for kind, count in _compare(self._fleet, generation, time_ns).items():
                self.figures[kind] = self.figures.get(kind, 0) + count

    async def _poll(self, devices: Sequence[Device], time_ns: int) -> Swept:
        question = Question(self._probe, devices, HOST_METRICS, SETTINGS.max_in_flight)
        return await sweep_and_store(
            [question],
            BUDGET_SECONDS,
            lambda reading: metric_points(reading, time_ns),
            self._writer,
            say=lambda _line: None,
            summary=Summary(),
        )

    def _load_memories(self) -> None:
        self._measure("load", lambda: self._probe.load_memories(self._writer.load_memories(NAME)))

    def _keep_memories(self) -> None:
        self._measure("dump", lambda: self._writer.save_memories(NAME, self._probe.dump_memories()))

    def _sweep(self, what: str, credential: str) -> Swept:
        devices = self._fleet.inventory(credential)
        generation, time_ns = self._generation.advance(), time.time_ns()
        swept = self._measure(what, lambda: asyncio.run(self._poll(devices, time_ns)))
        self._to_compare.append((generation, time_ns))
        return swept

    def _measure(self, what: str, call: Callable[[], T]) -> T:
        cpu, wall = time.process_time(), time.perf_counter()
        result = call()
        self.figures[f"{what}_cpu_s"] = time.process_time() - cpu
        self.figures[f"{what}_s"] = time.perf_counter() - wall
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.figures[f"{what}_rss_mb"] = most
        return result


def _compare(fleet: Fleet, generation: int, time_ns: int) -> dict[str, int]:
    """Stored values that are not what the agents' numbers come to, and those that are not there."""
    settings = EmbeddedStoreSettings(path=Path(fleet.folder) / STORE)
    with closing(EmbeddedStore(settings)) as store:
        stored = {
            (point.tags["device_id"], point.tags["metric_name"]): float(point.fields["value"])
            for point in store.read(DEVICE_METRICS.name, time_ns, time_ns + 1)
        }
    alive = [at for at in range(fleet.devices) if not is_dead(at, fleet.dead_every)]
    right = sum(
        math.isclose(stored.get((_name(device), metric), math.nan), value, rel_tol=1e-12)
        for device in alive
        for metric, value in expected(device, generation).items()
    )
    missing = max(0, len(alive) * len(HOST_METRICS) - len(stored))
    return {"wrong_values": len(stored) - right, "missing_values": missing}


def _name(device: int) -> str:
    return f"device-{device:05d}"


def _credentials() -> dict[str, SnmpCommunity | SnmpUser]:
    os.environ["BENCHMARK_COMMUNITY"], os.environ["BENCHMARK_PASSWORD"] = COMMUNITY, PASSWORD
    password = SecretReference(env="BENCHMARK_PASSWORD")
    return {
        "community": SnmpCommunity(community=SecretReference(env="BENCHMARK_COMMUNITY")),
        "user": SnmpUser(
            user=USER.name,
            auth="sha256",
            auth_password=password,
            privacy="aes128",
            privacy_password=password,
        ),
    }


def _run_here(what: str, fleet: Fleet) -> dict[str, float]:
    """One of Run's methods, in this process."""
    folder = Path(fleet.folder)
    operational = DatabaseSettings(url=f"sqlite:///{folder / 'operational.sqlite'}")
    store = EmbeddedStoreSettings(path=folder / STORE)
    with (
        Generation(folder / GENERATION) as generation,
        closing(open_writer(store, operational, CATALOG)) as writer,
    ):
        run = Run(fleet, writer, generation)
        {"discover": run.discover, "know": run.know, "user": run.know_as_user}[what]()
        run.compare()
    return run.figures


def _run_in_a_process(what: str, fleet: Fleet) -> dict[str, float]:
    argv = [sys.executable, "-m", "metrics_pipeline_tests.benchmarks.snmp", "--child", what]
    done = subprocess.run([*argv, *map(str, fleet)], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextmanager
def agents(dead_every: int, generation_file: Path) -> Iterator[int]:
    """Processes that answer for all devices; gives their port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved, ExitStack() as stack:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Bound to an address that no device has, so it holds the port and gets no request.
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        module = "metrics_pipeline_tests.benchmarks.snmp_responder"
        arguments = [str(port), str(dead_every), str(generation_file)]
        for _ in range(AGENT_PROCESSES):
            stack.enter_context(running([sys.executable, "-m", module, *arguments]))
        wait_until(lambda: _answers(port), "the agents answer")
        yield port


def _answers(port: int) -> bool:
    async def ask() -> bool:
        async with FastEngine(EngineSettings(0.2, 1)) as engine:
            session = engine.session((address_of(0), port), Community(1, COMMUNITY))
            return bool(await session.get(asked_when_known()[:1]))

    try:
        return asyncio.run(ask())
    except SnmpFailure:
        return False


def measure(devices: int, dead_share: float, rounds: int) -> dict[str, Any]:
    """The benchmark's figures."""
    dead_every = round(1 / dead_share) if dead_share else 0
    taken: dict[str, list[Mapping[str, float]]] = {}
    request = {
        "timeout": f"{SETTINGS.timeout_seconds:g}s",
        "retries": SETTINGS.tries - 1,
        "max_repetitions": SETTINGS.max_varbinds,
    }
    with tempfile.TemporaryDirectory() as folder:
        generation = Path(folder) / GENERATION
        with agents(dead_every, generation) as port, peer(port, request) as exporter:
            fleet = Fleet(folder, port, devices, dead_every)
            # It keeps the keys of each agent for as long as it runs.
            taken["peer first"] = [asyncio.run(exporter.sweep("user", devices, dead_every))]
            for _ in range(rounds):
                for what in ("discover", "know", "user"):
                    taken.setdefault(what, []).append(_run_in_a_process(what, fleet))
                for module in ("community_walk", "community", "user_walk", "user"):
                    found = asyncio.run(exporter.sweep(module, devices, dead_every))
                    taken.setdefault(f"peer {module}", []).append(found)
    settled = {"devices": devices, "dead_share": dead_share, "rounds": rounds}
    return settled | _summary(taken, devices)


def _summary(taken: Mapping[str, Sequence[Mapping[str, float]]], devices: int) -> dict[str, Any]:
    def cpu_ms(who: str, *parts: str) -> float:
        runs = [sum(each[f"{part}_cpu_s"] for part in parts) for each in taken[who]]
        return round(statistics.median(runs) / devices * 1000, 3)

    peers = [name for name in taken if name.startswith("peer")]

    def most(who: Sequence[str], key: str) -> float:
        return max(each[key] for name in who for each in taken[name])

    return {
        "values_per_device": len(asked_when_known()),
        "cpu_ms_per_device": cpu_ms("know", "sweep"),
        "peer_cpu_ms_per_device": cpu_ms("peer community_walk", "sweep"),
        "peer_told_cpu_ms_per_device": cpu_ms("peer community", "sweep"),
        "v3_cpu_ms_per_device": cpu_ms("user", "sweep"),
        "v3_first_cpu_ms_per_device": cpu_ms("user", "first"),
        "v3_peer_cpu_ms_per_device": cpu_ms("peer user_walk", "sweep"),
        "v3_peer_told_cpu_ms_per_device": cpu_ms("peer user", "sweep"),
        "v3_peer_first_cpu_ms_per_device": cpu_ms("peer first", "sweep"),
        "discovery_cpu_ms_per_device": cpu_ms("discover", "sweep"),
        "memories_cpu_ms_per_device": cpu_ms("know", "load", "dump"),
        "publish_cpu_ms_per_device": cpu_ms("know", "publish"),
        "sweep_s": round(statistics.median(each["sweep_s"] for each in taken["know"]), 2),
        "rss_mb": round(most(["know"], "sweep_rss_mb"), 1),
        "published_rss_mb": round(most(["know"], "publish_rss_mb"), 1),
        "wrong_values": int(most(["discover", "know", "user"], "wrong_values")),
        "missing_values": int(most(["discover", "know", "user"], "missing_values")),
        "peer_missing_values": int(most(peers, "missing_values")),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--devices", type=int, default=1000, help="devices in a sweep (1000)")
    parser.add_argument("--dead-share", type=float, default=0.1, help="share that is silent (0.1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of (3)")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        what, folder, *numbers = options.child
        print(json.dumps(_run_here(what, Fleet(folder, *map(int, numbers)))))
        return
    figures = measure(options.devices, options.dead_share, options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
