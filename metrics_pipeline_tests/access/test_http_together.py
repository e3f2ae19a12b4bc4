"""Several pages at the same moment, over real sockets: none waits for another."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from metrics_pipeline.access.http import NoReply, Page, Reply, ReplyTooLarge, get_together
from metrics_pipeline.access.http_client import HttpClient, open_client
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, NoAnswer, Request
from metrics_pipeline_tests.raw_server import Talk, raw_server

LONG_SECONDS = 30.0
SHORT_SECONDS = 0.3
MAX_BYTES = 1000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Pages(LoopbackServer):
    """Answers with the path; `together` pages wait for each other."""

    def __init__(self, together: int = 1) -> None:
        super().__init__()
        self.all_asked = threading.Barrier(together)

    def respond(self, request: Request) -> Answer:
        self.all_asked.wait(LONG_SECONDS)
        return Answer(200, request.path.encode())

    def page(self, name: str = "page", timeout_seconds: float = LONG_SECONDS) -> Page:
        return Page(f"http://{self.host}/{name}", timeout_seconds, MAX_BYTES)


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with closing(open_client(None, "test")) as client:
        yield client


def bodies(outcomes: list[Reply | NoReply]) -> list[bytes]:
    return [outcome.body if isinstance(outcome, Reply) else b"" for outcome in outcomes]


def test_all_are_asked_at_the_same_moment(client: HttpClient) -> None:
    with Pages(together=12) as server:
        outcomes = get_together(client, [server.page(f"{n}") for n in range(12)])
    assert bodies(outcomes) == [f"/{n}".encode() for n in range(12)]


def test_nothing_to_ask_is_nothing(client: HttpClient) -> None:
    assert get_together(client, []) == []


def test_one_that_hangs_has_no_reply_and_the_others_are_there(client: HttpClient) -> None:
    with Pages() as well, Pages() as hanging:
        hanging.faults.append(NoAnswer())
        outcomes = get_together(
            client, [well.page("a"), hanging.page("b", SHORT_SECONDS), well.page("c")]
        )
    assert bodies(outcomes) == [b"/a", b"", b"/c"]
    assert "not answered within 0.3 s" in str(outcomes[1])


def test_a_page_that_is_too_large_is_left_where_it_is_too_large(client: HttpClient) -> None:
    def pour(talk: Talk) -> None:
        talk.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        talk.repeat(b"x" * 100)

    with raw_server(pour) as server, Pages() as well:
        large, other = get_together(client, [Page(server.url, LONG_SECONDS, 300), well.page()])
        assert server.was_left.wait(LONG_SECONDS)
    assert isinstance(large, ReplyTooLarge)
    assert "more than 300 bytes" in str(large)
    assert isinstance(other, Reply)


def test_a_page_is_not_unpacked(client: HttpClient) -> None:
    packed = gzip.compress(b" " * 50_000_000, 9)
    with Pages() as server:
        server.faults.append(Answer(200, packed, {"Content-Encoding": "gzip"}))
        page = Page(server.page().url, LONG_SECONDS, len(packed))
        assert bodies(get_together(client, [page])) == [packed]
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_redirection_is_not_followed(client: HttpClient) -> None:
    with Pages() as server, Pages() as elsewhere:
        server.faults.append(Answer(302, b"", {"Location": elsewhere.page().url}))
        (outcome,) = get_together(client, [server.page()])
        assert isinstance(outcome, Reply)
        assert outcome.status == 302
        assert not elsewhere.requests


# --- connections that were kept -------------------------------------------------------------------


def answer_once_then_close(talk: Talk) -> None:
    """What a server does whose connection times out just when it is used again."""
    talk.answer(OK)
    talk.answer(b"")


def answer_once(talk: Talk) -> None:
    talk.answer(OK)


@pytest.mark.parametrize("say", [answer_once, answer_once_then_close])
def test_a_kept_connection_that_closes_before_it_is_used_again_or_just_then_is_opened_anew(
    client: HttpClient, say: Callable[[Talk], None]
) -> None:
    with raw_server(say) as server:
        page = Page(server.url, LONG_SECONDS, MAX_BYTES)
        assert [bodies(get_together(client, [page])) for _ in range(3)] == [[b"ok"]] * 3
        assert server.connections == 3


def test_a_new_connection_that_breaks_is_not_opened_again(client: HttpClient) -> None:
    with raw_server(lambda talk: talk.answer(b"")) as server:
        (outcome,) = get_together(client, [Page(server.url, LONG_SECONDS, MAX_BYTES)])
        assert server.connections == 1
    assert isinstance(outcome, NoReply)


def test_both_tries_together_take_no_longer_than_one_may(client: HttpClient) -> None:
    turns = iter([answer_once_then_close, Talk.say_nothing])

    def take_turns(talk: Talk) -> None:
        next(turns)(talk)

    with raw_server(take_turns) as server:
        first = Page(server.url, LONG_SECONDS, MAX_BYTES)
        assert bodies(get_together(client, [first])) == [b"ok"]
        second = Page(server.url, SHORT_SECONDS, MAX_BYTES)
        (outcome,) = get_together(client, [second])
    assert "not answered within 0.3 s" in str(outcome)


# --- look-ups -------------------------------------------------------------------------------------


def test_look_ups_that_hang_do_not_take_the_threads_from_others(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, over = socket.getaddrinfo, threading.Event()
    looked_up: list[str] = []

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        looked_up.append(host.decode())
        if host == b"hanging.test":
            over.wait()
        return really("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with ExitStack() as running:
        running.callback(over.set)
        well = running.enter_context(Pages())
        for _ in range(3):
            # A new connection each time, so that its host is looked up again.
            well.faults.append(Answer(200, b"ok", {"Connection": "close"}))
            port = well.host.rpartition(":")[2]
            outcomes = get_together(
                client,
                [
                    Page("http://hanging.test/", SHORT_SECONDS, MAX_BYTES),
                    Page(f"http://well.test:{port}/", LONG_SECONDS, MAX_BYTES),
                ],
            )
            assert bodies(outcomes) == [b"", b"ok"]
    assert looked_up.count("hanging.test") == 1
    assert looked_up.count("well.test") == 3
