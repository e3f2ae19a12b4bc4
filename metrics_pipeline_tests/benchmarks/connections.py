"""Connections to PostgreSQL while the runs of many shards begin at the same moment.

    python -m metrics_pipeline_tests.benchmarks.connections [--shards N] [--seconds S] [--json]

A stack as that of `make run`, with Dagster's tables, the operational ones and the inventory in a
PostgreSQL of its own, which lets in so many that nobody waits. One device of each shard is pinged.
It is watched from shortly before a tick, at which two runs of each shard are due.

| key | |
|---|---|
| `connections` | of clients at once, at most |
| `idle_connections` | of those, at most that did nothing, in a transaction or not |
| `opened` | connections |
| `postgresql_cpu_s` | CPU of the server and all its processes |
| `runs_due`, `runs_begun` | by then |
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE
from metrics_pipeline.access.inventory_schema import upgrade_inventory
from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.core.device_assets import shard_of
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.idle import COMMAND, Watch, starts
from metrics_pipeline_tests.postgresql import (
    PostgresqlDatabase,
    PostgresqlServer,
    running_postgresql,
)
from metrics_pipeline_tests.running_stack import READY, RunningStack, running_stack

CYCLE_SECONDS = 300
BEFORE_SECONDS = 5.0
LOOK_SECONDS = 0.2
RUNS_A_SHARD = 2

ACTIVITY = sa.text("""SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle%')
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()""")
OPENED = sa.text("SELECT sessions FROM pg_stat_database WHERE datname = current_database()")


@dataclass(slots=True)
class Peak:
    """The most that was seen."""

    connections: int = 0
    idle: int = 0

    def look(self, connection: sa.Connection) -> None:
        """Once more."""
        clients, idle = connection.execute(ACTIVITY).one()
        self.connections, self.idle = max(self.connections, clients), max(self.idle, idle)


def measure(folder: Path, shards: int, seconds: float) -> dict[str, float]:
    """Start the stack, wait for the next tick but for what is too near, and watch."""
    with running_postgresql(max_connections="1000") as server, server.database() as database:
        environment = _prepare(folder, database, shards)
        with running_stack(["sh", "-c", f"{COMMAND} {folder}"], folder, environment) as stack:
            stack.wait_until(lambda: READY in stack.output, "it is ready")
            return _watch(server, database, stack, shards, seconds)


def _watch(
    server: PostgresqlServer,
    database: PostgresqlDatabase,
    stack: RunningStack,
    shards: int,
    seconds: float,
) -> dict[str, float]:
    due = (time.time() + BEFORE_SECONDS) // CYCLE_SECONDS * CYCLE_SECONDS + CYCLE_SECONDS
    time.sleep(due - BEFORE_SECONDS - time.time())
    assert server.process is not None
    watch, peak = Watch(server.process.pid), Peak()
    engine = sa.create_engine(database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        opened = connection.execute(OPENED).scalar_one()
        watch.look()
        while time.time() < due + seconds:
            peak.look(connection)
            time.sleep(LOOK_SECONDS)
        watch.look()
        opened = connection.execute(OPENED).scalar_one() - opened
    engine.dispose()
    return {
        "shards": shards,
        "seconds": BEFORE_SECONDS + seconds,
        "connections": peak.connections,
        "idle_connections": peak.idle,
        "opened": float(opened),
        "postgresql_cpu_s": round(sum(watch.spent().values()), 2),
        "runs_due": RUNS_A_SHARD * shards,
        "runs_begun": len(starts(stack, due - 1)),
        "load": round(os.getloadavg()[0], 2),
    }


def _prepare(folder: Path, database: PostgresqlDatabase, shards: int) -> dict[str, str]:
    """The settings, and a device in each shard; gives the environment of the stack."""
    (folder / "password").write_text(database.password)
    document = {
        "version": 1,
        "operational_database": _section(database),
        "sources": {"inventory": {"database": _section(database)}},
        "polling": {"enabled": True, "shards": shards, "metrics_by": ["snmp"]},
    }
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(document))
    engine = sa.create_engine(database.url)
    upgrade_inventory(engine)
    with engine.begin() as connection:
        connection.execute(DEVICES.insert(), devices_of(shards))
    engine.dispose()
    return {SETTINGS_VARIABLE: str(file), "DAGSTER_POSTGRES_URL": database.url}


def _section(database: PostgresqlDatabase) -> dict[str, object]:
    return {"url": database.plain_url, "password": {"file": "password"}}


def devices_of(shards: int) -> list[dict[str, str]]:
    """One for each shard."""
    of_shard: dict[str, str] = {}
    number = 0
    while len(of_shard) < shards:
        number += 1
        of_shard.setdefault(shard_of(f"device-{number}", shards), f"device-{number}")
    return [
        {"id": name, "ip_address": f"127.20.1.{address}", "protocol": "ping"}
        for address, name in enumerate(of_shard.values(), start=1)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--shards", type=int, default=30, help="default 30")
    parser.add_argument("--seconds", type=float, default=100.0, help="after the tick; default 100")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        show(measure(Path(name), options.shards, options.seconds), options)


if __name__ == "__main__":
    main()
