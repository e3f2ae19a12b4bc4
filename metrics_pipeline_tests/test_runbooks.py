"""What runbooks tell a person to type, look at and change is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from metrics_pipeline.cli import build_parser
from metrics_pipeline.orchestration import device_report, telemetry_report
from metrics_pipeline.settings import Settings

ROOT = Path(__file__).parents[1]
CHECKS = {*device_report.CHECKS, *telemetry_report.CHECKS}
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
    names = r"\b(?:(?:metrics_pipeline|lorawan_device)_\w+|device_up\b)"
    named = set(re.findall(names, page.read_text()))
    assert named
    assert [name for name in sorted(named) if f"`{name}" not in known] == []


def section_of(annotation: object) -> type[BaseModel] | None:
    """The model that `annotation` names, alone or beside None."""
    choices = (annotation, *get_args(annotation))
    models = (each for each in choices if isinstance(each, type) and issubclass(each, BaseModel))
    return next(models, None)


@each_runbook
def test_every_setting_is_one(page: Path) -> None:
    named = re.findall(r"`((?:telemetry|polling|exporter)\.[\w.]+)`", page.read_text())
    assert named
    for key in named:
        section: type[BaseModel] | None = Settings
        for name in key.split("."):
            assert section is not None, key
            section = section_of(section.model_fields[name].annotation)


@each_runbook
def test_every_link_leads_to_a_heading_or_a_page(page: Path) -> None:
    text = page.read_text()
    headings = {
        "#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target in headings or (page.parent / target).is_file(), target


@each_runbook
def test_every_check_is_one(page: Path) -> None:
    named = re.findall(r"checks? `(\w+)`", page.read_text())
    assert named
    assert set(named) <= set(CHECKS)


@each_runbook
def test_the_readme_leads_to_it(page: Path) -> None:
    assert f"({page.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
