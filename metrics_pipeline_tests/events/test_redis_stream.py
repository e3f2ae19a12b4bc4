"""Events in a real Redis, which is restarted in the middle."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.redis_address import Address, parse_address
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.events import Event, NotAnEvent, connection_established, read_event
from metrics_pipeline.events.following import follow, open_follower
from metrics_pipeline.events.publisher import EventPublisher
from metrics_pipeline.events.redis_stream import RedisStream
from metrics_pipeline.events.settings import RedisStreamSettings
from metrics_pipeline.events.stream_following import AT_ONCE, StreamFollower
from metrics_pipeline.events.transport import TransportUnavailable
from metrics_pipeline_tests.redis_server import PASSWORD, RedisServer
from metrics_pipeline_tests.servers import self_signed, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """With a password, as it should have."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), password=PASSWORD).start()
    yield server
    server.stop()


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[RedisServer]:
    """Of this test's own: it keeps what it has acknowledged, as a production server may."""
    server = RedisServer(tmp_path, keeps=True).start()
    yield server
    server.stop()


def settings(url: str, folder: Path, **more: Any) -> RedisStreamSettings:
    """The address is in a file, and the stream is this test's own."""
    (folder / "url").write_text(url)
    secret = SecretReference(file=folder / "url")
    given: dict[str, Any] = {"stream": folder.name, "timeout_seconds": 1.0, **more}
    return RedisStreamSettings(kind="redis_stream", url=secret, **given)


def an_event(number: int) -> Event:
    return connection_established(f"robot-{number}", connection_id="c", connected_at=time.time())


def robots(found: Sequence[Event | NotAnEvent]) -> list[str]:
    return [each.payload["robot_id"] for each in found if isinstance(each, Event)]


def read_all(follower: StreamFollower) -> list[Event | NotAnEvent]:
    """Everything there is."""
    found: list[Event | NotAnEvent] = []
    while more := follower.read():
        found += more
    return found


def test_every_event_is_an_entry_whose_field_is_its_json(
    server: RedisServer, tmp_path: Path
) -> None:
    given = settings(server.url, tmp_path)
    publisher = EventPublisher(lambda: RedisStream(given))
    for number in range(1000):
        publisher.publish(an_event(number))
    publisher.close(timeout_seconds=30)
    assert (publisher.published, publisher.dropped) == (1000, {})
    with server.client as client:
        entries = client.xrange(given.stream)
    assert [list(fields) for _, fields in entries] == [[b"event"]] * 1000
    found = [read_event(fields[b"event"]) for _, fields in entries]
    assert robots(found) == [f"robot-{number}" for number in range(1000)]


def test_the_stream_is_trimmed_to_about_its_length(server: RedisServer, tmp_path: Path) -> None:
    stream = RedisStream(settings(server.url, tmp_path, max_length=100))
    for _ in range(5):
        stream.send([an_event(number).to_json() for number in range(500)])
    assert 100 <= int(stream.check().rpartition(": ")[2].split()[0]) <= 300
    stream.close()


def test_a_stream_is_followed_from_a_moment_on(server: RedisServer, tmp_path: Path) -> None:
    given = settings(server.url, tmp_path)
    stream = RedisStream(given)
    with server.client as client:
        client.xadd(given.stream, {"event": an_event(1).to_json()}, id="1000-0")
        client.xadd(given.stream, {"event": an_event(2).to_json()}, id="2000-0")
    stream.send([an_event(3).to_json()])
    for since, expected in ((0.0, [1, 2, 3]), (2.0, [2, 3]), (2.001, [3])):
        follower = StreamFollower(given, since)
        assert robots(read_all(follower)) == [f"robot-{number}" for number in expected]
        assert follower.is_caught_up
        follower.close()
    stream.close()


