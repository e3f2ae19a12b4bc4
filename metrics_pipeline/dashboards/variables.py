"""The variables at the top of a dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from metrics_pipeline.dashboards.families import find_family
from metrics_pipeline.dashboards.queries import JOB

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
"""Whichever Prometheus the reader chose."""


def datasource() -> builders.DatasourceVariable:
    """Which Prometheus to ask: the default one, until another is chosen."""
    return builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def job() -> builders.QueryVariable:
    """Which of Prometheus's jobs scrapes the exporter."""
    return _query("job", "Job", "label_values(metrics_pipeline_build_info, job)")


def of_label(name: str, label: str, family: str, of: str) -> builders.QueryVariable:
    """The values of the label `of` of `family`, of which one is chosen."""
    find_family(family, (of,))
    return _query(name, label, f"label_values({family}{{{JOB}}}, {of})")


def _query(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
    )
