"""Every query of a dashboard: its names, its labels, and what a real Prometheus says to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from metrics_pipeline.core.catalog import Family, MetricType
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.dashboards.families import families
from metrics_pipeline.dashboards.queries import (
    increase,
    latest,
    rate,
    recorded,
    recorded_mean,
    rise,
)
from metrics_pipeline.dashboards.recordings import recordings
from metrics_pipeline_tests.alert_rules.rule_files import rules, terms
from metrics_pipeline_tests.dashboards.exported import (
    JOB,
    SELECTOR,
    VARIABLES,
    Query,
    queries,
    variables,
)
from metrics_pipeline_tests.dashboards.full_page import END_SECONDS, full_prometheus
from metrics_pipeline_tests.servers import PLAIN_HTTP

NOT_SHOWN = {
    "lorawan_device_frame_counter": "the device's own number: what is lost of it is shown",
}
"""Families that no dashboard shows, and why."""

WORDS = {
    *("max", "min", "sum", "count", "avg", "quantile", "topk", "bottomk"),
    *(
        "rate",
        "increase",
        "histogram_quantile",
        "label_replace",
        "time",
        "avg_over_time",
        "clamp_min",
    ),
    *("by", "on", "and", "or", "bool"),
}
AROUND = re.compile(r"max(?: by \(([^)]*)\))? \((?:\w+\()?([a-zA-Z_:][\w:]*)\{")
QUERIES = tuple(queries())


RECORDED: Mapping[str, Family] = {
    name: Family(name, MetricType.GAUGE, "what a rule records", labels)
    for name, labels in recordings().items()
}


def family_of(name: str) -> Family:
    if name in RECORDED:
        return RECORDED[name]
    family = families().get(name) or families()[name.removesuffix("_bucket")]
    assert (family.name != name) is (family.type is MetricType.HISTOGRAM), name
    return family


def labels_of(family: Family) -> set[str]:
    """As Prometheus has them; it has a label `job` of its own."""
    if family.name in RECORDED:
        return set(family.labels)
    return {"exported_job" if label == "job" else label for label in family.labels}


def shown() -> Iterator[tuple[Query, Family, str]]:
    """The family and the matchers of each selector of each query."""
    for query in QUERIES:
        for name, matchers in SELECTOR.findall(query.expression):
            yield query, family_of(name), matchers


def split(labels: str) -> set[str]:
    return set(re.findall(r"\w+", labels))


def test_every_name_is_that_of_a_family_and_stands_before_braces() -> None:
    for query in QUERIES:
        rest = SELECTOR.sub(" ", query.expression)
        rest = re.sub(r'"[^"]*"|\[[^\]]*\]|(?:by|on) \([^)]*\)|offset \w+', " ", rest)
        assert split(re.sub(r"\b[\d.e+]+\b", " ", rest)) <= WORDS, query
        assert SELECTOR.search(query.expression), query


def test_every_family_is_on_a_dashboard_or_has_a_reason_not_to_be() -> None:
    names = {family.name for _, family, _ in shown()}
    through_rules: set[str] = set()
    for rule in rules():
        if rule.get("record") in names:
            through_rules |= {family_of(name).name for name in terms(rule["expr"]).metrics}
    assert set(families()) - names - through_rules == set(NOT_SHOWN)


def test_a_rule_that_records_for_dashboards_is_used_by_one() -> None:
    for_dashboards = {rule["record"] for rule in rules("dashboards.yml")}
    assert for_dashboards - {family.name for _, family, _ in shown()} == set()


def test_over_time_no_panel_reads_every_device() -> None:
    """The rules record what it shows: of a thousand devices a week is 40 million samples."""
    per_device = {"device_id", "device_eui"}
    for query, family, matchers in shown():
        if per_device & set(family.labels) and not query.is_instant:
            assert 'device_id="$device"' in matchers, query


def test_every_label_that_is_asked_for_is_one_of_its_family() -> None:
    for query, family, matchers in shown():
        asked = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", matchers))
        assert asked <= {*labels_of(family), "job"}, (query, family)


def test_every_label_that_stays_is_one_of_its_family() -> None:
    for query in QUERIES:
        around = AROUND.findall(query.expression)
        assert len(around) == len(SELECTOR.findall(query.expression)), query
        for labels, name in around:
            family = family_of(name)
            extra = {"le"} if family.type is MetricType.HISTOGRAM else set()
            assert split(labels) <= {*labels_of(family), *extra}, query


def test_every_selector_asks_the_chosen_job_alone() -> None:
    assert [query for query, _, matchers in shown() if 'job="$job"' not in matchers] == []


def test_counters_are_only_ever_shown_by_how_they_rise() -> None:
    for query in QUERIES:
        for name, _ in SELECTOR.findall(query.expression):
            is_counter = family_of(name).type is not MetricType.GAUGE
            rises = re.search(
                rf"(?:rate|increase)\({name}\{{| - [^{{]*{name}\{{[^}}]*\}} offset ",
                query.expression,
            )
            assert bool(rises) is is_counter, query


def test_rates_are_over_the_interval_that_grafana_knows() -> None:
    for query in QUERIES:
        for window in re.findall(r"rate\([^[]*\[([^\]]*)\]", query.expression):
            assert window == "$__rate_interval", query


def test_variables_ask_for_labels_of_families() -> None:
    asked = [v["query"]["query"] for v in variables() if v["type"] == "query"]
    assert asked
    for query in asked:
        found = re.fullmatch(r"label_values\((\w+)(?:\{job=\"\$job\"\})?, (\w+)\)", query)
        assert found, query
        assert found[2] in (*families()[found[1]].labels, "job"), query


def test_a_name_or_a_label_that_does_not_exist_does_not_build() -> None:
    for make in (latest, rate, increase):
        with pytest.raises(ConfigurationError, match="no family is called device_upp"):
            make("device_upp")
        with pytest.raises(ConfigurationError, match="not all of"):
            make("device_up", "device")
    with pytest.raises(ConfigurationError, match="not all of"):
        rise("metrics_pipeline_dead_letters_total", "asset", window="5m")
    with pytest.raises(ConfigurationError, match="no shipped rule records job:device_up:cuont"):
        recorded("job:device_up:cuont")
    with pytest.raises(ConfigurationError, match="with the labels"):
        recorded("job:device_up:count", "device_type")
    with pytest.raises(ConfigurationError, match="no shipped rule records x"):
        recorded_mean("x")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with full_prometheus(tmp_path_factory.mktemp("prometheus")) as url:
        yield url


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    form = {"query": expression, "time": str(END_SECONDS)}
    reply = PLAIN_HTTP.post(f"{prometheus}/api/v1/query", data=form)
    assert reply.status_code == 200, (expression, reply.text)
    result: list[dict[str, Any]] = reply.json()["data"]["result"]
    return result


def test_prometheus_understands_every_query_and_has_an_answer(prometheus: str) -> None:
    silent = [query for query in QUERIES if not ask(prometheus, query.filled_in)]
    assert silent == []


def test_lines_are_called_by_labels_that_they_have(prometheus: str) -> None:
    for query in QUERIES:
        named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        for row in ask(prometheus, query.filled_in) if named else ():
            assert named <= set(row["metric"]), query


def test_lines_of_a_panel_can_be_told_apart(prometheus: str) -> None:
    names: dict[str, list[str]] = {}
    for query in QUERIES:
        for row in ask(prometheus, query.filled_in):
            name = query.legend
            for label, value in row["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            if query.legend:
                names.setdefault(query.panel, []).append(name)
    assert {p: n for p, n in names.items() if len(set(n)) < len(n)} == {}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (latest("device_up", "device_id"), [0.0, 1.0]),
        (rate("service_jobs_failed_total", "service"), [1.0, 2.0]),
        (rate("service_jobs_failed_total"), [3.0]),
        (increase("metrics_pipeline_dead_letters_total", window="5m"), [900.0]),
        (rise("metrics_pipeline_dead_letters_total", "reason", window="5m"), [300.0, 600.0]),
    ],
)
def test_what_two_exporters_show_is_counted_once(
    prometheus: str, expression: str, expected: list[float]
) -> None:
    text = expression.replace("$job", JOB).replace("$__rate_interval", VARIABLES["__rate_interval"])
    assert sorted(float(row["value"][1]) for row in ask(prometheus, text)) == pytest.approx(
        expected, rel=0.01
    )


def test_a_total_that_was_not_there_before_rose_by_all_it_is(prometheus: str) -> None:
    name, label = "metrics_pipeline_dead_letters_total", "reason"
    asked = (rise(name, label, window="900d"), latest(name, label))
    risen, there = (ask(prometheus, each.replace("$job", JOB)) for each in asked)
    assert risen == there != []
