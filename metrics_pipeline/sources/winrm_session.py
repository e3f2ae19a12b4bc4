"""One WS-Man session with one Windows host: one connection, one user, bounded in time and size.

`pypsrp` writes the envelopes and encrypts them, `pyspnego` does NTLM and Kerberos, `requests`
carries it; all of them block, so this runs in a thread. What they leave open is closed here: no
proxy and no netrc of the environment, no redirect (it would take the log-in to another host), no
second connection, no compressed answer, no answer in the clear where the request was encrypted, no
DTD, and a limit on the bytes of a poll.
"""

from __future__ import annotations

import functools
import http.client
import importlib
import io
import logging
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import requests
from pypsrp.exceptions import AuthenticationError, WinRMError, WinRMTransportError
from pypsrp.negotiate import HTTPNegotiateAuth
from pypsrp.wsman import WSMan
from requests.adapters import HTTPAdapter
from spnego.exceptions import (
    BadMICError,
    InvalidCredentialError,
    NoCredentialError,
    SpnegoError,
)
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from metrics_pipeline.core.devices import Miss
from metrics_pipeline.sources.windows_report import (
    ENUMERATION,
    WSMAN,
    Fault,
    NotWsMan,
    Page,
    Query,
    Row,
    fault_in,
    one_line,
    read_fault,
    read_page,
    refuse_dtd,
)

WQL = "http://schemas.microsoft.com/wbem/wsman/1/WQL"
MAX_ELEMENTS = "32000"
MAX_PULLS = 100
"""An answer holds as many rows as fit into 150 KiB, so this is more than 10 MB."""
MAX_POLL_BYTES = 8_000_000
OK = 200
REDIRECTS = range(300, 400)

UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    ET.ParseError,
)
"""What pypsrp and pyspnego raise at an answer that is not built as they expect."""

