"""The exporter's process: a thread that refreshes, and a server that answers."""

from __future__ import annotations

import logging
import threading

import uvicorn

from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.exporter.app import build_app
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.exporter.refresher import Refresher
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage.operational import OperationalDatabase

LOG = logging.getLogger(__name__)
STOP_WITHIN_SECONDS = 5


def serve(settings: Settings, port: int | None) -> None:
    """Serve until SIGTERM or SIGINT; `port` wins over the settings'."""
    refresher = build_refresher(settings)
    stop = threading.Event()
    thread = threading.Thread(
        target=refresher.run,
        args=(settings.exporter.refresh_seconds, stop),
        name="refresher",
        daemon=True,
    )
    thread.start()
    try:
        _build_server(settings, refresher, port).run()
    finally:
        stop.set()
        thread.join(STOP_WITHIN_SECONDS)
        refresher.close()


def build_refresher(settings: Settings) -> Refresher:
    """The refresher over what the settings name."""
    return Refresher(
        operational=OperationalDatabase(settings.operational_database),
        instance=InstanceReader([JOB] if settings.fleet else []),
        catalog=CATALOG,
        assets=[asset.key for asset in settings.fleet_assets()],
        max_series=settings.exporter.max_series_per_metric,
    )


def _build_server(settings: Settings, refresher: Refresher, port: int | None) -> uvicorn.Server:
    exporter = settings.exporter
    auth, tls = exporter.basic_auth, exporter.tls
    credentials = f"{auth.username}:{auth.password.read()}" if auth else None
    config = uvicorn.Config(
        build_app(refresher, credentials),
        host=exporter.host,
        port=exporter.port if port is None else port,
        ssl_certfile=tls.certificate_file if tls else None,
        ssl_keyfile=tls.key_file if tls else None,
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=STOP_WITHIN_SECONDS,
    )
    return uvicorn.Server(config)
