"""InfluxDB 3's own write API, `POST /api/v3/write_lp`, over httpx.

https://docs.influxdata.com/influxdb3/core/write-data/http-api/v3-write-lp/
"""

from __future__ import annotations

import gzip
import ssl
from typing import Any

import httpx

from metrics_pipeline.access.http import Reply
from metrics_pipeline.core.errors import StoreUnavailable

NO_CONNECTION = "Check its url, the network and TLS (ca_file)."
GZIP_LEVEL = 3
"""Line protocol shrinks to a tenth at this level; level 9 takes five times the CPU for little."""


class V3Api:
    """`POST /api/v3/write_lp`; a `database` is made by the server at the first write to it."""

    health_path = "/health"
    authorization_scheme = "Bearer"

    def __init__(
        self, *, store: str, url: str, timeout_seconds: float, gzip: bool, tls: ssl.SSLContext
    ) -> None:
        self._store = store
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._gzip = gzip
        self._tls = tls
        self._client: httpx.Client | None = None

    def send(self, database: str, lines: bytes, authorization: str | None) -> Reply:
        """Write `lines`; any answer is a Reply, none within the time limit StoreUnavailable."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._gzip:
            headers["Content-Encoding"] = "gzip"
            lines = gzip.compress(lines, GZIP_LEVEL)
        if authorization is not None:
            headers["Authorization"] = authorization
        try:
            response = self._opened().post(
                f"{self._url}/api/v3/write_lp",
                params={"db": database, "precision": "nanosecond"},
                content=lines,
                headers=headers,
            )
        except httpx.TimeoutException as error:
            raise self._unavailable(f"no answer within {self._timeout_seconds:g} s") from error
        except httpx.HTTPError as error:
            raise self._unavailable(f"no answer ({error})") from error
        return Reply(response.status_code, response.headers, response.content)

    @property
    def listing(self) -> tuple[str, dict[str, str]]:
        """Path and query of the databases."""
        return "/api/v3/configure/database", {"format": "json"}

    def names_in(self, listing: Any) -> set[str]:
        """The databases in a JSON reply to `listing`."""
        return {row["iox::database"] for row in listing}

    def how_to_create(self, database: str) -> str:
        """What to do about an address that is not there: databases make themselves."""
        return (
            f"Check that the url is that of an InfluxDB 3 (for an InfluxDB 2 set api: v2), or "
            f"create the database: influxdb3 create database {database}"
        )

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _opened(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(timeout=self._timeout_seconds, verify=self._tls)
        return self._client

    def _unavailable(self, problem: str) -> StoreUnavailable:
        return StoreUnavailable(self._store, problem, NO_CONNECTION)
