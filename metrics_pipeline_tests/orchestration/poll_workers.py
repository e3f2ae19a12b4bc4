"""Workers of Celery, a Redis between them and runs, and devices that hold up a poll."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.storage.tags import PARTITION_NAME_TAG

from metrics_pipeline.access.database import open_engine
from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    make_dagster_home,
)
from metrics_pipeline.access.inventory_schema import upgrade_inventory
from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.core.catalog import DEVICE_METRICS
from metrics_pipeline.core.device_assets import shard_of
from metrics_pipeline.core.points import Point
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.simulators.snmp_agent import SimulatedAgent, SnmpAgents
from metrics_pipeline.simulators.snmp_objects import AgentKind, Identity
from metrics_pipeline.stack.processes import Child, end_all
from metrics_pipeline.storage.embedded import EmbeddedStore
from metrics_pipeline_tests.redis_server import PASSWORD, RedisServer
from metrics_pipeline_tests.servers import wait_until

SHARDS = ("1", "2")
DEVICES_PER_SHARD = 5
COMMUNITY = "a-community-of-these-devices"
RUNS = [sys.executable, "-m", "metrics_pipeline_tests.orchestration.poll_runs"]
TAKES_POLLS = "takes polls."
LOST_AFTER_SECONDS = 3
PREFIX = "these-polls:"


@dataclass(slots=True)
class Site:
    """Everything but the workers, and what can be seen of it. Of each shard one agent is silent."""

    folder: Path
    redis: RedisServer
    instance: dg.DagsterInstance
    settings: Settings
    agents: Mapping[str, SimulatedAgent]
    """By the ids of their devices."""
    starter: subprocess.Popen[str]
    """From which the processes of runs are forked."""
    workers: dict[str, Child] = field(default_factory=dict)

    def start_worker(self, name: str) -> None:
        """As an operator does. It takes one poll at a time."""
        command = [sys.executable, "-m", "metrics_pipeline", "worker", "--at-once", "1"]
        command += ["--name", name]
        self.workers[name] = Child.start(name, command, os.environ, self.folder / "logs")

    def wait_for_workers(self) -> None:
        """Until each says that it takes polls: then each takes one of the next two."""
        for worker in self.workers.values():
            log = worker.log
            wait_until(lambda log=log: TAKES_POLLS in log.read_text(), "it does", worker.process)  # type: ignore[misc]

    def run(self, shard: str) -> None:
        """Start a run of the shard's metrics, in a process; return when there is its record."""
        before = self.last_run(shard)
        assert self.starter.stdin is not None
        self.starter.stdin.write(f"{shard}\n")
        self.starter.stdin.flush()

        def is_there() -> bool:
            last = self.last_run(shard)
            return last is not None and (before is None or last.run_id != before.run_id)

        wait_until(is_there, f"there is a run of shard {shard}")

    def status(self, shard: str) -> dg.DagsterRunStatus:
        """Of the shard's last run, once it has ended."""

        def find() -> dg.DagsterRun:
            run = self.last_run(shard)
            assert run is not None
            return run

        wait_until(lambda: find().is_finished, f"the run of shard {shard} has ended")
        return find().status

    def last_run(self, shard: str) -> dg.DagsterRun | None:
        """The newest of the shard."""
        only = dg.RunsFilter(tags={PARTITION_NAME_TAG: shard})
        return next(iter(self.instance.get_runs(only, limit=1)), None)

    def taken_by(self, shard: str) -> list[str]:
        """The names of the workers that began with the poll of the shard's last run, in order."""
        run = self.last_run(shard)
        logs = self.instance.all_logs(run.run_id) if run else []
        found = [
            each.dagster_event.engine_event_data.metadata["Celery worker"].value
            for each in logs
            if each.dagster_event
            and each.dagster_event.event_type is dg.DagsterEventType.ENGINE_EVENT
            and "Celery worker" in each.dagster_event.engine_event_data.metadata
        ]
        return [str(name).partition("@")[0] for name in found]

    def devices(self, *shards: str) -> set[str]:
        """Of the inventory."""
        return {name for name in self.agents if shard_of(name, len(SHARDS)) in shards}

    def is_polled(self, shard: str) -> bool:
        """Whether somebody has asked its devices; it is not done until all agents answer."""
        return any(self.agents[name].requests for name in self.devices(shard))

    def hold_up(self) -> None:
        """From now on a poll of any shard waits for its silent agent: for 24 s."""
        for agent in self.agents.values():
            agent.requests = 0
        for shard in SHARDS:
            self.agents[min(self.devices(shard))].is_silent = True

    def go_on(self) -> None:
        """All agents answer."""
        for agent in self.agents.values():
            agent.is_silent = False

    def scores(self) -> dict[bytes, float]:
        """When a worker said last that it has what Redis handed to it, by message."""
        with self.redis.client as client:
            found: Any = client.zrange(f"{PREFIX}unacked_index", 0, -1, withscores=True)
        return dict(found)

    def stored(self, shard: str) -> list[Point]:
        """The points of the shard's last run, which have its time."""
        run = self.last_run(shard)
        assert run is not None
        record = self.instance.get_run_record_by_id(run.run_id)
        assert record is not None
        at_ns = round(record.create_timestamp.timestamp() * 1e6) * 1000
        store = EmbeddedStore(self.settings.store)  # type: ignore[arg-type]
        try:
            points = store.read(DEVICE_METRICS.name, at_ns, at_ns + 1)
        finally:
            store.close()
        return [p for p in points if p.tags["device_id"] in self.devices(shard)]

    def written(self) -> bytes:
        """What all processes have written, to files and to Redis, but for the secrets."""
        secret = {self.folder / "redis_url", self.folder / "community"}
        files = [each for each in self.folder.rglob("*") if each.is_file() and each not in secret]
        with self.redis.client as client:
            keys: Any = client.keys("*")
            dumped: Any = [client.dump(key) for key in keys]
        return b"".join([*(file.read_bytes() for file in files), *keys, *dumped])

    def close(self) -> None:
        """End all processes."""
        os.killpg(self.starter.pid, signal.SIGKILL)
        self.starter.communicate()
        end_all(list(self.workers.values()))


