"""docs/gateway.md: its client runs, and its table of codes is what the gateway has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from metrics_pipeline.gateway import endings
from metrics_pipeline.settings import GatewaySettings
from metrics_pipeline_tests.gateway.gateway_process import (
    TOKEN,
    gateway_process,
    stored,
    write_settings,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()


def test_the_client_of_the_document_sends_all_it_has(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    write_settings(tmp_path, {})
    with gateway_process(tmp_path) as gateway:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                "GATEWAY_URL": f"{gateway.url}/ws/telemetry/robot-7",
                "ROBOT_TOKEN": TOKEN,
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(stored(tmp_path)) == 20


def test_every_ending_is_in_the_document() -> None:
    rows = set(re.findall(r"^\| (\d{4}).*? \| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    known = [each for each in vars(endings).values() if isinstance(each, endings.Ending)]
    known += [endings.ending_of(code) for code in (1002, 1009)]
    assert {(str(each.code), each.reason) for each in known} == rows
    assert {each.reason for each in known} == set(endings.REASONS)


def test_the_numbers_of_the_document_are_those_of_the_settings() -> None:
    token = {"all": {"token": {"env": "X"}}}
    settings = GatewaySettings.model_validate({"tokens": token})
    limits = DOCUMENT.partition("## Limits")[2].partition("## How")[0]
    found = re.findall(r"`([a-z_]+)` ([\d,]+)", limits)
    assert len(found) >= 10
    for name, number in found:
        assert getattr(settings, name) == float(number.replace(",", "")), name
