"""PromQL over the families of the exporter.

Two exporters of one instance show the same numbers, so a series is taken once, whatever its
instance: the highest of each. Every selector has the job that the dashboard's variable names,
because other programs have families of these names.
"""

from __future__ import annotations

from metrics_pipeline.dashboards.families import find_family
from metrics_pipeline.dashboards.recordings import find_recording

JOB = 'job="$job"'
SCRAPED_AS = {"job": "exported_job"}
"""What Prometheus calls a label of the page that it has itself, unless honor_labels is true."""

RATE_INTERVAL = "$__rate_interval"
"""Grafana's: four scrapes at the least, and no less than the distance of two points shown."""


SHORTEST_INTERVAL_SECONDS = 100
"""The alerts on what is stale wait for three times as long at the least."""


def latest(name: str, *labels: str, where: str = "") -> str:
    """The gauge `name` by `labels`; of several series of the same labels the highest."""
    find_family(name, labels)
    return f"max{_by(labels)} ({_selector(name, where)})"


def rate(name: str, *labels: str, where: str = "") -> str:
    """How much the counter `name` rises a second, added up over all labels but `labels`."""
    return _over_time("rate", name, labels, where, RATE_INTERVAL)


def increase(name: str, *labels: str, where: str = "", window: str = "1h") -> str:
    """By how much the counter `name` rose in `window`, added up over all labels but `labels`."""
    return _over_time("increase", name, labels, where, window)


def rise(name: str, *labels: str, window: str) -> str:
    """By how much the total `name` rose in `window`, by all its `labels`.

    From two samples of each series, where `increase` reads all: for totals that the product keeps
    in its database, which do not begin anew with its processes. One that did counts from there.
    """
    now = latest(name, *labels)
    before = f"max{_by(labels)} ({_selector(name, '')} offset {window})"
    return f"({now} - {before} >= 0 or {now})"


def age(name: str, *labels: str, where: str = "") -> str:
    """Seconds since the moment that the gauge `name` tells."""
    return f"time() - {latest(name, *labels, where=where)}"


def age_in_intervals(where: str = "") -> str:
    """Since each asset was last read and stored in full, in intervals of its own.

    One is taken for at least 100 s, as the alerts on three of them wait for five minutes at least.
    """
    ages = age("metrics_pipeline_last_success_timestamp_seconds", "asset", where=where)
    interval = latest("metrics_pipeline_asset_interval_seconds", "asset", where=where)
    return f"({ages}) / clamp_min({interval}, {SHORTEST_INTERVAL_SECONDS})"


def recorded(name: str, *labels: str) -> str:
    """What a shipped rule records as `name`, by `labels`: a week of all devices is quick to read.

    A thousand devices are 40 million samples in a week, one each 15 s: Prometheus takes seconds.
    """
    find_recording(name, labels)
    return f"max{_by(labels)} ({_selector(name, '')})"


def recorded_mean(name: str, window: str = RATE_INTERVAL) -> str:
    """The mean in `window` of what a shipped rule records as `name`."""
    find_recording(name, ())
    return f"max (avg_over_time({_selector(name, '')}[{window}]))"


def percent(part: str, whole: str) -> str:
    """`part` as a percentage of `whole`; nothing where the whole is nothing."""
    return f"100 * {part} / ({whole} > 0)"


def _over_time(function: str, name: str, labels: tuple[str, ...], where: str, window: str) -> str:
    family = find_family(name, labels)
    rises = f"{function}({_selector(name, where)}[{window}])"
    once = f"max{_by(family.labels)} ({rises})"
    return once if set(labels) == set(family.labels) else f"sum{_by(labels)} ({once})"


def _selector(name: str, where: str) -> str:
    return f"{name}{{{', '.join(part for part in (JOB, where) if part)}}}"


def _by(labels: tuple[str, ...]) -> str:
    names = ", ".join(SCRAPED_AS.get(label, label) for label in labels)
    return f" by ({names})" if names else ""
