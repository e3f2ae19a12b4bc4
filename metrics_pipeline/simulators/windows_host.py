"""A WS-Man peer in the shape of a Windows host: real log-ins and encryption, invented figures.

Its security is pyspnego's acceptor, so that the SPNEGO and NTLMv2 handshakes, the channel binding
over TLS and the encryption of each message over plain HTTP are real. It proves transport,
authentication, envelopes, paging and how faults are met. It does not prove what Windows answers:
its envelopes are written after recorded ones (see `sources/windows_report.py`), its rows are made
up, and it knows only the classes this product asks for.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import socket
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any, Self
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import spnego
from pypsrp.encryption import WinRMEncryption
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError

from metrics_pipeline.simulators.loopback_server import Answer, NoAnswer
from metrics_pipeline.simulators.serving_thread import ServingThread

PATH = "/wsman"
USERS_VARIABLE = "NTLM_USER_FILE"
MAX_BODY_BYTES = 1_000_000
IDLE_CONNECTION_SECONDS = 60
REMEMBERED_REQUESTS = 1000
ENUMERATION = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
WSMAN = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
ACCESS_DENIED, CANNOT_PROCESS_FILTER = 2150859012, 2150858778
MISSING_MESSAGE = "The specified class does not exist in the given namespace."
DENIED_MESSAGE = "The WMI service returned an 'access denied' error."

Row = Mapping[str, str | datetime | None]
"""Properties; None is nil."""


@dataclass(frozen=True, slots=True)
class SoapFault:
    """A fault: the host answers with HTTP 500 and this."""

    code: int
    message: str
    subcode: str = "w:InternalError"


@dataclass(frozen=True, slots=True)
class Reply:
    """A fault: the host answers with these bytes instead of an envelope, encrypted if need be.

    `%MESSAGE_ID%` in it becomes the id of the request.
    """

    body: bytes
    status: int = HTTPStatus.OK


Fault = Answer | NoAnswer | SoapFault | Reply | None
"""What one WS-Man request gets instead of its answer; None is the true answer. An Answer is sent
as it is, never encrypted."""


@contextmanager
def ntlm_users(folder: Path, users: Mapping[str, str]) -> Iterator[None]:
    """While it lasts, hosts of this process let `users` in: names (`DOMAIN\\user`) to passwords.

    Neither may hold a colon, which is what pyspnego's file of users separates them with.
    """
    path = folder / "ntlm-users"
    rows = (f"{user.rpartition(chr(92))[0]}:{_short(user)}:{users[user]}\n" for user in users)
    path.write_text("".join(rows), encoding="utf-8")
    before = os.environ.get(USERS_VARIABLE)
    # pyspnego's acceptor takes its users from nowhere else.
    os.environ[USERS_VARIABLE] = str(path)
    try:
        yield
    finally:
        os.environ.pop(USERS_VARIABLE)
        if before is not None:
            os.environ[USERS_VARIABLE] = before


def _short(user: str) -> str:
    return user.rpartition("\\")[2]


@dataclass
class Machine:
    """The figures of one host; they change with `clock` (seconds). Change any of them at will."""

    clock: Callable[[], float] = time.monotonic
    memory_kb: int = 16_777_216
    disks: dict[str, tuple[int, int | None]] = field(
        default_factory=lambda: {"C:": (256_000_000_000, 64_000_000_000), "E:": (0, None)}
    )
    """Letter to size and free bytes; one that is locked has neither."""
    interfaces: tuple[str, ...] = (
        "Intel[R] Ethernet Connection X722",
        "isatap.example.org",
        "Teredo Tunneling Pseudo-Interface",
        "Local Area Connection* 11",
    )
    temperatures: tuple[int, ...] = (3012, 3182)
    """Tenths of a Kelvin."""
    boot_age_seconds: float = 86_400.0
    clock_error_seconds: float = 0.0
    """How far ahead the host's clock is of the true time."""

    def __post_init__(self) -> None:
        self._start = self.clock()
        ahead = self.clock_error_seconds - self.boot_age_seconds
        self._booted = datetime.now(UTC) + timedelta(seconds=ahead)

    def rows(self, class_name: str) -> Sequence[Row] | None:
        """The instances of a class now; None if there is no such class."""
        age = self.clock() - self._start
        makers = {
            "Win32_PerfFormattedData_PerfOS_Processor": self._processor,
            "Win32_OperatingSystem": self._operating_system,
            "Win32_LogicalDisk": self._disks,
            "Win32_PerfRawData_Tcpip_NetworkInterface": self._interfaces,
            "MSAcpi_ThermalZoneTemperature": self._thermal_zones,
        }
        return makers[class_name](age) if class_name in makers else None

    def _processor(self, age: float) -> Sequence[Row]:
        return [{"PercentProcessorTime": str(round(40 + 30 * math.sin(age / 60)))}]

    def _operating_system(self, age: float) -> Sequence[Row]:
        free = round(self.memory_kb * (0.4 + 0.1 * math.cos(age / 120)))
        return [
            {
                "TotalVisibleMemorySize": str(self.memory_kb),
                "FreePhysicalMemory": str(free),
                "LastBootUpTime": self._booted,
                "LocalDateTime": self._booted + timedelta(seconds=self.boot_age_seconds + age),
            }
        ]

    def _disks(self, _age: float) -> Sequence[Row]:
        return [
            {
                "DeviceID": letter,
                "Size": str(size) if size else None,
                "FreeSpace": None if free is None else str(free),
            }
            for letter, (size, free) in self.disks.items()
        ]

    def _interfaces(self, age: float) -> Sequence[Row]:
        received = 5_000_000_000 + int(125_000 * age)
        return [
            {
                "Name": name,
                "BytesReceivedPersec": str(received),
                "BytesSentPersec": str(received // 4),
            }
            for name in self.interfaces
        ]

    def _thermal_zones(self, _age: float) -> Sequence[Row]:
        return [{"CurrentTemperature": str(tenths)} for tenths in self.temperatures]


class WindowsHost:
    """Listens on `address` as soon as it exists, answers as a context manager.

    With `certificate` (PEM with its key) it is HTTPS and insists on the channel binding; without,
    HTTP, and every message has to be encrypted. Users: `ntlm_users`.
    """

    def __init__(
        self, address: str = "127.0.0.1", port: int = 0, certificate: Path | None = None
    ) -> None:
        self.machine = Machine()
        self.faults: deque[Fault] = deque()
        """The next WS-Man requests get these, one each."""
        self.requests: deque[str] = deque(maxlen=REMEMBERED_REQUESTS)
        """`Enumerate CLASS` or `Pull`, once the user is let in."""
        self.denied: set[str] = set()
        """Classes this user may not see."""
        self.missing: set[str] = set()
        """Classes this host does not have."""
        self.first_rows = 1
        """Rows in the first answer; recorded Windows hosts give one there, the rest when pulled."""
        self.page_rows = 100
        """Rows in each pull."""
        self.is_endless = False
        """Whether a pull never says that it was the last."""
        self.closes_after: int | None = None
        """HTTP requests after which a connection is closed without a word; None is never."""
        self.logins = 0
        self.connections = 0
        self.stopped = threading.Event()
        self.bindings = _bindings_of(certificate)
        self._contexts: dict[str, list[Row]] = {}
        self._server = _Server((address, port), self, _tls_of(certificate))
        self._serving = ServingThread(self._server)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def __enter__(self) -> Self:
        self._serving.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stopped.set()
        self._serving.end()

    def respond(self, envelope: bytes) -> Reply | Answer | NoAnswer:
        """What a WS-Man request gets: the next fault, or the true answer."""
        root = ET.fromstring(envelope)  # noqa: S314 -- our own client's
        message_id = root.findtext(f".//{{{ADDRESSING}}}MessageID") or ""
        wql = root.findtext(f".//{{{WSMAN}}}Filter")
        name = "" if wql is None else wql.partition(" FROM ")[2].partition(" ")[0]
        self.requests.append(f"Enumerate {name}" if name else "Pull")
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, SoapFault):
            return _fault_reply(fault, message_id)
        if isinstance(fault, Reply):
            return Reply(fault.body.replace(b"%MESSAGE_ID%", message_id.encode()), fault.status)
        if fault is not None:
            return fault
        context = root.findtext(f".//{{{ENUMERATION}}}EnumerationContext")
        return self._enumerate(name, message_id) if name else self._pull(context or "", message_id)

    def _enumerate(self, name: str, message_id: str) -> Reply:
        rows = None if name in self.missing else self.machine.rows(name)
        if name in self.denied:
            return _fault_reply(SoapFault(ACCESS_DENIED, DENIED_MESSAGE), message_id)
        if rows is None:
            subcode = "n:CannotProcessFilter"
            fault = SoapFault(CANNOT_PROCESS_FILTER, MISSING_MESSAGE, subcode)
            return _fault_reply(fault, message_id)
        context = f"uuid:{uuid.uuid4()}".upper()
        self._contexts[context] = list(rows)
        return Reply(_page("Enumerate", message_id, context, self._next(context, self.first_rows)))

    def _pull(self, context: str, message_id: str) -> Reply:
        if context not in self._contexts:
            fault = SoapFault(2150858779, "The enumeration context is not valid.")
            return _fault_reply(fault, message_id)
        return Reply(_page("Pull", message_id, context, self._next(context, self.page_rows)))

    def _next(self, context: str, count: int) -> tuple[Sequence[Row], bool]:
        rows = self._contexts[context]
        page, rest = rows[:count], rows[count:]
        self._contexts[context] = rows if self.is_endless else rest
        is_last = not rest and not self.is_endless
        if is_last:
            del self._contexts[context]
        return page, is_last


