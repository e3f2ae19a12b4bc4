"""Whether exporter and gateway answer where the settings say, and what time it is in the store."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx

from metrics_pipeline.access.http_client import DIRECT
from metrics_pipeline.access.server_clock import http_skew
from metrics_pipeline.core.clock_skew import judge_skew
from metrics_pipeline.core.findings import Finding, unknown, warning, well, wrong
from metrics_pipeline.settings import Settings, TlsSettings
from metrics_pipeline.stack.exporter_client import EVERYWHERE
from metrics_pipeline.stack.webserver_client import TRUST
from metrics_pipeline.storage.influx import InfluxStoreSettings

TIMEOUT_SECONDS = 5.0
EXPORTER, GATEWAY = "exporter", "gateway"
RUNBOOKS = "docs/runbooks/alerts"


def examine_servers(
    settings: Settings,
    exporter_url: str | None = None,
    gateway_url: str | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Each that the settings have; a URL stands in for the address of the settings.

    In containers and pods they are elsewhere than they listen.
    """
    exporter, gateway = settings.exporter, settings.gateway
    url = exporter_url or _url(exporter.host, exporter.port, exporter.tls)
    yield _examine(EXPORTER, url, "/readyz", exporter.tls, f"{RUNBOOKS}/MetricsPipelineDown.md")
    if gateway is not None:
        url = gateway_url or _url(gateway.host, gateway.port, gateway.tls)
        yield _examine(GATEWAY, url, "/healthz", gateway.tls, f"{RUNBOOKS}/RobotGatewaySilent.md")
    yield from _examine_clock(settings, clock)


def _url(host: str, port: int, tls: TlsSettings | None) -> str:
    return f"{'http' if tls is None else 'https'}://{EVERYWHERE.get(host, host)}:{port}"


def _examine(name: str, url: str, path: str, tls: TlsSettings | None, runbook: str) -> Finding:
    if url.endswith(":0"):
        return unknown(name, url, f"its port is any free one: name its address with --{name}-url")
    try:
        reply = _get(url.rstrip("/") + path, _trust(tls))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        said = f"no answer ({str(error) or type(error).__name__})"
        fix = f"Start it, or say where it is with --{name}-url; its log says why it ended."
        return wrong(name, url, said, fix, runbook)
    if reply.is_success:
        return well(name, url, f"{path} answers {reply.status_code}")
    said = f"{path} answers {reply.status_code}: {reply.text.strip()[:200]}"
    fix = "It runs, and cannot read what it shows: see what else is wrong here."
    return warning(name, url, said, fix, runbook)


def _get(url: str, trusted: ssl.SSLContext) -> httpx.Response:
    """By the proxies of the environment, except on loopback."""
    with httpx.Client(mounts=DIRECT, verify=trusted, timeout=TIMEOUT_SECONDS) as client:
        return client.get(url)


def _trust(tls: TlsSettings | None) -> ssl.SSLContext:
    """Exactly the certificate that it is told to show, by whatever name we call it."""
    if tls is None:
        return TRUST
    context = ssl.create_default_context(cafile=str(tls.certificate_file))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _examine_clock(settings: Settings, clock: Callable[[], float]) -> Iterator[Finding]:
    """By the header Date of InfluxDB, which has the time of points that come without one."""
    store = settings.store
    if not isinstance(store, InfluxStoreSettings):
        return
    # That it does not answer, or cannot be believed, is a finding about the store, not its clock.
    with suppress(httpx.HTTPError, OSError):
        trusted = ssl.create_default_context(cafile=store.ca_file)
        before = clock()
        reply = _get(f"{store.url}/ping", trusted)
        skew = http_skew(reply.headers, before, clock())
        if skew is not None:
            yield judge_skew(store.url, *skew)
