"""Samples rendered once a refresh into the bytes that every scrape gets."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest as render_text
from prometheus_client.metrics_core import Metric as ClientMetric
from prometheus_client.openmetrics.exposition import generate_latest as render_openmetrics

from metrics_pipeline.core.catalog import MetricType
from metrics_pipeline.exporter.samples import Samples

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
GZIP_LEVEL = 1
REFUSAL = re.compile(r"q\s*=\s*0(\.0*)?")


@dataclass(frozen=True, slots=True)
class Body:
    """One rendering: its content type, its bytes, and the same compressed."""

    content_type: str
    plain: bytes
    gzipped: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Everything a scrape may ask for."""

    text: Body
    openmetrics: Body

    def choose(self, accept: str) -> Body:
        """OpenMetrics where the `Accept` header names it, else the classic text format."""
        return self.openmetrics if names(accept, "application/openmetrics-text") else self.text


def names(header: str, wanted: str) -> bool:
    """Whether an `Accept` or `Accept-Encoding` header names `wanted`, and not with `q=0`."""
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name == wanted:
            return not any(REFUSAL.fullmatch(parameter) for parameter in parameters)
    return False


def render(families: Sequence[Samples]) -> Page:
    """Render `families` in both formats."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(families))
    return Page(
        _body(TEXT, render_text(registry)),
        _body(OPENMETRICS, render_openmetrics(registry)),  # type: ignore[no-untyped-call]
    )


def _body(content_type: str, plain: bytes) -> Body:
    return Body(content_type, plain, gzip.compress(plain, GZIP_LEVEL, mtime=0))


class _Fixed:
    """A collector over what is already collected."""

    def __init__(self, families: Iterable[Samples]) -> None:
        self._families = families

    def collect(self) -> Iterator[ClientMetric]:
        for samples in self._families:
            yield _to_client(samples)


def _to_client(samples: Samples) -> ClientMetric:
    family = samples.family
    make = CounterMetricFamily if family.type is MetricType.COUNTER else GaugeMetricFamily
    metric = make(family.name, family.help, labels=family.labels)
    for labels, value in samples.values.items():
        metric.add_metric(labels, value)
    return metric
