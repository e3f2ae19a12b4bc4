"""What is sampled under the settings: the one list that orchestration and exporter share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.ports import SampledSource
from metrics_pipeline.core.service_counters import HEALTHY
from metrics_pipeline.sampling import Sampled
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.pipeline_health import JudgedSqlMetrics
from metrics_pipeline.sources.service_health import NAME as SERVICES
from metrics_pipeline.sources.service_health import ServiceHealth
from metrics_pipeline.sources.service_health_settings import counters_of
from metrics_pipeline.sources.sql_metrics import SqlMetrics
from metrics_pipeline.sources.sql_sets import SqlSet


def find_sampled(settings: Settings) -> tuple[Sampled, ...]:
    """Everything that is sampled under `settings`."""
    return tuple(sampled for kind in KINDS for sampled in kind(settings))


def _services(settings: Settings) -> Iterator[Sampled]:
    platform = settings.platform
    if platform.services:
        yield Sampled(
            SERVICES,
            platform.sample_every_seconds,
            partial(
                ServiceHealth,
                platform.services,
                platform.ca_file,
                platform.sample_every_seconds,
            ),
            "Whether each service is healthy, and its counters.",
            reads="services/health",
            asked=frozenset(
                (name, field)
                for name, service in platform.services.items()
                for field in (HEALTHY, *counters_of(name, service))
            ),
        )


def _sql_sets(settings: Settings) -> Iterator[Sampled]:
    sql = settings.sql
    for each in () if sql is None else sql.loaded:
        assert sql is not None
        yield Sampled(
            each.name,
            each.interval_seconds,
            partial(_open_sql_set, settings, each, sql.database_of(each)),
            f"What the SQL set {each.name} says of the database {each.database}.",
            kinds=("sql",),
            reads=f"databases/{each.database}",
        )


def _open_sql_set(settings: Settings, sql_set: SqlSet, database: DatabaseSettings) -> SampledSource:
    metrics = SqlMetrics(sql_set, database)
    if sql_set is not settings.judged_set():
        return metrics
    return JudgedSqlMetrics(metrics, sql_set, settings.health)


KINDS: Sequence[Callable[[Settings], Iterator[Sampled]]] = (_services, _sql_sets)
"""A function for each kind of source; it gives what the settings ask for of it. Making a source
opens nothing and needs no secret: that is for its first slot."""
