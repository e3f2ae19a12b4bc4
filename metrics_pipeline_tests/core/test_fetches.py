"""What fetches add up to: each is in one bucket, and nothing is lost on the way to a label."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.core.fetches import (
    BUCKETS,
    Fetch,
    from_label,
    histograms,
    to_label,
    totals_of,
)

FETCHES = st.builds(
    Fetch, st.text(), st.floats(0, 1000), st.integers(0, 99), st.integers(0, 99), st.text()
)


def added(*parts: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """As the database adds them up."""
    total: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part.items():
            total.setdefault(name, Counter()).update(counts)
    return total


@given(st.lists(FETCHES), st.lists(FETCHES))
def test_totals_of_two_runs_are_those_of_all_their_fetches(
    one: list[Fetch], other: list[Fetch]
) -> None:
    assert added(totals_of(one), totals_of(other)) == totals_of([*one, *other])


@given(st.lists(FETCHES))
def test_each_fetch_is_in_the_buckets_from_its_time_on(fetches: list[Fetch]) -> None:
    found = histograms(totals_of(fetches))
    assert found.keys() == {(fetch.source,) for fetch in fetches}
    for (source,), histogram in found.items():
        seconds = [fetch.seconds for fetch in fetches if fetch.source == source]
        for bound, count in histogram.buckets:
            assert count == sum(each <= float(bound) for each in seconds)


def test_a_time_on_a_bound_is_within_it() -> None:
    totals = totals_of(Fetch("hub", bound, 1, 0) for bound in BUCKETS)
    assert [count for _, count in histograms(totals)["hub",].buckets] == [
        *range(1, len(BUCKETS) + 1),
        len(BUCKETS),
    ]


def test_a_bound_of_an_earlier_release_keeps_its_fetches() -> None:
    totals = {"fetch_latency_seconds_bucket": {'["hub","0.3"]': 2, '["hub","0.25"]': 1}}
    buckets = dict(histograms(totals)["hub",].buckets)
    assert (buckets["0.25"], buckets["0.3"], buckets["0.5"], buckets["+Inf"]) == (1, 3, 3, 3)


@given(st.lists(st.text()).map(tuple))
def test_labels_come_back(labels: tuple[str, ...]) -> None:
    assert from_label(to_label(labels)) == labels


def test_a_source_that_is_no_database_counts_no_queries() -> None:
    assert "database_queries_total" not in totals_of([Fetch("hub", 0.1, 3, 1)])
