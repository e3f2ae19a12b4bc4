"""The settings of InfluxDB's engine as the store of an ingestion."""

from __future__ import annotations

from pathlib import Path

from metrics_pipeline.core.catalog import LORAWAN_UPLINK
from metrics_pipeline.storage.influx import InfluxStoreSettings
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import TOKEN, Influxdb1EngineShim


def influxdb_settings(engine: Influxdb1EngineShim, folder: Path) -> InfluxStoreSettings:
    """Of `engine`; the token is in a file of `folder`."""
    token = folder / "token"
    token.write_text(TOKEN)
    return InfluxStoreSettings.model_validate(
        {
            "kind": "influxdb",
            "url": engine.url,
            "api": "v2",
            "org": "any",
            "token": {"file": str(token)},
            "databases": {LORAWAN_UPLINK.database: "tests"},
        }
    )