# pypsrp logs each time-out with a stack trace, and pyspnego, at the lowest level, the log-ins, from
# which a weak password can be guessed. The reading of the device says all there is to say.
for _library in ("pypsrp", "spnego"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


class Lost(Exception):
    """Nothing more can be had from this host now: `miss` says why, `detail` what came back."""

    def __init__(self, miss: Miss, detail: str) -> None:
        super().__init__(detail)
        self.miss = miss
        self.detail = detail


class Refusal(Exception):
    """The host answered one query with a fault; the next one may do better."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to talk to as whom. `name` is in the certificate and in the Kerberos principal."""

    name: str
    port: int
    tls: ssl.SSLContext | None
    user: str
    password: str = field(repr=False)
    auth: str
    timeout_seconds: float


class Line:
    """The connection: how much has come over it in this poll, and whether to give up."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection: socket.socket | None = connection
        # TLS takes the connection's file descriptor; a second one lets another thread end it.
        self._twin = connection.dup()
        self._is_over = False
        self._reader: _CountedReader | None = None
        self.received_bytes = 0

    def take(self) -> socket.socket:
        """The connection, once. Log-ins and keys are tied to it: another would need them anew."""
        connection, self._connection = self._connection, None
        if connection is None:
            raise Lost(Miss.REFUSED, "the host closed the connection between two requests")
        return connection

    def reader(self, connection: socket.socket) -> io.BufferedReader:
        """What reads one answer from `connection`: what was taken, or TLS over it."""
        self._reader = _CountedReader(connection, self)
        return io.BufferedReader(self._reader)

    def count(self, received_bytes: int) -> None:
        """Called after each read: raises Lost when it was too much, or nobody waits any more."""
        self.received_bytes += received_bytes
        if self._is_over:
            raise Lost(Miss.TIMEOUT, "given up: the time for this device was over")
        if self.received_bytes > MAX_POLL_BYTES:
            raise Lost(Miss.PARSE, f"more than {MAX_POLL_BYTES} bytes in one poll")

    def give_up(self) -> None:
        """Called from any thread: whoever waits for this connection stops waiting."""
        self._is_over = True
        with suppress(OSError):
            self._twin.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give back both file descriptors, whatever state urllib3 has left them in."""
        self.give_up()
        self._twin.close()
        if self._connection is not None:
            self._connection.close()
        if self._reader is not None:
            self._reader.close_connection()


class Conversation:
    """Asks one host for rows, one query after the other; for one thread at a time."""

    def __init__(self, peer: Peer, line: Line) -> None:
        """Takes `line` over. ValueError if the peer's name is none a URL can hold."""
        self.line = line
        self._session = _open_session(peer, line)
        seconds = peer.timeout_seconds
        self._wsman = WSMan(
            peer.name,
            port=peer.port,
            username=peer.user,
            password=peer.password,
            ssl=peer.tls is not None,
            auth=peer.auth,
            encryption="auto",
            # Whole seconds on the wire; the floats below are what ends a wait.
            operation_timeout=max(1, int(seconds)),
            connection_timeout=seconds,  # type: ignore[arg-type]
            read_timeout=seconds,  # type: ignore[arg-type]
        )
        self._wsman.transport.session = self._session
        self._wsman.transport = _CheckedTransport(self._wsman.transport)  # type: ignore[assignment]

    def rows(self, query: Query) -> tuple[Row, ...]:
        """All rows of `query`. Raises Refusal if the host will not answer it, Lost if it cannot."""
        page = self._ask(self._wsman.enumerate, query, _enumerate(query.wql))
        rows = list(page.rows)
        for _ in range(MAX_PULLS):
            if page.context is None:
                return tuple(rows)
            page = self._ask(self._wsman.pull, query, _pull(page.context))
            rows += page.rows
        raise Lost(Miss.PARSE, f"{query.class_name}: no end after {MAX_PULLS} pulls")

    def close(self) -> None:
        """Close the connection."""
        self._session.close()
        self.line.close()

    def _ask(self, send: Callable[..., ET.Element], query: Query, element: ET.Element) -> Page:
        try:
            body = send(query.resource_uri, element)
            fault = fault_in(body)
            if fault is None:
                return read_page(body)
        except (Lost, Refusal):
            raise
        except EXPLAINED as error:
            raise _explain(error) from error
        raise Refusal(fault)


def _enumerate(wql: str) -> ET.Element:
    element = ET.Element(f"{{{ENUMERATION}}}Enumerate")
    # Optimized: the answer already holds the first rows.
    ET.SubElement(element, f"{{{WSMAN}}}OptimizeEnumeration")
    ET.SubElement(element, f"{{{WSMAN}}}MaxElements").text = MAX_ELEMENTS
    ET.SubElement(element, f"{{{WSMAN}}}Filter", Dialect=WQL).text = wql
    return element


def _pull(context: str) -> ET.Element:
    element = ET.Element(f"{{{ENUMERATION}}}Pull")
    ET.SubElement(element, f"{{{ENUMERATION}}}EnumerationContext").text = context
    ET.SubElement(element, f"{{{ENUMERATION}}}MaxElements").text = MAX_ELEMENTS
    return element


def _kerberos_errors() -> tuple[type[Exception], ...]:
    """What libkrb5 raises, which pyspnego lets through. Nothing without the extra `kerberos`."""
    try:
        library = importlib.import_module("krb5")
    except ImportError:
        return ()
    return (library.Krb5Error,)


KERBEROS_ERRORS = _kerberos_errors()
NO_KDC = (-1765328228, -1765328230)
"""KRB5_KDC_UNREACH and KRB5_REALM_UNKNOWN (krb5.h)."""

_Kinds = type[BaseException] | tuple[type[BaseException], ...]

MEANINGS: tuple[tuple[_Kinds, Miss, str], ...] = (
    (NotWsMan, Miss.PARSE, "the answer is not WS-Man"),
    (AuthenticationError, Miss.AUTH, "HTTP 401"),
    (ImportError, Miss.CREDENTIAL, "Kerberos needs the extra `kerberos`"),
    ((NoCredentialError, InvalidCredentialError), Miss.CREDENTIAL, "no usable log-in"),
    (BadMICError, Miss.PARSE, "the answer is not encrypted with the keys of this log-in"),
    ((SpnegoError, *KERBEROS_ERRORS), Miss.AUTH, "logging in failed"),
    (ssl.SSLCertVerificationError, Miss.AUTH, "its certificate is not trusted"),
    ((TimeoutError, ReadTimeoutError, requests.Timeout), Miss.TIMEOUT, "no answer in time"),
    (ssl.SSLError, Miss.PARSE, "TLS failed"),
    (ET.ParseError, Miss.PARSE, "the answer is not XML"),
    ((ConnectionError, http.client.RemoteDisconnected), Miss.REFUSED, "it ended the connection"),
    (Exception, Miss.PARSE, "the answer cannot be read"),
)
"""What an error, or one it was made from, means: the first that fits."""

EXPLAINED: tuple[type[Exception], ...] = (
    requests.RequestException,
    HTTPError,
    OSError,
    SpnegoError,
    WinRMError,
    NotWsMan,
    ImportError,
    *KERBEROS_ERRORS,
    *UNREADABLE,
)


def _explain(error: Exception) -> Lost:
    if getattr(error, "err_code", None) in NO_KDC:
        return Lost(Miss.CREDENTIAL, f"no Kerberos ticket: {one_line(str(error))}")
    causes = _causes(error)
    return next(
        Lost(miss, f"{words}: {_words_of(cause)}")
        for kinds, miss, words in MEANINGS
        for cause in causes
        if isinstance(cause, kinds)
    )


def _words_of(error: BaseException) -> str:
    # A LookupError says what was looked up and no more.
    words = "" if isinstance(error, LookupError) else str(error)
    return one_line(words or repr(error))


def _causes(error: BaseException) -> list[BaseException]:
    """`error` and all it was made from: requests and urllib3 keep causes in several places."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            waiting += [getattr(cause, "reason", None), *cause.args]
            waiting += [cause.__cause__, cause.__context__]
    return found


def _open_session(peer: Peer, line: Line) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"User-Agent": "metrics-pipeline", "Accept-Encoding": "identity"})
    adapter = _Adapter(peer, line)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.auth = HTTPNegotiateAuth(
        username=peer.user,
        password=peer.password,
        auth_provider=peer.auth,
        service="WSMAN",
        wrap_required=peer.tls is None,
    )
    return session


class _CheckedTransport:
    """Stands before pypsrp's transport: what passes has no DTD, and errors become ours."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.endpoint: str = inner.endpoint

    def send(self, message: bytes, **options: Any) -> bytes:
        try:
            reply: bytes = self._inner.send(message, **options)
        except WinRMTransportError as error:
            raise _refusal(error.code, error.response_text.encode()) from None
        refuse_dtd(reply)
        return reply


def _refusal(status: int, reply: bytes) -> Exception:
    """What an answer with an HTTP error means: a fault, or not even that."""
    with suppress(NotWsMan):
        fault = read_fault(reply)
        if fault is not None:
            return Refusal(fault)
    return Lost(Miss.REFUSED, f"HTTP {status}: {one_line(reply)!r}")


class _Adapter(HTTPAdapter):
    """Sends over the one connection, and looks at the head of each answer."""

    def __init__(self, peer: Peer, line: Line) -> None:
        super().__init__()
        self._is_in_clear = peer.tls is None
        self._pool: HTTPConnectionPool
        if peer.tls is None:
            self._pool = HTTPConnectionPool(peer.name, peer.port, maxsize=1)
            self._pool.ConnectionCls = functools.partial(_Plain, line)  # type: ignore[assignment]
        else:
            self._pool = HTTPSConnectionPool(peer.name, peer.port, maxsize=1, ssl_context=peer.tls)
            self._pool.ConnectionCls = functools.partial(_Tls, line)  # type: ignore[assignment]

    def get_connection_with_tls_context(self, *_request: Any, **_options: Any) -> Any:
        return self._pool

    def cert_verify(self, *_request: Any, **_options: Any) -> None:
        """The context of the pool verifies; requests would add certificates to it."""

    def close(self) -> None:
        super().close()
        self._pool.close()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        response = super().send(request, *args, **kwargs)
        kind = response.headers.get("content-type", "")
        if response.status_code in REDIRECTS:
            where = one_line(response.headers.get("location", "nowhere"))
            raise Lost(Miss.REFUSED, f"HTTP {response.status_code}: it redirects to {where!r}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise Lost(Miss.PARSE, "a compressed answer, which nobody asked for")
        is_encrypted = kind.startswith(("multipart/encrypted;", "multipart/x-multi-encrypted;"))
        if self._is_in_clear and request.body and response.status_code == OK and not is_encrypted:
            raise Lost(Miss.PARSE, f"an answer in the clear to an encrypted request, {kind!r}")
        # Without this, requests would guess from the text, which takes seconds for megabytes.
        response.encoding = "utf-8"
        return response


class _OverLine:
    """A connection of urllib3 over a socket that is there already; counts what it reads."""

    timeout: float | None

    def __init__(self, line: Line, **options: Any) -> None:
        super().__init__(**options)
        self._line = line

    def _new_conn(self) -> socket.socket:
        # The method that urllib3's own SOCKS support overrides to bring a socket.
        connection = self._line.take()
        connection.settimeout(self.timeout)
        return connection

    def response_class(self, connection: socket.socket, **options: Any) -> Any:
        """What http.client reads an answer with."""
        counted: Any = _CountedSocket(connection, self._line)
        return http.client.HTTPResponse(counted, **options)


class _Plain(_OverLine, HTTPConnection):  # type: ignore[misc]
    pass


class _Tls(_OverLine, HTTPSConnection):  # type: ignore[misc]
    pass


class _CountedSocket:
    """As much of a socket as http.client.HTTPResponse uses."""

    def __init__(self, connection: socket.socket, line: Line) -> None:
        self._connection = connection
        self._line = line

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._line.reader(self._connection)


class _CountedReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, line: Line) -> None:
        self._sock = connection  # pypsrp finds the certificate for the channel binding here
        self._inner = connection.makefile("rb", buffering=0)
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        received = self._inner.readinto(buffer)
        self._line.count(received or 0)
        return received

    def close(self) -> None:
        self._inner.close()
        super().close()

    def close_connection(self) -> None:
        """Close it now; a socket alone waits for the last of its readers to go."""
        self.close()
        self._sock.close()
