"""Bad input: clear codes, nothing let in that should not be, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from metrics_pipeline_tests.gateway.gateway_process import (
    CLOSE,
    PING,
    TOKEN,
    GatewayProcess,
    ask,
    await_close,
    close_code,
    frame,
    frames,
    gateway_process,
    message,
    stored,
    write_settings,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import wait_until

NOW = "2020-01-01T00:00:00Z"
BUFFER_BYTES = 65_536
"""Of a robot that does not read; the kernel would keep some megabytes for it each way."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    state = tmp_path_factory.mktemp("hostile")
    for name in ("expired", "reader", "other"):
        (state / name).write_text(f"the-token-of-{name}-x")
    tokens = {
        "expired": {"token": {"file": "expired"}, "expires_at": NOW},
        "reader": {"token": {"file": "reader"}, "rights": ["read"]},
        "other": {"token": {"file": "other"}, "robots": ["other-*"]},
    }
    (state / "robots").write_text(
        f"# who\nfiled filed-token-0123456789\nold old-token-0123456789 {NOW}"
    )
    limits = {
        "ping_seconds": 0.3,
        "pong_seconds": 2.0,
        "send_seconds": 1.5,
        "handshake_seconds": 3.0,
        "messages_per_second": 100_000,
        "allowed_origins": ["https://console.example.net"],
        "robot_tokens_file": "robots",
    }
    write_settings(state, {**limits, "tokens": tokens})
    with gateway_process(state) as started:
        yield started


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"id": 1, "cpu_usage": NaN}', "not_finite"),
        ('{"id": 1, "cpu_usage": 1e999}', "not_finite"),
        ('{"id": 1, "cpu_usage": -Infinity}', "not_finite"),
        ('{"id": 1, "cpu_usage": 100.5}', "out_of_range"),
        ('{"id": 1, "battery_percentage": -1}', "out_of_range"),
        ('{"id": 1, "cpu_usage": "12"}', "wrong_type"),
        ('{"id": 1, "cpu_usage": true}', "wrong_type"),
        ('{"id": 1, "cpu_usage": [1]}', "wrong_type"),
        ('{"id": 1}', "no_fields"),
        ('{"id": 1, "cpu": 1}', "unknown_field"),
        ('{"id": 1, "cpu_usage": 1, "time": "now"}', "wrong_type"),
        ('{"id": 1, "cpu_usage": 1, "time": 1e300}', "time_out_of_range"),
        ('{"id": 1, "cpu_usage": 1, "time": 1700000000000}', "time_out_of_range"),
        ('{"id": 1, "cpu_usage": 1, "time": 1}', "time_out_of_range"),
    ],
)
def test_a_wrong_message_is_refused_by_name_and_the_next_one_is_stored(
    gateway: GatewayProcess, text: str, reason: str
) -> None:
    with gateway.connect("wrong") as robot:
        answer = ask(robot, text)
        assert (answer["type"], answer["id"], answer["reason"]) == ("refused", 1, reason)
        assert ask(robot, message(2)) == {"type": "ack", "id": 2}


@pytest.mark.parametrize("given", ["{}", "1.5", "[1]", "true", '"' + "x" * 65 + '"', '"\\u0000"'])
def test_an_id_that_cannot_be_said_back_is_refused(gateway: GatewayProcess, given: str) -> None:
    with gateway.connect("ids") as robot:
        answer = ask(robot, f'{{"id": {given}, "cpu_usage": 1}}')
    assert (answer["id"], answer["reason"]) == (None, "wrong_id")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("nonsense", 1007),
        ("", 1007),
        ("[1, 2]", 1007),
        ("[" * 10_000, 1007),
        ('{"cpu_usage": ' + "9" * 5000 + "}", 1007),
        (b"{}", 1003),
        ("x" * 20_000, 1009),
        ("x" * 10_000_000, 1009),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_message_ends_the_connection_with_a_clear_code(
    gateway: GatewayProcess, payload: str | bytes, code: int
) -> None:
    with gateway.connect("broken") as robot:
        with contextlib.suppress(ConnectionClosed):  # it may be told before it has sent all of it
            robot.send(payload)
        assert await_close(robot).code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"\xff\xfe"), 1007),
        (frame(b"{}", masked=False), 1002),
        (frame(b"{}", opcode=3), 1002),
        (frame(b"x" * 200, opcode=9), 1002),
        (b"\x81\xff" + b"\xff" * 8, 1009),
        (b"\x81\xff" + (2**62).to_bytes(8, "big") + bytes(4), 1009),
    ],
    ids=[
        "not UTF-8",
        "unmasked",
        "unknown opcode",
        "long ping",
        "all bits of the size",
        "exabytes",
    ],
)
def test_broken_frames_end_the_connection(gateway: GatewayProcess, data: bytes, code: int) -> None:
    with gateway.raw("frames") as robot:
        robot.sendall(data)
        assert close_code(robot) == code


