"""What a day adds to Dagster's tables, by what: of an instance that runs, or has run.

    DAGSTER_HOME=.state/dagster python -m metrics_pipeline_tests.benchmarks.growth --json

For PostgreSQL with DAGSTER_POSTGRES_URL as well. Counted are texts, as both storages are given
them; rows, indexes and free space come on top: `factor` is the size of all of it over them. Runs
that have not ended are left out, and the rate is that since the first event.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import dagster as dg
import sqlalchemy as sa

from metrics_pipeline.orchestration.dagster_rows import measure
from metrics_pipeline_tests.orchestration.dagster_instances import rows, run_rows, storages

SECONDS_PER_DAY = 86_400
MB = 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    with dg.DagsterInstance.get() as instance:
        found = look(instance)
    for name, figures in found.items():
        print(name, figures)
    if given.json:
        print(json.dumps(found))


def look(instance: dg.DagsterInstance) -> dict[str, dict[str, float]]:
    """By job: runs, kB a run and MB a day; events of no run, ticks, and all there is."""
    seconds = _seconds(instance)
    daily = SECONDS_PER_DAY / seconds
    by_run = _bytes_by_run(instance)
    found: dict[str, dict[str, float]] = {}
    for job in sorted(
        {str(job) for (job,) in run_rows(instance, "SELECT pipeline_name FROM runs")}
    ):
        ended = "status IN ('SUCCESS', 'FAILURE', 'CANCELED')"
        ids = run_rows(
            instance, f"SELECT run_id FROM runs WHERE {ended} AND pipeline_name = '{job}'"
        )
        sizes = [by_run.get(str(run_id), 0) for (run_id,) in ids]
        if sizes:
            found[job] = _of(len(sizes), sum(sizes), daily)
    found["events of no run"] = _of(*_runless(instance), daily)
    texts = sum(by_run.values()) + _runless(instance)[1]
    size = measure(storages(instance)[0])
    found["event log"] = {
        "minutes": round(seconds / 60, 1),
        "text_MB": round(texts / MB, 2),
        "MB": round(size.total_bytes / MB, 2),
        "factor": round(size.total_bytes / texts, 2),
        "MB_a_day": round(size.total_bytes * daily / MB, 1),
    }
    return found


def _of(count: int, total_bytes: int, daily: float) -> dict[str, float]:
    each = total_bytes / count / 1000 if count else 0.0
    return {
        "count": count,
        "kB_each": round(each, 1),
        "a_day": round(count * daily),
        "text_MB_a_day": round(total_bytes * daily / MB, 1),
    }


def _seconds(instance: dg.DagsterInstance) -> float:
    """From the first event to the last."""
    of_postgresql = "extract(epoch FROM {})"
    epoch = of_postgresql if _is_postgresql(instance) else "(julianday({}) * 86400.0)"
    first, last = (epoch.format(f"{end}(timestamp)") for end in ("min", "max"))
    ((found,),) = rows(instance, f"SELECT {last} - {first} FROM event_logs")
    return max(1.0, float(str(found)))


def _is_postgresql(instance: dg.DagsterInstance) -> bool:
    with storages(instance)[0].index_connection() as connection:
        return bool(sa.inspect(connection).dialect.name == "postgresql")


def _bytes_by_run(instance: dg.DagsterInstance) -> dict[str, int]:
    found: dict[str, int] = {}
    for table, text in (("event_logs", "event"), ("asset_check_executions", "evaluation_event")):
        total = f"SELECT run_id, sum(length({text})) FROM {table} WHERE run_id <> '' GROUP BY 1"
        for run_id, size in rows(instance, total):
            found[str(run_id)] = found.get(str(run_id), 0) + int(str(size))
    return found


def _runless(instance: dg.DagsterInstance) -> tuple[int, int]:
    total = "SELECT count(*), coalesce(sum(length(event)), 0) FROM event_logs WHERE run_id = ''"
    ((count, size),) = rows(instance, total)
    return int(str(count)), int(str(size))


if __name__ == "__main__":
    main()
