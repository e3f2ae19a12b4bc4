"""The exporter's process: a thread that refreshes, and a server that answers."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import uvicorn

from metrics_pipeline.access.environment import state_dir
from metrics_pipeline.access.http_server import (
    STOP_WITHIN_SECONDS,
    address_of,
    answer_meanwhile,
    configure,
    end_on_signals,
    listen,
)
from metrics_pipeline.core import robots
from metrics_pipeline.core.device_assets import STATUS
from metrics_pipeline.core.telemetry_assets import UPLINKS
from metrics_pipeline.exporter.app import build_app
from metrics_pipeline.exporter.host_resources import HostReader
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.exporter.refresher import Refresher
from metrics_pipeline.exporter.samples import EVERYTHING, LAG_FAMILIES, Asked
from metrics_pipeline.exporter.sign_in import read_sign_in
from metrics_pipeline.exporter.status_page import StatusPage
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.sampling import Sampled
from metrics_pipeline.settings import ExporterSettings, Settings
from metrics_pipeline.storage.embedded import EmbeddedStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.spool_state import SpoolWatch

LOG = logging.getLogger(__name__)


def serve(settings: Settings, port: int | None, dagster_url: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT; `port` wins over the settings', and 0 is any free one.

    The status page links to `dagster_url` where the settings do not say where Dagster's UI is.

    Raises ConfigurationError for a certificate, a secret or an address that cannot be used.
    """
    answer_meanwhile()  # while many devices are rendered
    refresher = build_refresher(settings)
    exporter = settings.exporter
    page = build_status_page(exporter, dagster_url)
    server = uvicorn.Server(_configure(exporter, refresher, page))
    with listen("exporter", exporter, port) as listener, _refreshing(settings, refresher):
        end_on_signals(server)
        LOG.info("serving %s", _url(exporter, listener))
        server.run(sockets=[listener])


def build_refresher(settings: Settings, sampled: Sequence[Sampled] | None = None) -> Refresher:
    """The refresher over what the settings name.

    `sampled` stands in for what the settings have sampled.
    """
    telemetry = settings.telemetry
    sampled = find_sampled(settings) if sampled is None else sampled
    operational = OperationalDatabase(settings.operational_database)
    return Refresher(
        operational=operational,
        instance=InstanceReader(settings.jobs(), operational),
        catalog=settings.catalog(),
        assets=_assets(settings, sampled),
        max_series=settings.exporter.max_series_per_metric,
        sources={*settings.fetched_sources(), *(each.name for each in sampled)},
        device_assets=settings.sweeps.snapshots() if settings.polls_devices else (),
        device_families=settings.exporter.device_families,
        spool=None if settings.spool is None else SpoolWatch(settings.spool),
        lorawan_kept_days=0 if telemetry is None else telemetry.devices_kept_days,
        robots_kept_days=0 if settings.gateway is None else settings.gateway.robots_kept_days,
        every_seconds=intervals(settings, sampled),
        host=HostReader(state_dir(), database_files(settings)),
    )


def database_files(settings: Settings) -> dict[str, Path]:
    """Where the databases are that are files, by what they hold."""
    files = {"dagster": state_dir() / "dagster" / "history"}
    if settings.operational_database.is_sqlite:
        url = sa.engine.make_url(settings.operational_database.url)
        files["operational"] = Path(url.database or "")
    if isinstance(settings.store, EmbeddedStoreSettings):
        files["store"] = settings.store.path
    return files


def build_status_page(exporter: ExporterSettings, dagster_url: str | None) -> StatusPage:
    """The status page; `dagster_url` is where Dagster's UI is, unless the settings say so."""
    url = exporter.dagster_url or dagster_url
    return StatusPage(None if url is None else url.rstrip("/"))


def intervals(settings: Settings, sampled: Sequence[Sampled]) -> dict[str, float]:
    """How often each asset should be there, in seconds."""
    fleet = settings.fleet
    every: dict[str, float] = {each.asset: each.every_seconds for each in sampled}
    if fleet is not None:
        every |= {asset.key: fleet.every_minutes * 60 for asset in settings.fleet_assets()}
    if settings.polls_devices:
        sweeps = settings.sweeps
        metrics_seconds = 60 * max(sweeps.metrics_cadences())
        for name in sweeps.snapshots():
            is_status = name.startswith(STATUS)
            every[name] = sweeps.slowest_status_seconds if is_status else metrics_seconds
    if settings.telemetry is not None:
        every[UPLINKS] = settings.telemetry.window_seconds
    if settings.gateway is not None:
        every[robots.ASSET] = robots.QUIET_SECONDS
    return every


def _assets(settings: Settings, sampled: Sequence[Sampled]) -> dict[str, Collection[Asked]]:
    """The snapshots that are read as points, and what is shown of each."""
    counted: dict[str, Collection[Asked]] = {
        **{asset.key: asset.pairs for asset in settings.fleet_assets()},
        **{each.asset: each.asked or EVERYTHING for each in sampled},
    }
    if settings.telemetry is not None:
        counted[UPLINKS] = {(None, field) for field in LAG_FAMILIES}
    if settings.gateway is not None:
        counted[robots.ASSET] = {(None, robots.CONNECTED)}
    return counted


def _configure(
    exporter: ExporterSettings, refresher: Refresher, status_page: StatusPage
) -> uvicorn.Config:
    app = build_app(refresher, read_sign_in(exporter), status_page)
    return configure("exporter", exporter, app)


def _url(exporter: ExporterSettings, listener: socket.socket) -> str:
    scheme = "https" if exporter.tls else "http"
    return f"{scheme}://{address_of(exporter.host, listener)}/metrics"


@contextmanager
def _refreshing(settings: Settings, refresher: Refresher) -> Iterator[None]:
    stop = threading.Event()
    every_seconds = settings.exporter.refresh_seconds
    thread = threading.Thread(target=refresher.run, args=(every_seconds, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(STOP_WITHIN_SECONDS)
        if not thread.is_alive():  # else it waits for a database, and ends with the process
            refresher.close()
