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
from metrics_pipeline_tests.docker.container_files import OURS

ROOT = Path(__file__).parents[1]
CHECKS = {*device_report.CHECKS, *telemetry_report.CHECKS}
FOLDER = ROOT / "docs" / "runbooks"
LONG = sorted(FOLDER.glob("*.md"))
"""Those that are about a part of the product; the others are each about one alert."""
RUNBOOKS = sorted(FOLDER.rglob("*.md"))
NAMES = re.compile(
    r"\b(?:(?:metrics_pipeline|lorawan_device|iot_hub_portal|postgres)_[a-z_0-9]+"
    r"|(?:device_up|service_healthy|database_queries_total)\b)(?![.*:])"
)
SETTINGS = re.compile(r"`((?:telemetry|polling|exporter|fleet|platform|health|spool)\.[a-z_.]+)`")

each_runbook = pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
each_long_runbook = pytest.mark.parametrize("page", LONG, ids=lambda page: page.stem)


@each_long_runbook
def test_it_names_commands_metrics_settings_and_checks(page: Path) -> None:
    text = page.read_text()
    assert commands_in(text)
    assert NAMES.search(text)
    assert SETTINGS.search(text)
    assert checks_in(text)


def test_there_are_runbooks_of_alerts() -> None:
    assert len(RUNBOOKS) > len(LONG) + 20


def commands_in(text: str) -> list[str]:
    return re.findall(r"^    metrics-pipeline (.+)$", text, re.MULTILINE)


def checks_in(text: str) -> list[str]:
    return re.findall(r"checks? `(\w+)`", text)


@each_runbook
def test_every_command_is_one(page: Path) -> None:
    for command in commands_in(page.read_text()):
        build_parser().parse_args(shlex.split(command))


@each_runbook
def test_what_it_looks_at_is_a_service_and_neither_of_compose_nor_of_a_cluster_alone(
    page: Path,
) -> None:
    text = page.read_text()
    found = re.findall(r"^    (?:ps|logs --tail \d+) (\S+)$", text, re.MULTILINE)
    assert set(found) <= set(OURS)
    assert not re.search(r"^    (?:docker|kubectl) ", text, re.MULTILINE)


@each_runbook
def test_every_metric_is_on_the_page_of_all_metrics(page: Path) -> None:
    known = (ROOT / "docs" / "metrics.md").read_text()
    named = set(NAMES.findall(page.read_text()))
    assert [name for name in sorted(named) if f"`{name}" not in known] == []


def section_of(annotation: object) -> type[BaseModel] | None:
    """The model that `annotation` names, alone or beside None."""
    choices = (annotation, *get_args(annotation))
    models = (each for each in choices if isinstance(each, type) and issubclass(each, BaseModel))
    return next(models, None)


@each_runbook
def test_every_setting_is_one(page: Path) -> None:
    for key in SETTINGS.findall(page.read_text()):
        section: type[BaseModel] | None = Settings
        for name in key.split("."):
            assert section is not None, key
            section = section_of(section.model_fields[name].annotation)


@each_runbook
def test_every_link_leads_to_a_heading_or_a_page(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), target
        assert not heading or heading in headings(file), target


def headings(page: Path) -> set[str]:
    """As links name them."""
    return {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    }


@each_runbook
def test_every_check_is_one(page: Path) -> None:
    assert set(checks_in(page.read_text())) <= set(CHECKS)


@each_long_runbook
def test_the_readme_leads_to_it(page: Path) -> None:
    assert f"({page.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
