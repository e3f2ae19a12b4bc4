"""What the benchmark looks at; the stack itself is not started here."""

from __future__ import annotations

from contextlib import ExitStack

import sqlalchemy as sa

from metrics_pipeline.core.device_assets import shard_of
from metrics_pipeline_tests.benchmarks.connections import Peak, devices_of
from metrics_pipeline_tests.postgresql import PostgresqlDatabase

SHARDS = 7


def test_each_shard_has_a_device() -> None:
    assert {shard_of(device["id"], SHARDS) for device in devices_of(SHARDS)} == {
        str(number) for number in range(1, SHARDS + 1)
    }


def test_the_most_connections_at_once_are_kept(postgresql: PostgresqlDatabase) -> None:
    engine, peak = sa.create_engine(postgresql.url), Peak()
    with engine.connect() as looking:
        with ExitStack() as others:
            for _ in range(3):
                others.enter_context(engine.connect()).execute(sa.text("SELECT 1"))
            peak.look(looking)
        engine.dispose()
        peak.look(looking)
    assert (peak.connections, peak.idle) == (3, 3)
