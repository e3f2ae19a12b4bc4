"""Fixtures the tests of the stores share."""

from metrics_pipeline_tests.storage.operational_databases import (
    emptied_postgresql,
    operational,
    settings,
    shared_postgresql,
)

__all__ = ["emptied_postgresql", "operational", "settings", "shared_postgresql"]