def test_who_asks_once_gets_an_end_though_events_keep_coming(
    server: RedisServer, tmp_path: Path
) -> None:
    given = settings(server.url, tmp_path)
    stream = RedisStream(given)
    numbers = iter(range(AT_ONCE + 3))
    stream.send([an_event(next(numbers)).to_json() for _ in range(AT_ONCE + 1)])
    follower = open_follower(given, since=0.0)
    seen = []
    for event in follow(follower, [], pytest.fail, once=True):
        seen.append(event.payload["robot_id"])
        if len(seen) > AT_ONCE:  # whoever has read the last finds another
            stream.send([an_event(next(numbers)).to_json()])
    assert seen == [f"robot-{number}" for number in range(AT_ONCE + 1)]
    follower.close()
    stream.close()


def test_a_restart_in_the_middle_loses_and_doubles_nothing_that_was_acknowledged(
    restarted: RedisServer, tmp_path: Path
) -> None:
    given = settings(restarted.url, tmp_path)
    publisher = EventPublisher(lambda: RedisStream(given))
    follower = open_follower(given, since=0.0)
    told: list[str] = []
    following = follow(follower, [], told.append)
    for number in range(50):
        publisher.publish(an_event(number))
    seen = [next(following) for _ in range(50)]
    restarted.stop()
    for number in range(50, 100):
        publisher.publish(an_event(number))
    restarted.start()
    seen += [next(following) for _ in range(50)]
    publisher.close(timeout_seconds=30)
    follower.close()
    assert [each.payload["robot_id"] for each in seen] == [f"robot-{n}" for n in range(100)]
    assert (publisher.published, publisher.dropped) == (100, {})


def test_a_stream_that_was_lost_with_its_server_is_followed_from_its_new_beginning(
    tmp_path: Path,
) -> None:
    server = RedisServer(tmp_path).start()
    try:
        given = settings(server.url, tmp_path)
        with server.client as client:  # its clock was ahead
            client.xadd(given.stream, {"event": an_event(1).to_json()}, id=f"{2**45}-0")
        follower = StreamFollower(given, since=0.0)
        assert robots(read_all(follower)) == ["robot-1"]
        server.stop()
        with pytest.raises(TransportUnavailable, match="Check that Redis runs"):
            follower.read()
        server.start()
        stream = RedisStream(given)
        stream.send([an_event(2).to_json()])
        assert robots(read_all(follower)) == ["robot-2"]
        follower.close()
        stream.close()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("redis://:wrong-secret@127.0.0.1:{port}/0", "Check user and password"),
        ("redis://127.0.0.1:{port}/0", "Check user and password"),
        ("redis://:{password}@127.0.0.1:{port}/99", "Look at the Redis server"),
        ("redis://:{password}@127.0.0.1:1/0", "Check that Redis runs"),
        ("redis://:{password}@redis..svc:{port}/0", "Check that Redis runs"),
    ],
)
def test_a_server_that_says_no_is_told_with_what_to_do_and_without_the_secret(
    server: RedisServer, tmp_path: Path, url: str, fix: str
) -> None:
    given = settings(url.format(port=server.port, password=PASSWORD), tmp_path)
    stream = RedisStream(given)
    with pytest.raises(TransportUnavailable, match=fix) as caught:
        stream.send([an_event(1).to_json()])
    for text in (str(caught.value), repr(given), stream.name):
        assert PASSWORD not in text
        assert "wrong-secret" not in text


@pytest.mark.parametrize("url", ["http://me:hunter2@x", "hunter2", "redis://:hunter2@host:port"])
def test_what_is_no_address_is_told_and_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="expected redis://") as caught:
        RedisStream(settings(url, tmp_path)).check()
    assert "hunter2" not in f"{caught.value}"


