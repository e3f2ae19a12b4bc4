"""Adds what a run measured of its own fetches to the totals that the exporter shows."""

from collections.abc import Sequence

import dagster as dg

from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.fetches import Fetch
from metrics_pipeline.orchestration.resources import WRITER


def count_fetches(context: dg.AssetExecutionContext, fetches: Sequence[Fetch]) -> None:
    """Once, as soon as they are measured; that this fails is no reason to fail the run."""
    try:
        getattr(context.resources, WRITER).count_fetches(fetches)
    except StoreError as error:
        context.log.warning("What was fetched is missing in the exporter's totals: %s", error)
