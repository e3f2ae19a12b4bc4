"""A stub, not InfluxDB: answers as InfluxDB 2 and 3 are documented to, and fails when told to.

What a real server does is tested elsewhere (VictoriaMetrics, the engine of InfluxDB 1.6.7). No
server of version 2 or 3 can be installed here, so its answers are written from
https://docs.influxdata.com/influxdb/v2/api/ and
https://docs.influxdata.com/influxdb3/core/write-data/http-api/v3-write-lp/.
"""

from __future__ import annotations

import gzip
import json
import ssl
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request

TOKEN = "stub-token-that-no-message-may-show"
DATABASES = ("tests", "renamed")

POISON = b"poison"
"""A line with this in it is refused, and with it the whole batch (v2) or itself alone (v3)."""


class InfluxStub(LoopbackServer):
    """Keeps the lines it accepts; `max_lines` is the most it takes in one request."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self._scheme = "http" if tls is None else "https"
        self.lines: Counter[tuple[str, bytes]] = Counter()
        """How often each line was written to each database."""
        self.max_lines: int | None = None
        self.databases = set(DATABASES)
        """What is written to others is refused by version 2."""
        self.other_buckets = 0
        """Of somebody else, before ours."""
        self._pages: dict[str, Callable[[Request], Answer]] = {
            "/health": lambda _: Answer(HTTPStatus.OK, b"OK"),
            "/api/v2/buckets": self._buckets,
            "/api/v3/configure/database": lambda _: _json(
                HTTPStatus.OK, [{"iox::database": name} for name in DATABASES]
            ),
            "/api/v2/write": self._write_v2,
            "/api/v3/write_lp": self._write_v3,
        }

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}"

    def respond(self, request: Request) -> Answer:
        if request.path == "/ping":
            return Answer(HTTPStatus.NO_CONTENT, b"")
        scheme = "Bearer" if request.path.startswith(("/api/v3", "/health")) else "Token"
        if request.headers.get("authorization") != f"{scheme} {TOKEN}":
            return _json(HTTPStatus.UNAUTHORIZED, {"code": "unauthorized", "message": "go away"})
        return self._pages[request.path](request)

    def _buckets(self, request: Request) -> Answer:
        """The first page of them, or the one that is asked for."""
        wanted = request.parameters.get("name")
        if wanted is None:
            limit = int(request.parameters["limit"])
            found = [*(f"other-{number}" for number in range(self.other_buckets)), *DATABASES]
            return _json(HTTPStatus.OK, {"buckets": [{"name": name} for name in found[:limit]]})
        if wanted in DATABASES:
            return _json(HTTPStatus.OK, {"buckets": [{"name": wanted}]})
        message = f'bucket "{wanted}" not found'
        return _json(HTTPStatus.NOT_FOUND, {"code": "not found", "message": message})

    def _write_v2(self, request: Request) -> Answer:
        assert request.parameters["precision"] == "ns"
        lines = _lines(request)
        if request.parameters["bucket"] not in self.databases:
            message = f'bucket "{request.parameters["bucket"]}" not found'
            return _json(HTTPStatus.NOT_FOUND, {"code": "not found", "message": message})
        if self._is_too_large(lines):
            return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"")
        if any(POISON in line for line in lines):
            return _json(HTTPStatus.BAD_REQUEST, {"code": "invalid", "message": "unable to parse"})
        self._keep(request.parameters["bucket"], lines)
        return Answer(HTTPStatus.NO_CONTENT, b"")

    def _write_v3(self, request: Request) -> Answer:
        assert request.parameters["precision"] == "nanosecond"
        lines = _lines(request)
        if self._is_too_large(lines):
            return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"")
        self._keep(request.parameters["db"], [line for line in lines if POISON not in line])
        refused = [
            {
                "original_line": line.decode(),
                "line_number": number,
                "error_message": "invalid column type for column 'value', expected "
                "iox::column_type::field::float, got iox::column_type::field::integer",
            }
            for number, line in enumerate(lines, start=1)
            if POISON in line
        ]
        if refused:
            error = "partial write of line protocol occurred"
            return _json(HTTPStatus.BAD_REQUEST, {"error": error, "data": refused})
        return Answer(HTTPStatus.NO_CONTENT, b"")

    def _is_too_large(self, lines: list[bytes]) -> bool:
        return self.max_lines is not None and len(lines) > self.max_lines

    def _keep(self, database: str, lines: list[bytes]) -> None:
        self.lines.update((database, line) for line in lines)


def _lines(request: Request) -> list[bytes]:
    is_compressed = request.headers.get("content-encoding") == "gzip"
    return (gzip.decompress(request.body) if is_compressed else request.body).split(b"\n")


def _json(status: HTTPStatus, document: Any) -> Answer:
    return Answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})