def _page(action: str, message_id: str, context: str, page: tuple[Sequence[Row], bool]) -> bytes:
    """An EnumerateResponse or a PullResponse, whose items are in different namespaces."""
    rows, is_last = page
    items = "w" if action == "Enumerate" else "n"
    fragments = "".join(_fragment(row) for row in rows)
    end = f"<{items}:EndOfSequence/>" if is_last else ""
    shown = "" if is_last else context
    body = (
        f"<n:{action}Response><n:EnumerationContext>{shown}</n:EnumerationContext>"
        f"<{items}:Items>{fragments}</{items}:Items>{end}</n:{action}Response>"
    )
    return _envelope(f"{ENUMERATION}/{action}Response", message_id, body)


def _fragment(row: Row) -> str:
    inner = "".join(
        f'<{name} xsi:nil="true"/>' if value is None else f"<{name}>{_text(value)}</{name}>"
        for name, value in row.items()
    )
    schema = "http://www.w3.org/2001/XMLSchema-instance"
    return f'<w:XmlFragment xmlns:xsi="{schema}">{inner}</w:XmlFragment>'


def _text(value: str | datetime) -> str:
    if isinstance(value, datetime):
        return f"<Datetime>{value:%Y-%m-%dT%H:%M:%S.%fZ}</Datetime>"
    return escape(value)


