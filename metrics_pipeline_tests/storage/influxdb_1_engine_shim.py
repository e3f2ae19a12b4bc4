"""InfluxDB 1.6.7's storage engine (Debian's `influxdb`) behind the write API of InfluxDB 2.

The engine is real: parsing, types, nanoseconds, overwriting and partial writes are what it does.
The API is not: this shim maps `/api/v2/write` to its `/write`, as InfluxDB 1.8 does itself. A
bucket is a database, the token is checked here, bodies are passed on as they come (also gzip).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request
from metrics_pipeline_tests.servers import PLAIN_HTTP, answering_url, require, running

TOKEN = "engine-token"

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
    """Passes writes on to the engine at `engine_url`."""

    def __init__(self, engine_url: str) -> None:
        super().__init__()
        self.engine_url = engine_url

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
        reply = PLAIN_HTTP.post(
            f"{self.engine_url}/write",
            params={
                "db": request.parameters["bucket"],
                "precision": request.parameters["precision"],
            },
            headers={k: v for k, v in request.headers.items() if k == "content-encoding"},
            content=request.body,
        )
        return Answer(reply.status_code, reply.content)

    def query(self, statement: str) -> list[dict[str, Any]]:
        """The series that `statement` gives, with timestamps in nanoseconds."""
        reply = PLAIN_HTTP.post(
            f"{self.engine_url}/query",
            params={"q": statement, "db": "tests", "epoch": "ns"},
        ).raise_for_status()
        (result,) = json.loads(reply.content)["results"]
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def read(self, measurement: str) -> list[Point]:
        """All points of `measurement`, each value in its stored type."""
        shown = self.query(f'SHOW FIELD KEYS FROM "{measurement}"')
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
            for series in self.query(f'SELECT * FROM "{measurement}" GROUP BY *')
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
    with (
        running(argv) as pid,
        Influxdb1EngineShim(answering_url(pid, "/ping")) as shim,
    ):
        shim.query("CREATE DATABASE tests")
        yield shim
