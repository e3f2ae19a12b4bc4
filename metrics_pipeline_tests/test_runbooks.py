"""What runbooks tell a person to type, look at and change is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from pydantic import BaseModel

from metrics_pipeline.cli import build_parser
from metrics_pipeline.orchestration.telemetry_report import CHECKS
from metrics_pipeline.settings import TelemetrySettings

ROOT = Path(__file__).parents[1]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))

each_runbook = pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)


@each_runbook
def test_every_command_is_one(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"^    metrics-pipeline (.+)$", text, re.MULTILINE)
    assert found
    for command in found:
        build_parser().parse_args(shlex.split(command))


@each_runbook
def test_every_metric_is_on_the_page_of_all_metrics(page: Path) -> None:
    known = (ROOT / "docs" / "metrics.md").read_text()
    named = set(re.findall(r"\b(?:metrics_pipeline|lorawan_device)_\w+", page.read_text()))
    assert named
    assert [name for name in sorted(named) if f"`{name}" not in known] == []


@each_runbook
def test_every_setting_is_one(page: Path) -> None:
    for key in re.findall(r"`telemetry\.([\w.]+)`", page.read_text()):
        section: type[BaseModel] = TelemetrySettings
        for name in key.split("."):
            field = section.model_fields[name]
            kind = field.annotation
            section = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else section


@each_runbook
def test_every_check_is_one(page: Path) -> None:
    named = re.findall(r"checks? `(\w+)`", page.read_text())
    assert named
    assert set(named) <= set(CHECKS)


@each_runbook
def test_the_readme_leads_to_it(page: Path) -> None:
    assert f"({page.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