def _envelope(action: str, message_id: str, body: str) -> bytes:
    return (
        '<s:Envelope xml:lang="en-US" xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
        f' xmlns:a="{ADDRESSING}" xmlns:n="{ENUMERATION}" xmlns:w="{WSMAN}"><s:Header>'
        f"<a:Action>{action}</a:Action><a:MessageID>uuid:{uuid.uuid4()}</a:MessageID>"
        f"<a:To>{ADDRESSING}/role/anonymous</a:To><a:RelatesTo>{message_id}</a:RelatesTo>"
        f"</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def _fault_reply(fault: SoapFault, message_id: str) -> Reply:
    """As Windows nests it: the service's words outside, those of the WMI provider inside."""
    schema = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"
    inner = f'<f:WSManFault xmlns:f="{schema}" Code="{fault.code}" Machine="simulated">'
    detail = (
        f'{inner}<f:Message><f:ProviderFault provider="WMI Provider" path="WsmWmiPl.dll">'
        f"{inner}<f:Message>{escape(fault.message)} </f:Message></f:WSManFault>"
        "</f:ProviderFault></f:Message></f:WSManFault>"
    )
    body = (
        f"<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{fault.subcode}"
        "</s:Value></s:Subcode></s:Code><s:Reason>"
        '<s:Text xml:lang="en-US">The service cannot process the request.</s:Text></s:Reason>'
        f"<s:Detail>{detail}</s:Detail></s:Fault>"
    )
    action = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"
    return Reply(_envelope(action, message_id, body), HTTPStatus.INTERNAL_SERVER_ERROR)


def _tls_of(certificate: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def _bindings_of(certificate: Path | None) -> GssChannelBindings | None:
    """`tls-server-end-point` (RFC 5929 section 4) of a certificate signed with SHA-256."""
    if certificate is None:
        return None
    pem = certificate.read_text(encoding="utf-8").partition("-----END CERTIFICATE-----")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[0] + pem[1])).digest()
    return GssChannelBindings(application_data=b"tls-server-end-point:" + digest)


