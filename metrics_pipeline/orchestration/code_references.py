"""Shows in the UI where each asset is written."""

import warnings
from collections.abc import Sequence

import dagster as dg


def with_code_references(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """`assets`, each with the file and line of its function."""
    with warnings.catch_warnings():
        # Dagster calls this part of itself beta; the pinned version is the one that was tried.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [
            asset
            for asset in dg.with_source_code_references(assets)
            if isinstance(asset, dg.AssetsDefinition)
        ]
