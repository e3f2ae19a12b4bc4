"""InfluxDB 1.6.7's storage engine (Debian's `influxdb`) behind the write API of InfluxDB 2.

The engine is real: parsing, types, nanoseconds, overwriting and partial writes are what it does.
The API is not: this shim maps `/api/v2/write` to its `/write`, as InfluxDB 1.8 does itself. A
bucket is a database, the token is checked here, bodies are passed on as they come (also gzip).
The engine can be killed and started again; meanwhile the shim answers 503, as a proxy does.

Of writes at the same moment that are the first of their shard group, 1.6.7 lost one now and then
although it had answered 204 (2 of 400 databases with four writers). So a database is made with one
group for years, and that group is there before anybody writes.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request
from metrics_pipeline_tests.servers import PLAIN_HTTP, answering_url, require, running

TOKEN = "engine-token"
DATABASE = "tests"
SHARD_DURATION = "1000w"
"""The group that holds today's points began in 2013 and ends in 2032."""

CONFIGURATION = """
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:0"
"""


class Influxdb1EngineShim(LoopbackServer):
    """Passes writes on to the engine, a process that `argv` starts."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__()
        self._argv = argv
        self._engine = ExitStack()
        self.engine_url = ""

    @contextmanager
    def engine(self) -> Iterator[None]:
        """The engine runs; whoever kills it starts it again."""
        try:
            self._start()
            yield
        finally:
            self._engine.close()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The engine is killed with SIGKILL; afterwards it starts anew, over the same data."""
        os.kill(self._pid, signal.SIGKILL)
        self._engine.close()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        self._pid = self._engine.enter_context(running(self._argv))
        self.engine_url = answering_url(self._pid, "/ping")

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def respond(self, request: Request) -> Answer:
        if request.path == "/ping":
            return Answer(HTTPStatus.NO_CONTENT, b"")
        if request.headers.get("authorization") != f"Token {TOKEN}":
            return Answer(HTTPStatus.UNAUTHORIZED, b'{"message": "unauthorized access"}')
        if request.path != "/api/v2/write":
            return Answer(HTTPStatus.NOT_FOUND, b'{"message": "path not found"}')
        try:
            reply = self._pass_on(request)
        except httpx.TransportError:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b'{"message": "the engine is away"}')
        return Answer(reply.status_code, reply.content)

    def _pass_on(self, request: Request) -> httpx.Response:
        return PLAIN_HTTP.post(
            f"{self.engine_url}/write",
            params={
                "db": request.parameters["bucket"],
                "precision": request.parameters["precision"],
            },
            headers={k: v for k, v in request.headers.items() if k == "content-encoding"},
            content=request.body,
        )

    def create(self, database: str) -> None:
        """An empty database, whose shard group of today is there."""
        self.query(f"CREATE DATABASE {database} WITH SHARD DURATION {SHARD_DURATION}")
        PLAIN_HTTP.post(
            f"{self.engine_url}/write", params={"db": database}, content=b"first v=1"
        ).raise_for_status()
        self.query("DROP MEASUREMENT first", database)

    def query(self, statement: str, database: str = DATABASE) -> list[dict[str, Any]]:
        """The series that `statement` gives, with timestamps in nanoseconds."""
        reply = PLAIN_HTTP.post(
            f"{self.engine_url}/query",
            params={"q": statement, "db": database, "epoch": "ns"},
        ).raise_for_status()
        (result,) = json.loads(reply.content)["results"]
        if "error" in result:
            raise RuntimeError(f"{statement}: {result['error']}")
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def read(self, measurement: str, database: str = DATABASE) -> list[Point]:
        """All points of `measurement`, each value in its stored type."""
        shown = self.query(f'SHOW FIELD KEYS FROM "{measurement}"', database)
        types: dict[str, str] = dict(shown[0]["values"]) if shown else {}
        return [
            Point(
                measurement,
                {key: value for key, value in series["tags"].items() if value},
                {
                    name: _typed(value, types[name])
                    for name, value in zip(series["columns"][1:], values, strict=True)
                    if value is not None
                },
                time_ns,
            )
            for series in self.query(f'SELECT * FROM "{measurement}" GROUP BY *', database)
            for time_ns, *values in series["values"]
        ]


def _typed(value: FieldValue, stored: str) -> FieldValue:
    # JSON from the engine shows a float that is whole without its point.
    return float(value) if stored == "float" else value


@contextmanager
def influxdb_1_engine(folder: Path) -> Iterator[Influxdb1EngineShim]:
    """The engine with its data in `folder` and an empty database `tests`, behind the shim."""
    folder.mkdir()
    configuration = folder / "influxdb.toml"
    configuration.write_text(CONFIGURATION.format(folder=folder))
    argv = [require("influxd"), "-config", str(configuration)]
    with Influxdb1EngineShim(argv) as shim, shim.engine():
        shim.create(DATABASE)
        yield shim
