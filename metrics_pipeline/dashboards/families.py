"""Every family that the exporter may show, by name: those of docs/metrics.md."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from metrics_pipeline.core.catalog import CATALOG, SELF_FAMILIES, Family
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.sources.sql_sets import SHIPPED, load_sql_set


@functools.cache
def families() -> Mapping[str, Family]:
    """The catalogue, the SQL sets that ship, and what the product says about itself."""
    metrics = [*CATALOG, *(each for name in SHIPPED for each in load_sql_set(name).metrics)]
    return {family.name: family for family in (*(m.family for m in metrics), *SELF_FAMILIES)}


def find_family(name: str, labels: tuple[str, ...]) -> Family:
    """The family `name`. Raises ConfigurationError if there is none, or it has not all `labels`."""
    family = families().get(name)
    if family is None:
        raise ConfigurationError(
            "dashboards",
            f"no family is called {name}",
            "Take one of docs/metrics.md.",
        )
    if not set(labels) <= set(family.labels):
        raise ConfigurationError(
            "dashboards",
            f"{name} has the labels {list(family.labels)}, not all of {list(labels)}",
            "Take labels that it has.",
        )
    return family