def test_what_came_whole_before_a_broken_frame_is_stored(gateway: GatewayProcess) -> None:
    with gateway.raw("before") as robot:
        robot.sendall(frame(message(1).encode()) + frame(b"{}", opcode=3))
        assert close_code(robot) == 1002
    wait_until(
        lambda: any(point.tags["robot_id"] == "before" for point in stored(gateway.state)),
        "it is stored",
    )


@pytest.mark.parametrize(
    ("robot_id", "token", "status"),
    [
        ("robot-1", None, 401),
        ("robot-1", "", 401),
        ("robot-1", "wrong-token-0123456789", 401),
        ("robot-1", TOKEN + "x", 401),
        ("robot-1", TOKEN[:-1], 401),
        ("robot-1", "the-token-of-expired-x", 401),
        ("robot-1", "the-token-of-reader-x", 401),
        ("robot-1", "the-token-of-other-x", 401),
        ("robot-1", "filed-token-0123456789", 401),
        ("old", "old-token-0123456789", 401),
        ("other-1", "the-token-of-other-x", 101),
        ("filed", "filed-token-0123456789", 101),
        ("a%2Fb", TOKEN, 400),
        ("a/b", TOKEN, 400),
        ("a%0Ab", TOKEN, 403),
        ("a%00", TOKEN, 400),
        ("%2E%2E", TOKEN, 400),
        ("-a", TOKEN, 400),
        ("%C3%A4", TOKEN, 400),
        ("", TOKEN, 400),
        ("a" * 129, TOKEN, 400),
        ("a" * 128, TOKEN, 101),
        ("a,b=c", TOKEN, 400),
        ('a"b', TOKEN, 400),
    ],
)
def test_only_who_may_is_let_in(
    gateway: GatewayProcess, robot_id: str, token: str | None, status: int
) -> None:
    assert gateway.refusal(robot_id, token) == status


