"""Samples rendered once a refresh into the bytes that every scrape gets.

OpenMetrics takes longer than the classic format, and is rendered once somebody asks for it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import generate_latest as render_text
from prometheus_client.metrics_core import Metric as ClientMetric
from prometheus_client.openmetrics.exposition import generate_latest as render_openmetrics

from metrics_pipeline.core.catalog import Family, MetricType
from metrics_pipeline.exporter.device_lines import Block
from metrics_pipeline.exporter.pieces import Piece, gzip_join, unzip
from metrics_pipeline.exporter.samples import Samples

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LAST_LINE = b"# EOF\n"
REFUSAL = re.compile(r"q\s*=\s*0(\.0*)?")


@dataclass(frozen=True, slots=True)
class Body:
    """One rendering: its content type, and all of it compressed."""

    content_type: str
    gzipped: bytes

    @property
    def plain(self) -> bytes:
        """Unpacked when asked for: Prometheus takes it compressed, and it may be large."""
        return unzip(self.gzipped)


@dataclass(frozen=True)
class Page:
    """Everything a scrape may ask for."""

    text: Body
    _families: Sequence[Samples] = field(repr=False, compare=False)
    _blocks: Sequence[Block] = field(repr=False, compare=False)

    @functools.cached_property
    def openmetrics(self) -> Body:
        """Rendered at the first look at it."""
        pieces = [Piece.of(_as_openmetrics(self._families))]
        for block in self._blocks:
            pieces += [_openmetrics_head(block.family), block.samples]
        return Body(OPENMETRICS, gzip_join([*pieces, Piece.of(LAST_LINE)]))


def asks_for_openmetrics(accept: str) -> bool:
    """Whether the `Accept` header names it; else the classic text format is meant."""
    return names(accept, "application/openmetrics-text")


def names(header: str, wanted: str) -> bool:
    """Whether an `Accept` or `Accept-Encoding` header names `wanted`, and not with `q=0`."""
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == wanted:
            return not any(REFUSAL.fullmatch(parameter) for parameter in parameters)
    return False


def render(families: Sequence[Samples], blocks: Sequence[Block] = ()) -> Page:
    """Render `families` and then `blocks`, which are rendered already."""
    pieces = [Piece.of(_as_text(families))]
    for block in blocks:
        pieces += [_text_head(block.family), block.samples]
    return Page(Body(TEXT, gzip_join(pieces)), families, blocks)


def _as_text(families: Iterable[Samples]) -> bytes:
    return render_text(_registry(families))


def _as_openmetrics(families: Iterable[Samples]) -> bytes:
    """Without its last line."""
    page: bytes = render_openmetrics(_registry(families))  # type: ignore[no-untyped-call]
    return page.removesuffix(LAST_LINE)


@functools.cache
def _text_head(family: Family) -> Piece:
    """Help and type of `family`."""
    return Piece.of(_as_text([Samples(family)]))


@functools.cache
def _openmetrics_head(family: Family) -> Piece:
    return Piece.of(_as_openmetrics([Samples(family)]))


def _registry(families: Iterable[Samples]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(families))
    return registry


class _Fixed:
    """A collector over what is already collected."""

    def __init__(self, families: Iterable[Samples]) -> None:
        self._families = families

    def collect(self) -> Iterator[ClientMetric]:
        for samples in self._families:
            yield _to_client(samples)


def _to_client(samples: Samples) -> ClientMetric:
    family = samples.family
    if family.type is MetricType.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, total in samples.values.items():
            histogram.add_metric(labels, samples.buckets[labels], total)
        return histogram
    make = CounterMetricFamily if family.type is MetricType.COUNTER else GaugeMetricFamily
    metric = make(family.name, family.help, labels=family.labels)
    for labels, value in samples.values.items():
        metric.add_metric(labels, value)
    return metric
