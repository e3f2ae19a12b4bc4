"""InfluxDB 3's own write API, `POST /api/v3/write_lp`; bounded in time and size by `access.http`.

https://docs.influxdata.com/influxdb3/core/write-data/http-api/v3-write-lp/
"""

from __future__ import annotations

import gzip
import ssl
from typing import Any

import httpx

from metrics_pipeline.access.http import Reply, exchange
from metrics_pipeline.access.http_client import HttpClient

GZIP_LEVEL = 3
"""Line protocol shrinks to a tenth at this level; level 9 takes five times the CPU for little."""


class V3Api:
    """`POST /api/v3/write_lp`; a `database` is made by the server at the first write to it."""

    health_path = "/health"
    authorization_scheme = "Bearer"

    def __init__(
        self, *, url: str, timeout_seconds: float, gzip: bool, tls: ssl.SSLContext
    ) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._gzip = gzip
        self._tls = tls
        self._client: HttpClient | None = None

    def send(self, database: str, lines: bytes, authorization: str | None) -> Reply:
        """Write `lines`; any answer is a Reply. Raises NoReply where there is none in time."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._gzip:
            headers["Content-Encoding"] = "gzip"
            lines = gzip.compress(lines, GZIP_LEVEL)
        if authorization is not None:
            headers["Authorization"] = authorization
        query = httpx.QueryParams({"db": database, "precision": "nanosecond"})
        return exchange(
            self._opened(),
            self._timeout_seconds,
            method="POST",
            url=f"{self._url}/api/v3/write_lp?{query}",
            headers=headers,
            content=lines,
        )

    @property
    def listing(self) -> tuple[str, dict[str, str]]:
        """Path and query of the databases."""
        return "/api/v3/configure/database", {"format": "json"}

    def listing_of(self, _database: str) -> None:
        """The listing has all databases."""
        return

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

    def _opened(self) -> HttpClient:
        if self._client is None:
            self._client = HttpClient(self._tls)
        return self._client
