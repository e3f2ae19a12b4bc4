"""Each alert fires when it should and only then, is about what the exporter shows, and is told."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from metrics_pipeline_tests.alert_rules.rule_files import (
    ALERTS,
    CASES,
    ROOT,
    RULES,
    known_labels,
    rules,
    terms,
)
from metrics_pipeline_tests.servers import require

SEVERITIES = {"critical", "warning"}

each_alert = pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS.keys())


def promtool(*arguments: str | Path) -> None:
    """Run it, and fail with its words."""
    command = [require("promtool"), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def groups_of_cases() -> Sequence[Mapping[str, Any]]:
    return [group for file in CASES for group in yaml.safe_load(file.read_text())["tests"]]


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint-fatal", *sorted(RULES.glob("*.yml")))


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_the_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    promtool("test", "rules", file)


@each_alert
def test_it_has_a_case_that_fires_and_one_with_data_that_is_quiet(alert: Mapping[str, Any]) -> None:
    fires = quiet = False
    for group in groups_of_cases():
        cases = [c for c in group["alert_rule_test"] if c["alertname"] == alert["alert"]]
        fired = [bool(case["exp_alerts"]) for case in cases]
        fires |= any(fired)
        quiet |= bool(fired) and not any(fired) and not group["name"].startswith("no data")
    assert fires
    assert quiet


@each_alert
def test_it_is_quiet_without_data_or_says_that_there_is_none(alert: Mapping[str, Any]) -> None:
    (without,) = (group for group in groups_of_cases() if group["name"] == "no data at all")
    last = [c for c in without["alert_rule_test"] if c["alertname"] == alert["alert"]][-1]
    assert bool(last["exp_alerts"]) is (alert["alert"] == "MetricsPipelineDown")


def test_every_name_is_one_that_the_exporter_shows() -> None:
    known = known_labels()
    named = {name for rule in rules() for name in terms(rule["expr"]).metrics}
    assert len(named) > 20
    assert named - set(known) == set()


def test_every_label_is_one_of_those_series() -> None:
    known = known_labels()
    for rule in rules():
        found = terms(rule["expr"])
        theirs = frozenset[str]().union(*(known[name] for name in found.metrics))
        shown = re.findall(r"\$labels\.(\w+)", str(rule.get("annotations", "")))
        assert found.labels | set(shown) <= theirs, rule


def test_terms_are_told_from_functions_labels_and_durations() -> None:
    found = terms('sum by (job) (rate(a_total{x=~"y z"}[5m])) / b:c > 2 unless on (d) e offset 1h')
    assert found.metrics == {"a_total", "b:c", "e"}
    assert found.labels == {"job", "x", "d"}


@each_alert
def test_it_says_how_severe_it_is_what_is_wrong_and_what_to_do(alert: Mapping[str, Any]) -> None:
    assert alert["labels"]["severity"] in SEVERITIES
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}


@each_alert
def test_its_runbook_is_a_page_with_its_name_as_heading(alert: Mapping[str, Any]) -> None:
    address = alert["annotations"]["runbook_url"]
    assert address.startswith("docs/runbooks/")
    assert f"# {alert['alert']}\n" in (ROOT / address).read_text()


def test_every_runbook_is_of_an_alert() -> None:
    assert {page.stem for page in (ROOT / "docs/runbooks/alerts").glob("*.md")} == set(ALERTS)


@each_alert
def test_the_page_of_alerts_has_its_row(alert: Mapping[str, Any]) -> None:
    page = (ROOT / "docs" / "alerts.md").read_text()
    row = f"| [`{alert['alert']}`](runbooks/alerts/{alert['alert']}.md) | "
    assert f"{row}{alert['labels']['severity']} | " in page
