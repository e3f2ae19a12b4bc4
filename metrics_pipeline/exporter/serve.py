"""The exporter's process: a thread that refreshes, and a server that answers."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.telemetry_assets import UPLINKS
from metrics_pipeline.exporter.app import build_app
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.exporter.refresher import Refresher
from metrics_pipeline.exporter.samples import LAG_FAMILIES, Asked
from metrics_pipeline.settings import ExporterSettings, Settings
from metrics_pipeline.storage.operational import OperationalDatabase

LOG = logging.getLogger(__name__)
STOP_WITHIN_SECONDS = 5
BACKLOG = 2048
SWITCH_SECONDS = 0.001
"""Python's threads take turns this often: rendering many devices must not hold up an answer."""

# A key that asks for a passphrase is refused; OpenSSL would ask for it at the terminal.
NO_PASSPHRASE = "none"  # noqa: S105 (not a secret)


def serve(settings: Settings, port: int | None) -> None:
    """Serve until SIGTERM or SIGINT; `port` wins over the settings', and 0 is any free one.

    Raises ConfigurationError for a certificate, a secret or an address that cannot be used.
    """
    _answer_meanwhile()
    refresher = build_refresher(settings)
    server = uvicorn.Server(_configure(settings.exporter, refresher))
    with _listen(settings.exporter, port) as listener, _refreshing(settings, refresher):
        _end_on_signals(server)
        LOG.info("serving %s", _url(settings.exporter, listener))
        server.run(sockets=[listener])


def build_refresher(settings: Settings) -> Refresher:
    """The refresher over what the settings name."""
    telemetry = settings.telemetry
    return Refresher(
        operational=OperationalDatabase(settings.operational_database),
        instance=InstanceReader(settings.jobs()),
        catalog=settings.catalog(),
        assets=_assets(settings),
        max_series=settings.exporter.max_series_per_metric,
        device_assets=settings.sweeps.snapshots() if settings.polls_devices else (),
        device_families=settings.exporter.device_families,
        lorawan_kept_days=0 if telemetry is None else telemetry.devices_kept_days,
    )


def _assets(settings: Settings) -> dict[str, Collection[Asked]]:
    """The snapshots that are read as points, and what is shown of each."""
    counted: dict[str, Collection[Asked]] = {
        asset.key: asset.pairs for asset in settings.fleet_assets()
    }
    if settings.telemetry is None:
        return counted
    return {**counted, UPLINKS: {(None, field) for field in LAG_FAMILIES}}


def _answer_meanwhile() -> None:
    """Nothing that the other thread does may hold up an answer for long."""
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is imported stays, and is a quarter of a million objects, most of them Dagster's: a full
    # collection would walk through them, 0.14 s in which no thread runs.
    gc.collect()
    gc.freeze()


def _configure(exporter: ExporterSettings, refresher: Refresher) -> uvicorn.Config:
    auth, tls = exporter.basic_auth, exporter.tls
    credentials = f"{auth.username}:{auth.password.read()}" if auth else None
    config = uvicorn.Config(
        build_app(refresher, credentials),
        ssl_certfile=tls.certificate_file if tls else None,
        ssl_keyfile=tls.key_file if tls else None,
        ssl_keyfile_password=NO_PASSPHRASE,
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=STOP_WITHIN_SECONDS,
    )
    try:
        config.load()
    except OSError as error:  # no such file, or none that OpenSSL takes
        raise ConfigurationError(
            "exporter.tls",
            f"{tls} cannot be used ({error.strerror or error})",
            "Give readable PEM files that belong together; the key without a passphrase.",
        ) from error
    return config


def _listen(exporter: ExporterSettings, port: int | None) -> socket.socket:
    """A socket that listens. Taken before anything is started, so that a failure is one error."""
    host, number = exporter.host, exporter.port if port is None else port
    try:
        family, *_, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
        # Python adds the address once more, in brackets.
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        raise ConfigurationError(
            "exporter.host and exporter.port",
            f"cannot listen on {host}:{number} ({reason})",
            "Give an address of this machine, and a port that no other program has (--port).",
        ) from error


def _url(exporter: ExporterSettings, listener: socket.socket) -> str:
    host = f"[{exporter.host}]" if ":" in exporter.host else exporter.host
    scheme = "https" if exporter.tls else "http"
    return f"{scheme}://{host}:{listener.getsockname()[1]}/metrics"


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


def _end_on_signals(server: uvicorn.Server) -> None:
    """Make SIGTERM and SIGINT a clean end also before and after uvicorn looks for them.

    It raises the signal that ended it once more when it has ended, which would kill this process.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
