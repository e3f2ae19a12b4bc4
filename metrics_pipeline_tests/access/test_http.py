"""One request over real sockets: what comes back, what goes wrong, and that it always ends."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.http import MAX_REPLY_BYTES, Reply, ask, retry_after_seconds
from metrics_pipeline.access.http_client import HttpClient, open_client
from metrics_pipeline.core.errors import (
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, NoAnswer, Request
from metrics_pipeline_tests.proxies import name_proxy
from metrics_pipeline_tests.raw_server import Talk, raw_server
from metrics_pipeline_tests.servers import self_signed

SECRET = "the-token-that-no-message-may-show"
TIMEOUT_SECONDS = 0.3


class Echo(LoopbackServer):
    """Answers with the method, the path and the body of the request."""

    def respond(self, request: Request) -> Answer:
        body = f"{request.method} {request.path} ".encode() + request.body
        return Answer(HTTPStatus.OK, body, {"X-Kind": "echo"})


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with closing(open_client(None, "test")) as client:
        yield client


def get(
    client: HttpClient,
    url: str,
    timeout_seconds: float = 30,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    return ask(
        client, "hub", "count", timeout_seconds, method="GET", url=url, headers=headers or {}
    )


def test_an_answer_comes_back_whole(client: HttpClient, echo: Echo) -> None:
    url = f"http://{echo.host}/things"
    reply = ask(client, "hub", "count", 30, method="POST", url=url, headers={}, json={"a": 1})
    assert reply.status == 200
    assert reply.headers["x-kind"] == "echo"
    assert reply.body == b'POST /things {"a":1}'


def test_a_connection_is_used_again(client: HttpClient) -> None:
    def answer_three(talk: Talk) -> None:
        for _ in range(3):
            talk.answer(b"HTTP/1.1 204 No Content\r\n\r\n")

    with raw_server(answer_three) as server:
        for _ in range(3):
            get(client, server.url)
    assert server.connections == 1


def test_no_request_but_the_first_looks_for_a_module(
    client: HttpClient, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(client, f"http://{echo.host}/")
    looked_for: list[str] = []

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            looked_for.append(name)

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert get(client, f"http://{echo.host}/").status == 200
    assert not looked_for


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 404, 413])
def test_other_statuses_are_for_the_caller_to_judge(
    client: HttpClient, echo: Echo, status: int
) -> None:
    echo.faults.append(Answer(status, b"", {"Location": f"http://{echo.host}/elsewhere"}))
    assert get(client, f"http://{echo.host}/").status == status
    assert len(echo.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_is_ill_is_unreachable(client: HttpClient, echo: Echo, status: int) -> None:
    echo.faults.append(Answer(status, b"oops"))
    with pytest.raises(SourceUnreachable, match=f"hub: reading count: HTTP {status}"):
        get(client, f"http://{echo.host}/")


@pytest.mark.parametrize(("given", "expected"), [({"Retry-After": "17"}, 17.0), ({}, None)])
def test_429_says_how_long_to_wait(
    client: HttpClient, echo: Echo, given: Mapping[str, str], expected: float | None
) -> None:
    echo.faults.append(Answer(429, b"", given))
    with pytest.raises(SourceThrottled) as caught:
        get(client, f"http://{echo.host}/")
    assert caught.value.retry_after_seconds == expected


def test_nobody_at_the_address_is_unreachable(client: HttpClient) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but not listening
        with pytest.raises(SourceUnreachable, match="refused"):
            get(client, f"http://127.0.0.1:{bound.getsockname()[1]}/")


def test_a_host_that_cannot_be_looked_up_is_unreachable(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(SourceUnreachable, match="Name or service not known"):
        get(client, "http://hub.example/")


def test_an_answer_that_is_not_http_is_unreachable(client: HttpClient) -> None:
    with (
        raw_server(lambda talk: talk.answer(b"220 mail.example ESMTP\r\n")) as server,
        pytest.raises(SourceUnreachable, match="no answer"),
    ):
        get(client, server.url)


def test_a_connection_that_breaks_in_mid_answer_is_unreachable(client: HttpClient) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    with (
        raw_server(lambda talk: talk.answer(half)) as server,
        pytest.raises(SourceUnreachable, match="no answer"),
    ):
        get(client, server.url)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_an_answer_that_is_too_large_is_given_up(
    client: HttpClient, echo: Echo, is_compressed: bool
) -> None:
    body = b"x" * (MAX_REPLY_BYTES + 1)
    answer = Answer(200, body)
    if is_compressed:
        answer = Answer(200, gzip.compress(body), {"Content-Encoding": "gzip"})
    echo.faults.append(answer)
    with pytest.raises(UnexpectedReply, match=f"more than {MAX_REPLY_BYTES} bytes"):
        get(client, f"http://{echo.host}/")


def test_the_largest_answer_is_read(client: HttpClient, echo: Echo) -> None:
    echo.faults.append(Answer(200, b"x" * MAX_REPLY_BYTES))
    assert len(get(client, f"http://{echo.host}/").body) == MAX_REPLY_BYTES


@pytest.mark.parametrize("ending", ["\n", "\r\nX: y", "\0", "é", "\ud800"])
def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(
    client: HttpClient, echo: Echo, ending: str
) -> None:
    with pytest.raises(SourceRefused) as caught:
        get(client, f"http://{echo.host}/", headers={"authorization": SECRET + ending})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert not echo.requests


@pytest.mark.parametrize("fault", [NoAnswer(), Answer(503, b""), Answer(429, b"")])
def test_no_failure_shows_a_header(client: HttpClient, echo: Echo, fault: Any) -> None:
    echo.faults.append(fault)
    with pytest.raises(SourceError) as caught:
        get(client, f"http://{echo.host}/", TIMEOUT_SECONDS, {"authorization": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_asks_for_a_certificate_is_unreachable(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with (
        Echo(tls=context) as server,
        closing(open_client(certificate, "test")) as client,
        pytest.raises(SourceUnreachable, match=r"no answer \("),
    ):
        get(client, f"https://{server.host}/")


@pytest.mark.parametrize("errors", [1, 2])
def test_hosts_that_refuse_are_said_to_do_so_at_every_address(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, errors: int
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        resolve_to(monkeypatch, "hub.example", *["127.0.0.1"] * errors)
        with pytest.raises(SourceUnreachable, match=r"no answer \(\[Errno 111\] [a-zA-Z ]+\)"):
            get(client, f"http://hub.example:{bound.getsockname()[1]}/")


def test_the_proxy_of_the_environment_is_used(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    name_proxy(monkeypatch, f"http://{echo.host}")
    with closing(open_client(None, "test")) as client:
        assert get(client, "http://hub.example/things").body == b"GET /things "
    assert echo.requests[0].headers["host"] == "hub.example"


def test_inside_of_a_running_event_loop_it_says_what_to_do(client: HttpClient, echo: Echo) -> None:
    async def ask_inside() -> None:
        with pytest.raises(RuntimeError, match=r"running event loop.*asyncio\.to_thread"):
            get(client, f"http://{echo.host}/")
        with pytest.raises(RuntimeError, match="running event loop"):
            client.close()

    asyncio.run(ask_inside())
    assert get(client, f"http://{echo.host}/").status == 200


def test_a_client_can_be_closed_twice_and_then_asks_nothing(client: HttpClient, echo: Echo) -> None:
    get(client, f"http://{echo.host}/")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed: open another one"):
        get(client, f"http://{echo.host}/")
    assert len(echo.requests) == 1


def test_connections_are_closed_with_the_client(client: HttpClient) -> None:
    was_left = threading.Event()

    def wait_for_the_end(talk: Talk) -> None:
        talk.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
        talk.answer(b"")  # waits for the next request, or for the end
        was_left.set()

    with raw_server(wait_for_the_end) as server:
        get(client, server.url)
        assert not was_left.is_set()
        client.close()
        assert was_left.wait(30)


# --- that it ends ---------------------------------------------------------------------------------


def dribble_head(talk: Talk) -> None:
    talk.answer(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    talk.repeat(b"x")


def dribble_status_line(talk: Talk) -> None:
    talk.answer(b"HTTP/1.1 200 ")
    talk.repeat(b"x")


def dribble_body(talk: Talk) -> None:
    talk.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    talk.repeat(b"x")


def dribble_chunks(talk: Talk) -> None:
    talk.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    talk.repeat(b"1\r\nx\r\n")


def continue_for_ever(talk: Talk) -> None:
    talk.answer(b"")
    talk.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")


def dribble_the_second_head(talk: Talk) -> None:
    talk.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
    dribble_head(talk)


DRIBBLES = [dribble_head, dribble_status_line, dribble_body, dribble_chunks, continue_for_ever]


@pytest.mark.parametrize("dribble", DRIBBLES)
def test_a_server_that_dribbles_is_left_at_the_deadline(
    client: HttpClient, dribble: Callable[[Talk], None]
) -> None:
    with raw_server(dribble) as server:
        with pytest.raises(SourceUnreachable, match=r"not answered within 0\.3 s"):
            get(client, server.url, TIMEOUT_SECONDS)
        # It still had much to say, so it was the client that ended it.
        assert server.was_left.wait(30)


def test_the_deadline_holds_for_a_connection_that_is_used_again(client: HttpClient) -> None:
    with raw_server(dribble_the_second_head) as server:
        assert get(client, server.url, 30).status == 204
        with pytest.raises(SourceUnreachable, match="not answered within"):
            get(client, server.url, TIMEOUT_SECONDS)
        assert server.was_left.wait(30)
        assert server.connections == 1


def test_each_request_has_its_own_deadline(client: HttpClient, echo: Echo) -> None:
    url = f"http://{echo.host}/"
    echo.faults.append(NoAnswer())
    with pytest.raises(SourceUnreachable):
        get(client, url, TIMEOUT_SECONDS)
    assert get(client, url).status == 200


def test_a_server_that_says_nothing_is_unreachable(client: HttpClient, echo: Echo) -> None:
    echo.faults.append(NoAnswer())
    with pytest.raises(SourceUnreachable, match="not answered within"):
        get(client, f"http://{echo.host}/", TIMEOUT_SECONDS)


def test_a_tls_handshake_that_never_ends_is_unreachable() -> None:
    with (
        raw_server(Talk.say_nothing) as server,
        closing(HttpClient(ssl.create_default_context())) as client,
        pytest.raises(SourceUnreachable, match="not answered within"),
    ):
        get(client, server.url.replace("http:", "https:"), TIMEOUT_SECONDS)


def test_a_connection_whose_tls_handshake_never_ends_is_closed(client: HttpClient) -> None:
    def dribble_handshake(talk: Talk) -> None:
        talk.answer(b"\x16\x03\x03\x3f\xff")  # a record of TLS with 16383 bytes to come
        talk.repeat(b"x")

    with raw_server(dribble_handshake) as server:
        with pytest.raises(SourceUnreachable, match="not answered within"):
            get(client, server.url.replace("http:", "https:"), TIMEOUT_SECONDS)
        assert server.was_left.wait(30)


def test_an_address_that_drops_every_packet_leaves_time_for_the_next(
    client: HttpClient, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(echo.host.rpartition(":")[2])
    with dropping("127.0.0.2", port):
        resolve_to(monkeypatch, "hub.example", "127.0.0.2", "127.0.0.1")
        assert get(client, f"http://hub.example:{port}/", 2).body == b"GET / "


def test_addresses_that_all_drop_packets_are_tried_within_the_deadline(
    client: HttpClient, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(echo.host.rpartition(":")[2])
    tried: set[str] = set()
    connect = socket.socket.connect

    def record(self: socket.socket, address: Any) -> None:
        tried.add(address[0])
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    resolve_to(monkeypatch, "hub.example", "127.0.0.2", "127.0.0.3", "127.0.0.2")
    with (
        dropping("127.0.0.2", port),
        dropping("127.0.0.3", port),
        pytest.raises(SourceUnreachable, match="not answered within"),
    ):
        get(client, f"http://hub.example:{port}/", 1)
    assert tried == {"127.0.0.2", "127.0.0.3"}


def test_a_look_up_that_never_ends_is_left_at_the_deadline_and_does_not_delay_closing(
    client: HttpClient, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    ended = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        released.wait()
        ended.set()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with pytest.raises(SourceUnreachable, match="not answered within"):
            get(client, "http://hub.example/", TIMEOUT_SECONDS)
        assert get(client, f"http://{echo.host}/").status == 200  # an address needs no look-up
        client.close()
        assert not ended.is_set()
    finally:
        released.set()


@contextmanager
def dropping(address: str, port: int) -> Iterator[None]:
    """Connections to `port` of `address` are never answered: the listener's queue is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((address, port))
        listener.listen(0)
        for queued in (first, second):
            queued.setblocking(False)
            queued.connect_ex((address, port))
        yield


def resolve_to(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> None:
    """Make the resolver of this machine answer with `addresses` for `name`."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *given: Any, **named: Any) -> Any:
        if host not in (name, name.encode()):
            return real(host, port, *given, **named)
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


# --- Retry-After ----------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_retry_after_is_a_number_of_seconds() -> None:
    assert retry_after_seconds({"retry-after": " 120 "}, NOW) == 120


@given(wait=st.integers(-(10**6), 10**6), zone=st.integers(-12, 12))
def test_retry_after_may_be_a_date(wait: int, zone: int) -> None:
    moment = (NOW + timedelta(seconds=wait)).astimezone(timezone(timedelta(hours=zone)))
    assert retry_after_seconds({"retry-after": format_datetime(moment)}, NOW) == max(0, wait)


@given(st.text())
def test_any_other_retry_after_is_none_or_a_wait(text: str) -> None:
    wait = retry_after_seconds({"retry-after": text}, NOW)
    assert wait is None or wait >= 0


@pytest.mark.parametrize("given", ["", "-1", "1.5", "soon", "²", "Thu, 99 Jan 2026 00:00:00 GMT"])
def test_what_is_no_retry_after_is_none(given: str) -> None:
    assert retry_after_seconds({"retry-after": given}, NOW) is None