def kill(worker: Child) -> None:
    """As a machine that dies: with its children, and without a word."""
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()


def children_of(worker: Child) -> list[int]:
    """The processes in which it polls."""
    pid = worker.process.pid
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """With its agents, its Redis, which asks for a password, and an inventory of its devices."""
    agents = _agents()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        redis = RedisServer(folder, password=PASSWORD)
        stack.callback(redis.stop)
        redis.start()
        served = stack.enter_context(SnmpAgents(agents.values(), community=COMMUNITY))
        settings = _settings(folder, redis, patch)
        _fill_inventory(settings, agents, served.port)
        instance = stack.enter_context(dg.DagsterInstance.get())
        starter = subprocess.Popen(RUNS, stdin=subprocess.PIPE, text=True, start_new_session=True)
        it = Site(folder, redis, instance, settings, agents, starter)
        stack.callback(it.close)
        yield it


def _agents() -> dict[str, SimulatedAgent]:
    """As many in each shard."""
    names = [f"switch-{number}" for number in range(100)]
    chosen: list[str] = []
    for shard in SHARDS:
        here = [name for name in names if shard_of(name, len(SHARDS)) == shard]
        chosen += here[:DEVICES_PER_SHARD]
    return {
        name: SimulatedAgent(f"127.20.77.{number}", Identity(AgentKind.STANDARD, name))
        for number, name in enumerate(chosen, start=1)
    }


def _settings(folder: Path, redis: RedisServer, patch: pytest.MonkeyPatch) -> Settings:
    (folder / "redis_url").write_text(redis.url)
    (folder / "community").write_text(COMMUNITY)
    document = {
        "version": 1,
        "sources": {"inventory": {"database": {"url": "sqlite:///inventory.sqlite"}}},
        "polling": {
            "enabled": True,
            "shards": len(SHARDS),
            "metrics_by": ["snmp"],
            "device_budget_seconds": 25,
            "workers": {
                "broker": {"file": "redis_url"},
                "key_prefix": PREFIX,
                "lost_after_seconds": LOST_AFTER_SECONDS,
            },
            "snmp": {
                "timeout_seconds": 2.4,
                "tries": 10,
                "credentials": {"these": {"community": {"file": "community"}}},
            },
        },
    }
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(document))
    patch.setenv(SETTINGS_VARIABLE, str(file))
    patch.setenv(STATE_DIR_VARIABLE, str(folder))
    patch.setenv("DAGSTER_HOME", str(make_dagster_home(folder)))
    return load_settings()


def _fill_inventory(settings: Settings, agents: Mapping[str, SimulatedAgent], port: int) -> None:
    engine = open_engine(settings.source("inventory").database)  # type: ignore[union-attr]
    upgrade_inventory(engine)
    with engine.begin() as connection:
        rows = [
            {
                "id": name,
                "ip_address": agent.address,
                "protocol": "snmp",
                "port": port,
                "credential": "these",
            }
            for name, agent in agents.items()
        ]
        connection.execute(DEVICES.insert(), rows)
    engine.dispose()
