"""Opens what the settings name: the one place that knows which stores there are."""

from __future__ import annotations

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import Catalog
from metrics_pipeline.core.ports import PointStore
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.influx import InfluxStore, InfluxStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.writer import Writer

StoreSettings = EmbeddedStoreSettings | InfluxStoreSettings


def open_store(settings: StoreSettings, catalog: Catalog) -> PointStore:
    """The time-series store; connects at first use."""
    if isinstance(settings, EmbeddedStoreSettings):
        return EmbeddedStore(settings)
    return InfluxStore(settings, catalog)


def open_writer(
    settings: StoreSettings, operational_database: DatabaseSettings, catalog: Catalog
) -> Writer:
    """The writer over the time-series store and the operational database."""
    return Writer(open_store(settings, catalog), OperationalDatabase(operational_database), catalog)
