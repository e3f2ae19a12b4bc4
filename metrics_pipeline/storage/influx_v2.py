"""InfluxDB 2's write API through `influxdb-client`; InfluxDB 1.8 and VictoriaMetrics speak it too.

The client writes synchronously and never retries: its batching mode loses data without raising,
and retries belong to the writer. It is handed ready line protocol.

`timeout_seconds` bounds the connecting to one address of the host and each wait for the next bytes
of the answer (urllib3's timeouts). Not bounded are the look-up of the host name, all addresses
together, the whole answer (a server that sends a byte now and then holds the write up for as long
as it does so), and its size. `check` of this store, and all of version 3, go through `access.http`,
which bounds them.
"""

from __future__ import annotations

import ssl
from http import HTTPStatus
from typing import Any

from metrics_pipeline.access.http import Reply, no_answer, too_slow


class V2Api:
    """`POST /api/v2/write`; a `database` is a bucket of the organization `org`."""

    health_path = "/ping"
    authorization_scheme = "Token"

    def __init__(
        self,
        *,
        url: str,
        org: str,
        timeout_seconds: float,
        gzip: bool,
        tls: ssl.SSLContext,
    ) -> None:
        self._url = url
        self._org = org
        self._timeout_seconds = timeout_seconds
        self._gzip = gzip
        self._tls = tls
        self._client: Any = None  # its methods have no annotations

    def send(self, database: str, lines: bytes, authorization: str | None) -> Reply:
        """Write `lines`; any answer is a Reply. Raises NoReply where there is none."""
        # Loaded at first use: the client takes 0.3 s, which the embedded store need not pay.
        import urllib3  # noqa: PLC0415
        from influxdb_client.client.write_api import SYNCHRONOUS  # noqa: PLC0415
        from influxdb_client.domain.write_precision import WritePrecision  # noqa: PLC0415
        from influxdb_client.rest import ApiException  # noqa: PLC0415

        precision: Any = WritePrecision.NS
        client = self._opened(authorization)
        try:
            client.write_api(write_options=SYNCHRONOUS).write(database, self._org, lines, precision)
        except ApiException as error:
            return self._reply(error)
        except urllib3.exceptions.TimeoutError as error:
            raise too_slow(self._timeout_seconds) from error
        except urllib3.exceptions.HTTPError as error:
            raise no_answer(str(error)) from error
        except UnicodeDecodeError as error:
            raise no_answer("what came is not text") from error
        return Reply(HTTPStatus.NO_CONTENT, {}, b"")

    @property
    def listing(self) -> tuple[str, dict[str, str]]:
        """Path and query of the first 100 buckets."""
        return "/api/v2/buckets", {"org": self._org, "limit": "100"}

    def listing_of(self, database: str) -> tuple[str, dict[str, str]]:
        """For a bucket that may be behind the first 100."""
        return "/api/v2/buckets", {"org": self._org, "name": database}

    def names_in(self, listing: Any) -> set[str]:
        """The buckets in a JSON reply to `listing`."""
        return {bucket["name"] for bucket in listing["buckets"]}

    def how_to_create(self, database: str) -> str:
        """What to do about a bucket that is missing."""
        return (
            f"Create the bucket: influx bucket create --org {self._org} --name {database}, and "
            "check that the url is that of an InfluxDB 2"
        )

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _opened(self, authorization: str | None) -> Any:
        from influxdb_client.client.influxdb_client import InfluxDBClient  # noqa: PLC0415

        if self._client is None:
            self._client = InfluxDBClient(
                self._url,
                token="",  # set below
                org=self._org,
                timeout=int(self._timeout_seconds * 1000),
                enable_gzip=self._gzip,
                ssl_context=self._tls,
                retries=False,
            )
        if authorization is not None:
            # At every write, so that a token that was changed is used without a restart.
            self._client.api_client.set_default_header("Authorization", authorization)
        return self._client

    def _reply(self, error: Any) -> Reply:
        if not error.status:  # what the client makes of a failed TLS handshake
            raise no_answer(f"no TLS connection: {error.reason}") from error
        return Reply(error.status, error.headers, (error.body or "").encode())
