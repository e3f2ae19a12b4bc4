"""A run that is told to end, while a hub or devices have it wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.access.inventory_tables import DEVICES, INVENTORY
from metrics_pipeline.core.device_assets import METRICS_JOB
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.raw_server import raw_server
from metrics_pipeline_tests.servers import wait_until

RUN = """
import json
import sys

import dagster as dg

from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.settings_file import load_settings

job = build_definitions(load_settings()).resolve_job_def(sys.argv[1])
with dg.DagsterInstance.ephemeral() as instance:
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    [run] = instance.get_runs()
    failed = [each for each in result.all_events if each.is_step_failure]
    errors = [each.step_failure_data.error.cls_name for each in failed]
    print(json.dumps([run.status.value, errors]))
"""
LONGEST_SECONDS = 60
"""That a request may take. With ten tries a step goes on for longer than this test would wait."""


HOSTS = 100
"""Asked one after the other, each for `LOGIN_SECONDS`."""
LOGIN_SECONDS = 20


def asks_a_hub(folder: Path, host: str) -> dict[str, Any]:
    """Settings for the hub at `host`."""
    (folder / "hub").write_text(
        f"HostName={host};SharedAccessKeyName=reader;SharedAccessKey=c2VjcmV0LXNlY3JldA=="
    )
    hub = {
        "connection_string": {"file": str(folder / "hub")},
        "scheme": "http",
        "tries": 10,
        "request_timeout_seconds": LONGEST_SECONDS,
        "deadline_seconds": 3600,
    }
    return {
        "sources": {"azure_iot_hub": hub},
        "fleet": {"lora_enabled": False, "max_runtime_seconds": 10_000},
    }


def asks_hosts_over_ssh(folder: Path, host: str) -> dict[str, Any]:
    """Settings for `HOSTS` devices, all at `host`, of which one is asked at a time."""
    url = f"sqlite:///{folder / 'inventory.sqlite'}"
    address, _, port = host.partition(":")
    row = {"ip_address": address, "port": int(port), "protocol": "ssh", "credential": "key"}
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        INVENTORY.create_all(connection)
        connection.execute(sa.insert(DEVICES), [{"id": str(n), **row} for n in range(HOSTS)])
    engine.dispose()
    (folder / "password").write_text("of nobody")
    ssh = {
        "max_in_flight": 1,
        "answer_timeout_seconds": LOGIN_SECONDS,
        "trust_on_first_use": True,
        "credentials": {"key": {"user": "metrics", "password": {"file": str(folder / "password")}}},
    }
    return {
        "sources": {"inventory": {"database": {"url": url}}},
        "polling": {
            "enabled": True,
            "metrics_by": ["ssh"],
            "device_budget_seconds": 25,
            "ssh": ssh,
        },
    }


@pytest.mark.parametrize(
    ("job", "settings_for"),
    [(JOB, asks_a_hub), (METRICS_JOB, asks_hosts_over_ssh)],
    ids=["hub", "devices"],
)
def test_a_run_that_is_told_to_end_asks_nobody_more(
    job: str, settings_for: Callable[[Path, str], dict[str, Any]], tmp_path: Path
) -> None:
    with raw_server(lambda talk: talk.say_nothing()) as silent:
        settings = {"version": 1, **settings_for(tmp_path, silent.host)}
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump(settings))
        names = {STATE_DIR_VARIABLE: str(tmp_path), SETTINGS_VARIABLE: str(file)}
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, job], env={**os.environ, **names}, stdout=subprocess.PIPE
        )
        try:
            # At once: the worst moment is when the connection is made.
            wait_until(lambda: silent.connections > 0, "somebody is asked", process)
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
        assert silent.connections == 1
    assert json.loads(said) == ["FAILURE", ["DagsterExecutionInterruptedError"]]
