"""What the rest of the product knows of a source: one `SourceSpec` at the end of each file here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from metrics_pipeline.core.catalog import Metric
from metrics_pipeline.core.ports import SnapshotSource


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Everything that settings, resources, lineage, checks and docs derive from.

    `name` is the settings section, the Dagster resource and the `provider` tag. `kinds` are
    Dagster's icons, `reads` names what is read in the lineage (`azure_iot_hub/registry`), and
    `answers` are the metrics the source can give.
    """

    name: str
    title: str
    kinds: frozenset[str]
    reads: str
    answers: tuple[Metric, ...]
    settings_type: type[BaseModel]
    build: Callable[[Any], SnapshotSource]
    """Makes the source from its settings section; opens no connection yet."""
    query_type: str = ""
    """Of a database, what it is asked about: a label of `database_queries_total`."""
