"""What is shared over HTTP: settings, a client with its trust and event loop, JSON in replies."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import ssl
import sys
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, Field

from metrics_pipeline.access.interruption import run_until_signal
from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.core.errors import ConfigurationError, UnexpectedReply

T = TypeVar("T")

if importlib.util.find_spec("sniffio") is None:
    # httpcore imports it several times a request, and where it is not there each is a search.
    sys.modules["sniffio"] = None  # type: ignore[assignment]

USUAL_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0)
"""Those of httpx: a connection that was not used for 5 s is opened anew."""

MOST_LOOK_UPS = 64
"""Host names looked up at the same time by one client."""

# None: straight there, whatever proxy the environment names.
DIRECT: Mapping[str, None] = {"all://127.0.0.1": None, "all://[::1]": None, "all://localhost": None}


class HttpSettings(BaseModel, frozen=True, extra="forbid"):
    """How long a service may take, how often it is asked again, and who vouches for it."""

    request_timeout_seconds: float = Field(
        default=10, gt=0, le=60, description="Seconds one request may take in all."
    )
    deadline_seconds: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="Seconds all requests of one reading may take, with waits. An asset is one "
        "reading, and all readings of a run must fit into the job's max_runtime_seconds.",
    )
    tries: int = Field(
        default=4, ge=1, le=10, description="Tries of a request that fails for the moment."
    )
    ca_file: StatePath | None = Field(
        default=None,
        description="A PEM file of the certificate authorities to trust, instead of the usual.",
    )


class HttpClient:
    """Connections that are kept for the next request, and the event loop they live in.

    httpx bounds single reads only; in an event loop one timer bounds an exchange from the look-up
    of the host to the last byte. For one thread at a time, and for code that is not itself inside
    of an event loop.
    """

    def __init__(self, trusted: ssl.SSLContext, limits: httpx.Limits = USUAL_LIMITS) -> None:
        """Heeds the proxies of the environment, except on loopback; connects at first use."""
        self._client = httpx.AsyncClient(
            mounts=DIRECT,
            verify=trusted,
            timeout=None,  # noqa: S113
            limits=limits,
        )
        self._runner = asyncio.Runner(loop_factory=_open_loop)
        self._is_closed = False

    def run(self, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, T]]) -> T:
        """What `work` returns; it has to bound its time itself.

        RuntimeError inside of a running event loop, and after `close`.
        """
        _refuse_running_loop()
        if self._is_closed:
            raise RuntimeError("this HTTP client was closed: open another one")
        return run_until_signal(self._runner, work(self._client))

    def close(self) -> None:
        """Close the connections and the event loop; once more does nothing.

        RuntimeError inside of a running event loop.
        """
        if self._is_closed:
            return
        _refuse_running_loop()
        self._is_closed = True
        with self._runner:
            self._runner.run(self._client.aclose())


def open_client(
    ca_file: Path | None, where: str, limits: httpx.Limits = USUAL_LIMITS
) -> HttpClient:
    """A client that trusts the authorities in `ca_file`, or the usual ones.

    Raises ConfigurationError, which says `where` the file is named, if it is no such file.
    """
    return HttpClient(trusted_authorities(ca_file, where), limits)


def trusted_authorities(ca_file: Path | None, where: str) -> ssl.SSLContext:
    """TLS that verifies against the authorities in `ca_file`, or the usual ones.

    Raises ConfigurationError, which says `where` the file is named, if it is no such file.
    """
    return _usual_authorities() if ca_file is None else _authorities(ca_file, where)


def parse_json(body: bytes, source: str, target: str) -> Any:
    """The document in `body`, or UnexpectedReply."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UnexpectedReply(source, target, "the reply is not JSON", body) from None


class _LookUps(ThreadPoolExecutor):
    """Threads that look up host names. A look-up cannot be interrupted: who ends leaves it behind.

    Who asks for the same meanwhile waits for that one, so that a host which nobody knows, asked for
    again and again, never takes the threads from the others. Only the process's end waits for it,
    as long as the resolver of this machine tries.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=MOST_LOOK_UPS)
        self._begun: dict[Any, Future[Any]] = {}

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        what = (fn, args, tuple(kwargs.items()))
        begun = self._begun.get(what)
        # One that still waits for a thread may be cancelled by who asked first.
        if begun is not None and begun.running():
            return begun
        self._begun[what] = submitted = super().submit(fn, *args, **kwargs)
        submitted.add_done_callback(lambda done: self._forget(what, done))
        return submitted

    def _forget(self, what: Any, done: Future[Any]) -> None:
        if self._begun.get(what) is done:
            self._begun.pop(what, None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        super().shutdown(wait=False, cancel_futures=True)


def _open_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_LookUps())
    return loop


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "HTTP requests are not made inside of a running event loop, which would stand still: "
        "make them in another thread (asyncio.to_thread)"
    )


@functools.cache
def _usual_authorities() -> ssl.SSLContext:
    # Once a process, for reading them takes longer than most requests.
    return httpx.create_ssl_context()


def _authorities(ca_file: Path, where: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            where,
            f"{ca_file} cannot be used ({error.__class__.__name__})",
            "Give a readable PEM file of certificates.",
        ) from error
