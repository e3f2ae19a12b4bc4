"""A run that is told to end, while a hub has it wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.raw_server import raw_server
from metrics_pipeline_tests.servers import wait_until

RUN = """
import json

import dagster as dg

from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.settings_file import load_settings

job = build_definitions(load_settings()).resolve_job_def(JOB)
with dg.DagsterInstance.ephemeral() as instance:
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    [run] = instance.get_runs()
    failed = [each for each in result.all_events if each.is_step_failure]
    errors = [each.step_failure_data.error.cls_name for each in failed]
    print(json.dumps([run.status.value, errors]))
"""
LONGEST_SECONDS = 60
"""That a request may take. With ten tries a step goes on for longer than this test would wait."""


def write_settings(folder: Path, host: str) -> dict[str, str]:
    """Settings for the hub at `host`, and the variables that name them."""
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
    file = folder / "settings.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "sources": {"azure_iot_hub": hub},
                "fleet": {"lora_enabled": False, "max_runtime_seconds": 10_000},
            }
        )
    )
    return {STATE_DIR_VARIABLE: str(folder), SETTINGS_VARIABLE: str(file)}


def test_a_run_that_is_told_to_end_asks_a_hub_that_hangs_no_more(tmp_path: Path) -> None:
    with raw_server(lambda talk: talk.say_nothing()) as hub:
        environment = {**os.environ, **write_settings(tmp_path, hub.host)}
        process = subprocess.Popen(
            [sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE
        )
        try:
            # At once: the worst moment is when the connection is made.
            wait_until(lambda: hub.connections > 0, "the hub is asked", process)
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
        assert hub.connections == 1
    assert json.loads(said) == ["FAILURE", ["DagsterExecutionInterruptedError"]]