@pytest.mark.parametrize("given", [f"Basic {TOKEN}", TOKEN, "Bearer", "\xff\xfe"])
def test_a_header_that_is_no_bearer_is_no_token(gateway: GatewayProcess, given: str) -> None:
    assert gateway.refusal(token=None, Authorization=given) == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://console.example.net", 101),
        ("https://console.example.net.evil.example", 403),
        ("http://console.example.net", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_a_page_of_another_origin_is_not_let_in(
    gateway: GatewayProcess, origin: str, status: int
) -> None:
    assert gateway.refusal(Origin=origin) == status


def test_the_refusal_says_what_to_show_and_no_token(gateway: GatewayProcess) -> None:
    with pytest.raises(InvalidStatus) as caught, gateway.connect(token="wrong-token-0123456789"):
        pass
    response = caught.value.response
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert b"wrong-token" not in response.body


@pytest.mark.parametrize(
    ("robot_id", "token", "status"),
    [
        ("robot-1", None, 401),
        ("robot-1", "wrong-token-0123456789", 401),
        ("robot-1", "the-token-of-expired-x", 401),
        ("robot-1", "the-token-of-other-x", 401),
        ("other-7", "the-token-of-other-x", 404),
        ("robot-7", "the-token-of-reader-x", 404),
        ("a%2Fb", TOKEN, 400),
        ("a%0Ab", TOKEN, 404),
    ],
)
def test_rest_answers_only_who_may_read(
    gateway: GatewayProcess, robot_id: str, token: str | None, status: int
) -> None:
    assert gateway.get(robot_id, token).status_code == status


def test_a_robot_that_is_gone_without_a_word_is_noticed(gateway: GatewayProcess) -> None:
    """Half open: the socket is there, and nothing answers on it."""
    with gateway.raw("half-open") as robot:
        assert close_code(robot) == 1011


def test_a_robot_that_sends_but_answers_no_ping_stays(gateway: GatewayProcess) -> None:
    with gateway.raw("no-pong") as robot:
        robot.settimeout(0.05)
        opcodes: list[int] = []
        received = b""
        limit = time.monotonic() + PATIENCE_SECONDS
        # The second ping comes after the time for an answer to the first one.
        while opcodes.count(PING) < 2 and time.monotonic() < limit:
            robot.sendall(frame(message(1).encode()))
            with contextlib.suppress(TimeoutError):
                received += robot.recv(65536)
            opcodes = [opcode for opcode, _payload in frames(received)]
    assert opcodes.count(PING) >= 2
    assert CLOSE not in opcodes


def test_a_robot_that_does_not_read_is_sent_away(gateway: GatewayProcess) -> None:
    """Each refusal is longer than what it is for; nothing of it is read."""
    wrong = frame(json.dumps({"id": "x" * 60, "cpu_usage": 1e300}).encode())
    with gateway.raw("slow") as robot:
        robot.setblocking(False)
        wait_until(lambda: _is_over(robot, wrong * 100), "it is sent away")
    with gateway.connect("slow") as other:
        assert ask(other, message(1))["type"] == "ack"


def test_a_slow_reader_that_is_replaced_keeps_no_socket(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    limits = {"messages_per_second": 100_000, "send_seconds": 600}
    with limited(tmp_path_factory, **limits) as gateway, gateway.raw("slow") as robot:
        wrong = frame(b'{"cpu_usage": 1e300}' + b" " * 2000)
        bound_buffers(robot)
        robot.settimeout(2)
        with contextlib.suppress(TimeoutError):  # as it reads nothing, no more is taken of it
            while True:
                robot.sendall(wrong)
        with gateway.connect("slow") as second:
            assert ask(second, message(1))["type"] == "ack"
            robot.setblocking(False)
            wait_until(lambda: _is_over(robot, wrong), "its socket is closed")


def test_pings_of_which_no_answer_is_read_are_not_kept(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    ping, last = frame(b"x" * 125, opcode=PING), frame(b"the last ping", opcode=PING)
    sent = 40_000 * ping
    with limited(tmp_path_factory) as gateway, gateway.raw("pings") as robot:
        bound_buffers(robot)
        robot.settimeout(PATIENCE_SECONDS)
        robot.sendall(sent + last)
        received = b""
        while b"the last ping" not in received[-1000:]:
            some = robot.recv(65536)
            assert some, "it has ended"
            received += some
    assert len(received) < len(sent) / 2


def bound_buffers(robot: socket.socket) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        robot.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)


def _is_over(robot: socket.socket, data: bytes) -> bool:
    try:
        robot.send(data)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /ws/telemetry/robot-1 HTTP/1.1\r\nHost: x\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000,
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        + b"A: b\r\n" * 300
        + b"\r\n",
        b"\x16\x03\x01 nonsense \x00\r\n\r\n",
    ],
    ids=["silent", "half a head", "no body", "endless head", "many headers", "nonsense"],
)
def test_a_request_that_does_not_come_whole_is_not_waited_for(
    gateway: GatewayProcess, data: bytes
) -> None:
    with socket.create_connection(gateway.address, timeout=10) as opened:
        opened.sendall(data)
        with contextlib.suppress(ConnectionError):
            while opened.recv(65536):
                pass
    assert gateway.refusal() == 101


def test_a_handshake_for_another_version_is_refused(gateway: GatewayProcess) -> None:
    with socket.create_connection(gateway.address, timeout=10) as opened:
        opened.sendall(
            b"GET /ws/telemetry/robot-1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Version: 7\r\n\r\n"
        )
        assert b" 400 " in opened.recv(1000)


