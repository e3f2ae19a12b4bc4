"""Fixtures every part of the suite shares, and how its files are dealt out to xdist's workers."""

import gc
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import execnet
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, Scheduling

from metrics_pipeline_tests.forked_workers import fork_workers
from metrics_pipeline_tests.not_root import folder_for_all
from metrics_pipeline_tests.postgresql import postgresql, postgresql_server

__all__ = ["folder_for_all", "postgresql", "postgresql_server"]

WORKERS_PER_CORE = 2
"""Of `-n auto`: most of a test is waiting for its peer, and who waits needs no core.

The environment variable PYTEST_XDIST_AUTO_NUM_WORKERS is stronger.
"""

MOST_WORKERS = 8
"""Of `-n auto`: the longest file takes more than an eighth of the time of all."""

WHOLE_STACKS = (
    (
        "test_end_to_end.py",
        "test_secrets_stay_secret.py",
        "orchestration/test_celery_polls.py",
        "docker/test_kubernetes_runs.py",
    ),
    (
        "topology/test_kills.py",
        "stack/test_telemetry_outages.py",
        "stack/test_cycle.py",
        "stack/test_sampling.py",
    ),
)
"""Files that start all of the product; those of a row run one after the other.

Each takes a core for a while: all at once they would starve each other, and everything beside them.
"""

LONGEST_FILES = (
    *(row[0] for row in WHOLE_STACKS),
    "orchestration/test_devices.py",
    "test_preflight.py",
    "orchestration/test_retention.py",
    "sources/test_ssh.py",
    "test_telemetry_cli.py",
    "test_sampling.py",
    "ingestion/test_run.py",
    "exporter/test_telemetry.py",
    "test_platform_sources.py",
    "orchestration/test_platform_sensor.py",
    "orchestration/test_run_events.py",
    "test_devices_cli.py",
    "gateway/test_hostile_robots.py",
    "gateway/test_outages.py",
    "benchmarks/test_events.py",
    "orchestration/test_instance_storage.py",
    "test_events_cli.py",
    "benchmarks/test_dashboards.py",
    "sources/test_snmp_poll.py",
    "orchestration/test_telemetry.py",
    "alert_rules/test_rules.py",
    "benchmarks/test_gateway.py",
    "exporter/test_serve.py",
    "storage/test_blob_checkpoints.py",
    "ingestion/test_sudden_death.py",
    "benchmarks/test_exporter.py",
    "orchestration/test_device_details.py",
    "orchestration/test_fleet.py",
    "benchmarks/test_fleet_runs.py",
    "simulators/test_event_hub_faults.py",
    "simulators/test_event_hub_consumers.py",
    "benchmarks/test_instrumentation.py",
    "orchestration/test_in_flight.py",
    "test_cli.py",
    "benchmarks/test_telemetry.py",
    "storage/test_dead_letters.py",
    "storage/test_checkpoints.py",
    "benchmarks/test_snmp.py",
    "sources/test_winrm.py",
    "storage/test_writer.py",
    "benchmarks/test_platform_sample.py",
    "sources/test_snmp_tables.py",
)
"""They take 20 s and more (`--durations=0`) and begin first: begun last, one worker runs alone.

With the first of each row of whole stacks begins the row. A file of one or two tests has its worker
take the one after it as well: not two long ones of these in a row.
"""

# Machines are shared: how long an example takes says nothing.
settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

# What is imported stays: who imports everything would walk through it again and again.
gc.disable()

# For child processes too.
os.environ["KRB5_CONFIG"] = str(Path(__file__).with_name("krb5.conf"))

# A shell lets its background jobs ignore SIGINT. Dagster makes SIGTERM the same as SIGINT after
# each run in process, and children inherit what is ignored: none could be ended with SIGTERM.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def read_migrations_once() -> None:
    """Let Dagster's migrations be read once by each of these processes.

    It reads all of them (90 modules) two to nine times for each instance that is made, half a
    second of a core, to find which is the last.
    """
    read, known = ScriptDirectory.from_config, dict[tuple[str, str | None], ScriptDirectory]()

    def from_config(config: Config) -> ScriptDirectory:
        key = str(config.config_file_name), config.get_main_option("script_location")
        if key not in known:
            known[key] = read(config)
        return known[key]

    ScriptDirectory.from_config = from_config  # type: ignore[method-assign]


read_migrations_once()


def pytest_xdist_auto_num_workers() -> int | None:
    """How many workers `-n auto` is; with None xdist itself looks at the environment."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return min(WORKERS_PER_CORE * len(os.sched_getaffinity(0)), MOST_WORKERS)


class TurnsOfWholeStacks(LoadFileScheduling):  # type: ignore[misc]
    """Deals out files, and a row of `WHOLE_STACKS` as if it was one."""

    rows: Mapping[str, str] = {
        f"metrics_pipeline_tests/{file}": row[0] for row in WHOLE_STACKS for file in row
    }

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return self.rows.get(file, file)


def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[execnet.XSpec]) -> None:
    """Before there is any worker."""
    fork_workers(config, specs)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """What deals out the tests where whole files are asked for."""
    return TurnsOfWholeStacks(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """From now on garbage is collected as ever, but not looked for in what was imported."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order within a file stays."""
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