def test_a_user_a_database_and_options_are_those_of_the_address(
    server: RedisServer, tmp_path: Path
) -> None:
    with server.client as client:
        client.execute_command(
            "ACL", "SETUSER", "adds", "on", ">p/w@:", "+xadd", "+multi", "+exec", "+select", "~*"
        )
    at = f"127.0.0.1:{server.port}"
    urls = [
        f"redis://adds:p%2Fw%40%3A@{at}/1",
        f"redis://default:{PASSWORD}@{at}/2",
        f"redis://:{PASSWORD}@{at}/3?socket_keepalive=yes",
    ]
    for url in urls:
        stream = RedisStream(settings(url, tmp_path))
        stream.send([an_event(1).to_json()])
        stream.close()
    with server.client as client:
        for number in (1, 2, 3):
            client.execute_command("SELECT", number)
            assert client.xlen(tmp_path.name) == 1
    stream = RedisStream(settings(f"redis://adds:p%2Fw%40%3A@{at}", tmp_path))
    with pytest.raises(TransportUnavailable, match=r"NOPERM.*Check user and password"):
        stream.check()
    stream.close()


def test_a_socket_of_this_machine_is_an_address() -> None:
    with TemporaryDirectory() as short:
        server = RedisServer(Path(short), password=PASSWORD).start()
        try:
            stream = RedisStream(settings(f"unix://:{PASSWORD}@{server.socket}", Path(short)))
            assert stream.check().endswith(f"{server.socket}: 0 events are kept")
            stream.close()
        finally:
            server.stop()


def test_with_tls_only_a_server_whose_certificate_is_trusted_hears_anything(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = self_signed(tmp_path, "localhost")
    with tls_before(server, pem) as port:
        stream = RedisStream(settings(f"rediss://:{PASSWORD}@localhost:{port}", tmp_path))
        with pytest.raises(TransportUnavailable, match=r"(?i)certificate.*Check that Redis runs"):
            stream.check()
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        stream.send([an_event(1).to_json()])
        assert stream.check().endswith(": 1 events are kept")
        stream.close()


@contextmanager
def tls_before(server: RedisServer, pem: Path) -> Iterator[int]:
    """The port of a proxy that speaks TLS to one connection after the other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def serve() -> None:
        with suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                with (
                    suppress(ssl.SSLError),
                    context.wrap_socket(accepted, server_side=True) as tls,
                    socket.create_connection(("127.0.0.1", server.port)) as redis,
                ):
                    answers = threading.Thread(target=pump, args=(redis, tls))
                    answers.start()
                    pump(tls, redis)
                    answers.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(65_536):
            sink.sendall(some)
        sink.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*2\r\n+O", b""])
def test_what_is_no_redis_is_told(tmp_path: Path, answer: bytes) -> None:
    def serve() -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(65_536)
            accepted.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TransportUnavailable):
            RedisStream(settings(url, tmp_path, timeout_seconds=30)).check()
        serving.join()


@given(st.text() | st.text().map(lambda text: f"redis://{text}"))
def test_whatever_is_given_is_an_address_or_none(text: str) -> None:
    with suppress(ValueError):
        parse_address(text)


@given(st.text(min_size=1), st.text(min_size=1), st.integers(1, 65_535), st.integers(0, 99))
def test_an_address_is_what_was_written(user: str, password: str, port: int, number: int) -> None:
    quoted = f"{quote(user, safe='')}:{quote(password, safe='')}"
    address = parse_address(f"redis://{quoted}@[::1]:{port}/{number}")
    assert address == Address("::1", port, "", number, is_tls=False, user=user, password=password)


def test_a_key_that_is_no_stream_is_told(server: RedisServer, tmp_path: Path) -> None:
    given = settings(server.url, tmp_path)
    with server.client as client:
        client.set(given.stream, "a string")
    with pytest.raises(TransportUnavailable, match=r"WRONGTYPE.*Name another"):
        RedisStream(given).check()


def test_a_server_that_accepts_and_says_nothing_costs_the_caller_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        given = settings(f"redis://127.0.0.1:{port}/0", tmp_path, timeout_seconds=0.2)
        publisher = EventPublisher(lambda: RedisStream(given), queue_events=5)
        for number in range(20):
            publisher.publish(an_event(number))
        wait_until(lambda: sum(publisher.dropped.values()) > 0, "the queue is full")
        publisher.close(timeout_seconds=0.1)
    assert publisher.published == 0
    assert sum(publisher.dropped.values()) == 20
