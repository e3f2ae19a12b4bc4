"""Fixtures every part of the suite shares, and how its files are dealt out to xdist's workers."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from metrics_pipeline_tests.postgresql import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]

WORKERS_PER_CORE = 2
"""Of `-n auto`: most of a test is waiting for its peer, and who waits needs no core.

The environment variable PYTEST_XDIST_AUTO_NUM_WORKERS is stronger.
"""

MOST_WORKERS = 8
"""Of `-n auto`: the longest file takes more than an eighth of the time of all."""

LONGEST_FILES = (
    "test_end_to_end.py",
    "stack/test_cycle.py",
    "stack/test_telemetry_outages.py",
    "orchestration/test_devices.py",
    "sources/test_ssh.py",
    "docker/test_commands.py",
    "benchmarks/test_fleet_runs.py",
    "sources/test_snmp_poll.py",
    "storage/test_blob_checkpoints.py",
    "ingestion/test_sudden_death.py",
    "test_devices_cli.py",
    "orchestration/test_device_details.py",
    "test_preflight.py",
    "benchmarks/test_snmp.py",
    "benchmarks/test_telemetry.py",
    "simulators/test_event_hub_faults.py",
    "simulators/test_event_hub_consumers.py",
    "storage/test_dead_letters.py",
    "storage/test_checkpoints.py",
    "sources/test_winrm.py",
    "storage/test_writer.py",
    "sources/test_snmp_tables.py",
)
"""They take 20 s and more (`--durations=0`) and begin first: begun last, one worker runs alone."""

# Machines are shared: how long an example takes says nothing.
settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

# For child processes too.
os.environ["KRB5_CONFIG"] = str(Path(__file__).with_name("krb5.conf"))

# A shell lets its background jobs ignore SIGINT. Dagster makes SIGTERM the same as SIGINT after
# each run in process, and children inherit what is ignored: none could be ended with SIGTERM.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int | None:
    """How many workers `-n auto` is; with None xdist itself looks at the environment."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return min(WORKERS_PER_CORE * len(os.sched_getaffinity(0)), MOST_WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order within a file stays."""
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
