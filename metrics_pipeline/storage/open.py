"""Opens what the settings name: the one place that knows which stores there are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import Catalog
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.extras import INSTALL_EXTRAS
from metrics_pipeline.core.ports import CheckpointStore, PointStore
from metrics_pipeline.storage.checkpoints import (
    BlobCheckpointSettings,
    DatabaseCheckpoints,
    DatabaseCheckpointSettings,
)
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.influx import InfluxStore, InfluxStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.spool import Spool, SpoolSettings
from metrics_pipeline.storage.spool_replay import Replayer
from metrics_pipeline.storage.writer import Writer

StoreSettings = EmbeddedStoreSettings | InfluxStoreSettings


def open_store(settings: StoreSettings, catalog: Catalog) -> PointStore:
    """The time-series store; connects at first use."""
    if isinstance(settings, EmbeddedStoreSettings):
        return EmbeddedStore(settings)
    return InfluxStore(settings, catalog)


def upgrade_store(settings: StoreSettings, tell: Callable[[str], None]) -> None:
    """Change the store's file, if it is of an earlier version, before others need it.

    That takes minutes if there is much in it, of which `tell` hears. StoreError if it fails.
    """
    if isinstance(settings, EmbeddedStoreSettings):
        with closing(EmbeddedStore(settings)) as store:
            store.upgrade(tell)


def open_writer(
    settings: StoreSettings,
    operational_database: DatabaseSettings,
    catalog: Catalog,
    spool: SpoolSettings | None = None,
) -> Writer:
    """The writer over the time-series store and the operational database.

    With `spool` it keeps there what the store does not take for the moment; None for what is kept
    elsewhere until it is stored, such as telemetry.
    """

    def open_it(replayer: Replayer | None = None) -> Writer:
        store, operational = (
            open_store(settings, catalog),
            OperationalDatabase(operational_database),
        )
        return Writer(store, operational, catalog, replayer=replayer)

    return open_it(None if spool is None else Replayer(Spool(spool), open_it))


def open_checkpoints(
    settings: DatabaseCheckpointSettings | BlobCheckpointSettings,
    operational_database: DatabaseSettings,
    owner: str,
) -> CheckpointStore:
    """The checkpoints as `owner` (a run's id, say) writes them; connects at first use.

    ConfigurationError when they are to be in Blob Storage and the extra is not installed.
    """
    if isinstance(settings, DatabaseCheckpointSettings):
        return DatabaseCheckpoints(OperationalDatabase(operational_database), owner)
    try:
        from metrics_pipeline.storage.blob_checkpoints import (  # noqa: PLC0415  (an extra)
            BlobCheckpoints,
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "checkpoints, kind blob",
            f"{error.name} is not installed",
            INSTALL_EXTRAS,
        ) from error
    return BlobCheckpoints(settings, owner)
