"""What it costs a run to measure its own fetches and to count them: goal under 2 %.

    python -m metrics_pipeline_tests.benchmarks.instrumentation [--json] [--rounds N]

Side by side, in turns, in one process, by CPU time: a run of the fleet's counts (three assets, four
fetches, embedded store, SQLite for the latest values) as it is, and the same without measuring and
without counting. The hub is a process of its own, whose CPU is not counted; nor is the start
of a run's process, beside which the share would be smaller still.

| key | |
|---|---|
| `cpu_ms_with`, `cpu_ms_without` | a run, median of the rounds |
| `run_overhead_share` | what one takes more than the other; noise of the machine is in it |
| `noise_share` | by how much two medians of the same run differ: what is below says nothing |
| `alone_cpu_ms`, `alone_share` | measuring, counting and showing by themselves, and their share |
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import dagster as dg

from metrics_pipeline.access.fetching import measured
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.fetches import totals_of
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.orchestration import points_io_manager
from metrics_pipeline.orchestration.assets import fleet
from metrics_pipeline.settings import Settings
from metrics_pipeline.simulators.fleet import Fleet
from metrics_pipeline.simulators.iot_hub import IotHubSimulator
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.tallies import CountOnce
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.interleaved import measure_cpu_seconds
from metrics_pipeline_tests.orchestration.pipeline import FLEET, list_concentrators

ALONE_TIMES = 20
NOTHING = Reading(())

Run = Callable[[], object]


def serve() -> None:
    """Be the hub until there is nothing more to read from standard input."""
    with IotHubSimulator(Fleet(FLEET)) as hub:
        print(hub.connection_string, flush=True)
        sys.stdin.read()


@contextmanager
def hub_process() -> Iterator[str]:
    """A hub; gives its connection string."""
    command = [sys.executable, "-m", __spec__.name, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdin is not None
        assert hub.stdout is not None
        yield hub.stdout.readline().strip()
        hub.stdin.close()


def make_settings(folder: Path, connection_string: str) -> Settings:
    """The fleet's counts of that hub, and of an inventory."""
    (folder / "connection_string").write_text(connection_string)
    document = {
        "version": 1,
        "sources": {
            "azure_iot_hub": {"connection_string": {"file": "connection_string"}, "scheme": "http"},
            "inventory": {"database": {"url": "sqlite:///inventory.sqlite"}},
        },
        "fleet": {},
    }
    settings = Settings.model_validate(document, context={STATE_DIR_KEY: folder})
    list_concentrators(settings, FLEET.concentrators)
    return settings


def make_run(settings: Settings, instance: dg.DagsterInstance) -> Run:
    """One run of the job, which has to succeed."""
    job = build_definitions(settings).resolve_job_def(JOB)

    def run() -> None:
        job.execute_in_process(instance=instance)

    return run


def without_instrumentation(run: Run) -> Run:
    """The same, where nothing is measured and nothing counted."""

    def bare() -> None:
        with (
            patch.object(fleet, "measured", lambda _source, read, _query_type: read()),
            patch.object(points_io_manager, "CountOnce", lambda _totals: lambda _connection: None),
        ):
            run()

    return bare


def make_alone(settings: Settings, database: OperationalDatabase) -> Run:
    """Measuring, counting and showing as many fetches as a run has; in one transaction."""

    def alone() -> None:
        with database.writing() as connection:
            for asset in settings.fleet_assets() * ALONE_TIMES:
                readings = [measured(name, lambda: NOTHING, "inventory") for name in asset.asked]
                fetches = [fetch for each in readings for fetch in each.fetches]
                CountOnce(totals_of(fetches))(connection)
                shown = {"fetches": points_io_manager.describe_fetches(fetches)}
                dg.serialize_value(dg.AssetMaterialization(asset.key, metadata=shown))

    return alone


def measure(rounds: int) -> dict[str, Any]:
    """The figures; times are milliseconds of CPU a run."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory()))
        settings = make_settings(folder, opened.enter_context(hub_process()))
        instance = opened.enter_context(dg.DagsterInstance.ephemeral())
        database = OperationalDatabase(settings.operational_database)
        opened.enter_context(closing(database))
        run = make_run(settings, instance)
        contenders = {
            "without": without_instrumentation(run),
            "with": run,
            "again": run,
            "alone": make_alone(settings, database),
        }
        spent = measure_cpu_seconds(contenders, rounds)
    alone = spent["alone"] / ALONE_TIMES
    return {
        "rounds": rounds,
        "cpu_ms_with": round(spent["with"] * 1e3, 2),
        "cpu_ms_without": round(spent["without"] * 1e3, 2),
        "run_overhead_share": round(spent["with"] / spent["without"] - 1, 4),
        "noise_share": round(abs(spent["again"] / spent["with"] - 1), 4),
        "alone_cpu_ms": round(alone * 1e3, 3),
        "alone_share": round(alone / spent["without"], 4),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds to take the median of (15)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve()
        return
    logging.getLogger("dagster").setLevel(logging.ERROR)
    figures = measure(options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