def limited(tmp_path_factory: pytest.TempPathFactory, **limits: Any) -> Any:
    state = tmp_path_factory.mktemp("limited")
    write_settings(state, limits)
    return gateway_process(state)


def test_no_more_are_let_in_than_the_settings_say(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with limited(tmp_path_factory, max_connections=2) as gateway:
        with gateway.connect("a"), gateway.connect("b"):
            assert gateway.refusal("c") == 503
            assert gateway.refusal("a") == 101  # it takes its own place
        wait_until(lambda: gateway.refusal("c") == 101, "there is room again")


def test_no_more_are_known_than_the_settings_say(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with limited(tmp_path_factory, max_robots=2) as gateway:
        with gateway.connect("a") as robot, gateway.connect("b"):
            assert ask(robot, message(1))["type"] == "ack"
            assert gateway.refusal("c") == 503
        wait_until(lambda: gateway.refusal("c") == 101, "who left and said nothing is forgotten")
        assert gateway.refusal("a") == 101
        with gateway.connect("c") as robot:
            assert ask(robot, message(1))["type"] == "ack"
        assert gateway.refusal("d") == 503


@pytest.mark.parametrize(
    ("messages", "last"), [(400, b""), (150, frame(b"{}", opcode=3))], ids=["reset", "broken frame"]
)
def test_who_breaks_off_with_more_unanswered_than_allowed_makes_room(
    tmp_path_factory: pytest.TempPathFactory, messages: int, last: bytes
) -> None:
    """Nothing is answered for a second, so what came waits behind what has no answer."""
    limits = {"max_connections": 1, "messages_per_second": 100_000, "batch_wait_seconds": 1.0}
    with limited(tmp_path_factory, **limits) as gateway:
        with gateway.raw("first") as robot:
            robot.sendall(frame(message(1).encode()) * messages + last)
            if not last:
                reset(robot)
        wait_until(lambda: gateway.refusal("second") == 101, "the first one is gone")


def reset(opened: socket.socket) -> None:
    """Break off, as a machine that lost its memory does."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.close()


def test_who_sends_faster_than_allowed_has_to_wait(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with limited(tmp_path_factory, messages_per_second=20) as gateway, gateway.connect() as robot:
        began = time.monotonic()
        for number in range(230):
            robot.send(message(number))
        for number in range(230):
            assert json.loads(robot.recv(timeout=PATIENCE_SECONDS)) == {"type": "ack", "id": number}
        assert time.monotonic() - began >= 1.4  # 200 at once, and then 20 a second


async def come_until_let_in(url: str, robot_id: str, refused: list[int]) -> None:
    """As a robot that is told when to come again; the statuses that it was refused with."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while True:
        try:
            async with async_connect(
                f"{url}/ws/telemetry/{robot_id}", additional_headers=headers, proxy=None
            ):
                return
        except InvalidStatus as error:
            refused.append(error.response.status_code)
            await asyncio.sleep(float(error.response.headers["Retry-After"]))


def test_of_a_flood_of_connects_all_get_in_who_come_again_and_nobody_else_waits(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    refused: list[int] = []
    waves = 0

    async def flood(url: str) -> None:
        nonlocal waves
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not refused:  # a machine that is slow enough sends no flood
                robots = (f"flood-{waves}-{number}" for number in range(30))
                await asyncio.gather(*(come_until_let_in(url, r, refused) for r in robots))
                waves += 1

    began = time.monotonic()
    with (
        limited(tmp_path_factory, connects_per_second=5) as gateway,
        gateway.connect("first") as robot,
    ):
        asyncio.run(flood(gateway.url))
        # Four seconds' worth at once, and then no faster than that.
        assert 1 + 30 * waves <= 20 + 5 * (time.monotonic() - began)
        strangers = [gateway.refusal("stranger", "wrong-token-0123456789") for _ in range(20)]
        assert ask(robot, message(1))["type"] == "ack"
    assert set(refused) == {429}
    assert set(strangers) == {401}