class _Server(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], owner: WindowsHost, tls: ssl.SSLContext | None
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.owner = owner
        if tls is not None:
            # The handshake is left to the connection's own thread: it may never come.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def get_request(self) -> tuple[Any, Any]:
        self.owner.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away or trust another certificate."""


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1; one instance for each connection, which is what a log-in is tied to."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_CONNECTION_SECONDS
    wbufsize = -1  # one packet for head and body

    def setup(self) -> None:
        super().setup()
        self._login: Any = None
        self._encryption: WinRMEncryption | None = None
        self._served = 0

    def do_POST(self) -> None:
        self._served += 1
        length = self.headers.get("content-length", "0")
        body = self.rfile.read(min(int(length), MAX_BODY_BYTES))
        if self.path != PATH:
            self._send(HTTPStatus.NOT_FOUND, b"", {})
            return
        token = re.fullmatch("Negotiate (.+)", self.headers.get("authorization", ""))
        if token is not None:
            self._step(base64.b64decode(token[1]), body)
        elif self._encryption is None:
            self._challenge("Negotiate")
        else:
            self._serve(body)
        if self._served == self.server.owner.closes_after:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are in `WindowsHost.requests`; the terminal stays quiet."""

    def _step(self, token: bytes, body: bytes) -> None:
        """One round of the log-in; the last one serves the request that came with it."""
        try:
            self._login = self._login or spnego.server(
                channel_bindings=self.server.owner.bindings,
                options=spnego.NegotiateOptions.wrapping_winrm,
            )
            answer = self._login.step(token)
        except SpnegoError:
            self._login = None
            self._challenge("Negotiate")
            return
        mark = "Negotiate" + (f" {base64.b64encode(answer).decode()}" if answer else "")
        if not self._login.complete:
            self._challenge(mark)
            return
        self._encryption = WinRMEncryption(self._login, WinRMEncryption.SPNEGO)
        self._login = None
        self.server.owner.logins += 1
        self._serve(body, {"WWW-Authenticate": mark})

    def _challenge(self, mark: str) -> None:
        self._send(HTTPStatus.UNAUTHORIZED, b"", {"WWW-Authenticate": mark})

    def _serve(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        assert self._encryption is not None
        if self._is_tls:
            envelope = body
        elif "multipart/encrypted" in self.headers.get("content-type", ""):
            envelope = self._encryption.unwrap_message(body, "Encrypted Boundary")
        else:
            # The empty message of a log-in; anything else in the clear is not taken either.
            status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE if body else HTTPStatus.OK
            self._send(status, b"", headers or {})
            return
        self._answer(self.server.owner.respond(envelope), headers or {})

    @property
    def _is_tls(self) -> bool:
        return isinstance(self.connection, ssl.SSLSocket)

    def _answer(self, answer: Reply | Answer | NoAnswer, headers: Mapping[str, str]) -> None:
        if isinstance(answer, NoAnswer):
            self.close_connection = True
            self.server.owner.stopped.wait(IDLE_CONNECTION_SECONDS)
        elif isinstance(answer, Answer):
            self._send(answer.status, answer.body, answer.headers, answer.seconds_per_byte)
        elif self._is_tls:
            soap = {"Content-Type": "application/soap+xml;charset=UTF-8"}
            self._send(answer.status, answer.body, {**headers, **soap})
        else:
            assert self._encryption is not None
            kind, wrapped = self._encryption.wrap_message(answer.body)
            protocol = f'{kind};protocol="{WinRMEncryption.SPNEGO}"'
            mime = {"Content-Type": f'{protocol};boundary="Encrypted Boundary"'}
            self._send(answer.status, wrapped, {**headers, **mime})

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str], seconds_per_byte: float = 0.0
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        pieces = [body[i : i + 1] for i in range(len(body))] if seconds_per_byte else [body]
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()
            if seconds_per_byte and self.server.owner.stopped.wait(seconds_per_byte):
                return
