"""Looks at the exporter's page the way Prometheus does, with what the settings say it asks for."""

from __future__ import annotations

import ssl
from collections.abc import Iterable

import httpx

from metrics_pipeline.core.catalog import LAST_SUCCESS
from metrics_pipeline.settings import ExporterSettings
from metrics_pipeline.stack.webserver_client import TRUST

TIMEOUT_SECONDS = 10.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 (an address to compare with)


class ExporterClient:
    """A client of the exporter on `port` of this machine."""

    def __init__(self, settings: ExporterSettings, port: int) -> None:
        self._settings = settings
        host = EVERYWHERE.get(settings.host, settings.host)
        self.url = f"{'https' if settings.tls else 'http'}://{host}:{port}"

    def is_ready(self) -> bool:
        """Whether it has looked at everything once."""
        try:
            return self._get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def values(self) -> dict[str, str]:
        """Series and value of each line of the page; nothing while it does not answer."""
        try:
            lines = self._get("/metrics").text.splitlines()
        except httpx.HTTPError:
            return {}
        return dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))

    def counted_at(self, assets: Iterable[str]) -> dict[str, float]:
        """When each asset was last counted in full, in seconds since the epoch; 0 for never."""
        values = self.values()
        series = {asset: f'{LAST_SUCCESS.name}{{asset="{asset}"}}' for asset in assets}
        return {asset: float(values.get(name, 0)) for asset, name in series.items()}

    def _get(self, path: str) -> httpx.Response:
        auth, token = self._settings.basic_auth, self._settings.bearer_token
        return httpx.get(
            self.url + path,
            auth=(auth.username, auth.password.read()) if auth else None,
            headers={"Authorization": f"Bearer {token.read()}"} if token and not auth else None,
            verify=self._trust(),
            timeout=TIMEOUT_SECONDS,
            trust_env=False,  # no proxy is shown the password
        )

    def _trust(self) -> ssl.SSLContext:
        """Exactly the certificate the exporter is told to show, by whatever name we call it."""
        if self._settings.tls is None:
            return TRUST
        context = ssl.create_default_context(cafile=str(self._settings.tls.certificate_file))
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context
