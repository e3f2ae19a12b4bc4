"""What runs cost in Dagster's tables, and what deleting them costs, in SQLite and in PostgreSQL.

    python -m metrics_pipeline_tests.benchmarks.retention --runs 10000 --json

One real run (three assets with three checks each, as `fleet_counts` has) is copied as often as
asked, and made old. While it is purged, at its own pace, somebody else stores an event every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import dagster as dg
import sqlalchemy as sa

from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.orchestration.assets.retention import purge
from metrics_pipeline.orchestration.dagster_rows import Size, measure
from metrics_pipeline.orchestration.retention import Pace
from metrics_pipeline.settings import Settings
from metrics_pipeline_tests.meanwhile import meanwhile
from metrics_pipeline_tests.orchestration.dagster_instances import age, opened, storages
from metrics_pipeline_tests.postgresql import running_postgresql

OLD_DAYS = 30
STORE_EVERY_SECONDS = 0.05
CHECKS = ("counts_are_never_negative", "connected_is_at_most_registered", "no_sharp_fall")
COPIED = {
    "event_logs": "event, dagster_event_type, timestamp, step_key, asset_key, partition",
    "asset_check_executions": "asset_key, check_name, partition, execution_status, "
    "evaluation_event, evaluation_event_timestamp, evaluation_event_storage_id, "
    "materialization_event_storage_id, create_timestamp",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    found = {"sqlite": bench(given.runs, None)}
    _show("sqlite", found["sqlite"])
    with running_postgresql() as server, server.database() as database:
        found["postgresql"] = bench(given.runs, database.url)
    _show("postgresql", found["postgresql"])
    if given.json:
        print(json.dumps(found))


def _show(storage: str, figures: dict[str, float]) -> None:
    shown = (f"{name} {figure}" for name, figure in figures.items())
    print(storage, *shown, sep="\n  ", flush=True)


def bench(runs: int, postgresql_url: str | None) -> dict[str, float]:
    """The figures over one storage."""
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(Path(folder), postgresql_url) as instance,
    ):
        empty = measure(storages(instance)[0])
        run_id = _one_run(instance)
        age(instance, OLD_DAYS)
        _copy(instance, run_id, runs)
        _one_run(instance)  # else those that are copied last are the newest of their assets
        full = measure(storages(instance)[0])
        waits: list[float] = []
        began, cpu = time.monotonic(), time.process_time()
        with _storing(instance, waits):
            deleted = _purge(instance, Path(folder))
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
        return _figures(deleted, seconds, cpu_seconds, waits, (empty, full, _after(instance)))


def _figures(
    deleted: int, seconds: float, cpu: float, waits: list[float], sizes: tuple[Size, Size, Size]
) -> dict[str, float]:
    empty, full, after = sizes
    return {
        "runs_deleted": deleted,
        "kB_a_run": round((full.total_bytes - empty.total_bytes) / deleted / 1000, 1),
        "ms_a_run": round(seconds / deleted * 1000, 1),
        "cpu_ms_a_run": round(cpu / deleted * 1000, 1),
        "store_ms_p50": round(statistics.median(waits) * 1000, 1),
        "store_ms_p99": round(statistics.quantiles(waits, n=100)[98] * 1000, 1),
        "store_ms_max": round(max(waits) * 1000, 1),
        "peak_MB": round(getrusage(RUSAGE_SELF).ru_maxrss / 1000, 1),
        "MB_full": round(full.total_bytes / 1e6, 1),
        "MB_after": round(after.total_bytes / 1e6, 1),
        "MB_free_after": round((after.free_bytes or 0) / 1e6, 1),
    }


def _purge(instance: dg.DagsterInstance, folder: Path) -> int:
    document = {"version": 1, "sources": {}}
    settings = Settings.model_validate(document, context={STATE_DIR_KEY: folder})
    report = purge(instance, settings, make_pace=lambda: Pace(24 * 3600))
    assert (list(report.problems), report.behind) == ([], [])
    return next(each.deleted for each in report.purged if each.what == "successful_runs")


def _after(instance: dg.DagsterInstance) -> Size:
    events, _ = storages(instance)
    with events.index_connection() as connection:
        if connection.dialect.name == "postgresql":
            # What its autovacuum does in the end; so no figure of it depends on when.
            for table in COPIED:
                connection.exec_driver_sql(f"VACUUM {table}")
    return measure(events)


@contextmanager
def _storing(instance: dg.DagsterInstance, waits: list[float]) -> Iterator[None]:
    """Meanwhile events are stored; `waits` gets how long each took, in seconds."""

    def store() -> None:
        began = time.monotonic()
        instance.report_runless_asset_event(dg.AssetObservation("other"))
        waits.append(time.monotonic() - began)

    with meanwhile(store, STORE_EVERY_SECONDS):
        yield


def _one_run(instance: dg.DagsterInstance) -> str:
    quiet: Any = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    assets = [_asset(f"counts_{number}") for number in range(3)]
    return dg.materialize(assets, instance=instance, run_config=quiet).run_id


def _asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, check_specs=[dg.AssetCheckSpec(check, asset=name) for check in CHECKS])
    def count() -> Iterator[dg.MaterializeResult[None]]:
        outcomes = [dg.AssetCheckResult(passed=True, check_name=check) for check in CHECKS]
        metadata = {f"figure_{number}": number for number in range(8)}
        yield dg.MaterializeResult(metadata=metadata, check_results=outcomes)

    return count


def _copy(instance: dg.DagsterInstance, run_id: str, runs: int) -> None:
    """In one statement a table, as PostgreSQL's connections commit each."""
    events, run_storage = storages(instance)
    count = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < :runs)"
    name = "'copy-' || i"
    given = {"runs": runs, "of": run_id}
    rows = "snapshot_id, pipeline_name, status, run_body, create_timestamp, update_timestamp"
    body = rows.replace("run_body", f"replace(run_body, '{run_id}', {name})")
    with run_storage.connect() as connection:
        copied = f"SELECT {name}, {body} FROM runs, n WHERE run_id = :of"
        connection.execute(sa.text(f"{count} INSERT INTO runs (run_id, {rows}) {copied}"), given)
    with events.index_connection() as connection:
        for table, columns in COPIED.items():
            copied = f"SELECT {name}, {columns} FROM {table}, n WHERE run_id = :of ORDER BY i, id"
            insert = f"{count} INSERT INTO {table} (run_id, {columns}) {copied}"
            connection.execute(sa.text(insert), given)


if __name__ == "__main__":
    main()
