"""The page in both formats, read back with Prometheus' own parsers."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric as ClientMetric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from metrics_pipeline.core.catalog import FLEET_METRICS, SELF_FAMILIES, Family, MetricType
from metrics_pipeline.core.fetches import BUCKETS, Fetch, Labels, histograms, totals_of
from metrics_pipeline.exporter.page import OPENMETRICS, TEXT, Page, asks_for_openmetrics, render
from metrics_pipeline.exporter.samples import Samples

GAUGE = Family("robots_seen", MetricType.GAUGE, "Robots\nthat \\ were seen.", ("place", "kind"))
COUNTER = Family("robots_lost_total", MetricType.COUNTER, "Robots that were lost.", ("place",))

LABEL = st.text() | st.sampled_from(
    ['a "b"', "a\nb", "a\\b", "a\\nb", "🤖", "", " ", "\r\n", "a,b=c}"]
)
NUMBER = st.floats() | st.integers(-(2**53), 2**53).map(float)


def read(families: list[ClientMetric], wanted: Family) -> dict[Labels, float]:
    """The samples of `wanted`: label values in the family's order, and the number."""
    return {
        tuple(sample.labels[name] for name in wanted.labels): sample.value
        for family in families
        for sample in family.samples
        if sample.name == wanted.name
    }


def both(page: Page) -> list[list[ClientMetric]]:
    return [
        list(parse_text(page.text.plain.decode())),
        list(parse_openmetrics(page.openmetrics.plain.decode())),  # type: ignore[no-untyped-call]
    ]


def is_same(one: Mapping[Labels, float], other: Mapping[Labels, float]) -> bool:
    """Whether they are equal, where NaN is NaN."""
    return one.keys() == other.keys() and all(
        one[key] == other[key] or (math.isnan(one[key]) and math.isnan(other[key])) for key in one
    )


@given(values=st.dictionaries(st.tuples(LABEL, LABEL), NUMBER, min_size=1, max_size=5))
def test_any_label_and_any_number_come_back_from_both_formats(
    values: dict[Labels, float],
) -> None:
    for families in both(render([Samples(GAUGE, values)])):
        assert is_same(read(families, GAUGE), values)


@given(values=st.dictionaries(st.tuples(LABEL), st.integers(0, 2**53).map(float), min_size=1))
def test_counters_end_in_total_in_both_formats(values: dict[Labels, float]) -> None:
    for families in both(render([Samples(COUNTER, values)])):
        assert read(families, COUNTER) == values
        assert [family.type for family in families] == ["counter"]


def test_help_and_type_come_back_from_both_formats() -> None:
    for families in both(render([Samples(GAUGE, {("a", "b"): 1.0})])):
        assert [(f.name, f.type, f.documentation) for f in families] == [
            ("robots_seen", "gauge", "Robots\nthat \\ were seen.")
        ]


def test_every_family_of_the_catalogue_is_fit_for_both_formats() -> None:
    families = [*(metric.family for metric in FLEET_METRICS), *SELF_FAMILIES]
    labels = {f.name: ("x",) * len(f.labels) for f in families}
    page = render(
        [Samples(f, {labels[f.name]: 1.0}, {labels[f.name]: [("+Inf", 1.0)]}) for f in families]
    )
    names = {f.name for f in families if f.type is not MetricType.HISTOGRAM}
    for family in families:
        if family.type is MetricType.HISTOGRAM:
            names |= {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
    for read_families in both(page):
        assert {s.name for f in read_families for s in f.samples} == names


@given(st.lists(st.floats(0, 1000), min_size=1))
def test_a_histogram_comes_back_from_both_formats_with_every_fetch_in_its_buckets(
    seconds: list[float],
) -> None:
    (found,) = histograms(totals_of(Fetch("hub", each, 1, 0) for each in seconds)).values()
    family = Family("fetch_latency_seconds", MetricType.HISTOGRAM, "How long.", ("source",))
    page = render([Samples(family, {("hub",): found.sum_seconds}, {("hub",): found.buckets})])
    for read_families in both(page):
        ((family_read),) = read_families
        assert family_read.type == "histogram"
        samples = {(s.name, s.labels.get("le")): s.value for s in family_read.samples}
        for bound in BUCKETS:
            within = sum(each <= bound for each in seconds)
            assert samples["fetch_latency_seconds_bucket", str(bound)] == within
        assert samples["fetch_latency_seconds_bucket", "+Inf"] == len(seconds)
        assert samples["fetch_latency_seconds_count", None] == len(seconds)
        assert samples["fetch_latency_seconds_sum", None] == pytest.approx(sum(seconds), abs=1e-3)


def test_an_empty_page_is_a_page() -> None:
    page = render([])
    assert page.text.plain == b""
    assert page.openmetrics.plain == b"# EOF\n"


def test_compressed_and_plain_are_the_same_and_every_rendering_is() -> None:
    samples = [Samples(GAUGE, {(f"place {n}", "🤖"): float(n) for n in range(100)})]
    page = render(samples)
    for body in (page.text, page.openmetrics):
        assert gzip.decompress(body.gzipped) == body.plain
        assert len(body.gzipped) < len(body.plain)
    assert render(samples) == page


PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,*/*;q=0.8", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0", True),
        ("text/plain, application/openmetrics-text;q=0.9", True),
        ("text/plain, application/openmetrics-text;q=0", False),
        ("text/plain, application/openmetrics-text; version=1.0.0; q=0.000", False),
        ("application/openmetrics-text-like", False),
        (PROMETHEUS_ACCEPT, True),
        (";;,,;q=0", False),
    ],
)
def test_openmetrics_is_for_those_who_ask_for_it(accept: str, is_openmetrics: bool) -> None:
    assert asks_for_openmetrics(accept) is is_openmetrics


def test_the_content_types_are_those_of_the_specifications() -> None:
    assert TEXT == "text/plain; version=0.0.4; charset=utf-8"
    assert OPENMETRICS == "application/openmetrics-text; version=1.0.0; charset=utf-8"
