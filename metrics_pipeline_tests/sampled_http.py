"""A source to be sampled, over real HTTP: a server's count, as a point of fleet counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from metrics_pipeline.core.errors import SourceUnreachable
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.sampling import Sampled
from metrics_pipeline.simulators.serving_thread import ServingThread

MEASUREMENT, FIELD = "fleet_counts", "device_count"


@dataclass(slots=True)
class CountServer:
    """Notes when each request came, and for which slot. Hangs or refuses when it is told to."""

    url: str = ""
    asked_ns: list[int] = field(default_factory=list)
    slots_ns: list[int] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)
    """Clear: a request waits."""

    is_ill: bool = False

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.slots_ns.append(int(self.path.rpartition("/")[2]))
                server.asked_ns.append(time.time_ns())
                server.answers.wait()
                body = str(len(server.asked_ns)).encode()
                self.send_response(503 if server.is_ill else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                return

        return Handler


@contextmanager
def count_server() -> Iterator[CountServer]:
    """One on loopback, that answers."""
    state = CountServer()
    state.answers.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), state.handler())
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/"
    serving = ServingThread(server)
    serving.start()
    try:
        yield state
    finally:
        state.answers.set()
        serving.end()


class HttpCount:
    """Asks a `CountServer`."""

    def __init__(self, name: str, url: str, timeout_seconds: float) -> None:
        self._name = name
        self._url = url
        self._client = httpx.Client(verify=False, trust_env=False, timeout=timeout_seconds)

    @property
    def name(self) -> str:
        return self._name

    def read(self, time_ns: int) -> Reading:
        try:
            answer = self._client.get(f"{self._url}{time_ns}")
            answer.raise_for_status()
        except httpx.HTTPError as error:
            problem = type(error).__name__
            return Reading((), (SourceUnreachable(self._name, "a count", problem, "Look."),))
        point = Point(MEASUREMENT, {"provider": self._name}, {FIELD: int(answer.text)}, time_ns)
        return Reading((point,))

    def close(self) -> None:
        self._client.close()


def sampled_count(
    name: str, url: str, every_seconds: float = 1, timeout_seconds: float = 20.0
) -> Sampled:
    """The count at `url`, which is sampled."""
    build = partial(HttpCount, name, url, timeout_seconds)
    return Sampled(name, every_seconds, build, f"What {name} counts.", {"http"}, "services/counts")
