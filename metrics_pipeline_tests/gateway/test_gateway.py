"""What a robot that behaves is promised: acknowledged is stored, resent is stored once."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from metrics_pipeline_tests.gateway.gateway_process import (
    TOKEN,
    GatewayProcess,
    ask,
    await_close,
    fresh_gateway_process,
    gateway_process,
    message,
    stored,
    write_settings,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import self_signed, wait_until

ALL = {
    "cpu_usage": 12.5,
    "memory_usage": 60,
    "network_latency_ms": 3.25,
    "battery_percentage": 99,
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    state = tmp_path_factory.mktemp("gateway")
    write_settings(state, {})
    with fresh_gateway_process(state) as started:
        yield started


def test_what_is_acknowledged_is_stored(gateway: GatewayProcess) -> None:
    now = round(time.time(), 3)
    with gateway.connect("stored") as robot:
        assert ask(robot, message(7, now, **ALL)) == {"type": "ack", "id": 7}
        found = [point for point in stored(gateway.state) if point.tags["robot_id"] == "stored"]
    assert [point.time_ns for point in found] == [round(now * 1e6) * 1000]
    assert found[0].fields == {name: float(value) for name, value in ALL.items()}
    assert all(type(value) is float for value in found[0].fields.values())


def test_a_message_that_is_sent_again_is_stored_once(gateway: GatewayProcess) -> None:
    now = time.time()
    for _ in range(2):
        with gateway.connect("again") as robot:
            assert ask(robot, message(1, now))["type"] == "ack"
    assert [p.tags["robot_id"] for p in stored(gateway.state)].count("again") == 1


def test_the_same_message_twice_in_one_batch_is_stored_once(gateway: GatewayProcess) -> None:
    now = time.time()
    with gateway.connect("twice") as robot:
        robot.send(message(1, now))
        assert ask(robot, message(1, now)) == {"type": "ack", "id": 1}
        assert "ack" in str(robot.recv(timeout=PATIENCE_SECONDS))
    assert [p.tags["robot_id"] for p in stored(gateway.state)].count("twice") == 1


def test_answers_come_in_the_order_of_the_messages(gateway: GatewayProcess) -> None:
    with gateway.connect("order") as robot:
        robot.send(message(1))
        robot.send(message(2, cpu_usage=101))
        robot.send(message(3))
        answers = [str(robot.recv(timeout=PATIENCE_SECONDS)) for _ in range(3)]
    assert ["ack" in answer for answer in answers] == [True, False, True]


def test_rest_answers_with_the_latest_by_time(gateway: GatewayProcess) -> None:
    now = time.time()
    with gateway.connect("latest") as robot:
        ask(robot, message(1, now, **ALL))
        ask(robot, message(2, now - 60, cpu_usage=1))
    answer = gateway.get("latest")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"robot_id": "latest", "time": pytest.approx(now, abs=1e-6), **ALL}


def test_rest_says_null_of_what_a_robot_does_not_have(gateway: GatewayProcess) -> None:
    with gateway.connect("mains") as robot:
        ask(robot, message(1, cpu_usage=1, battery_percentage=None))
    assert gateway.get("mains").json()["battery_percentage"] is None


def test_rest_knows_no_robot_that_sent_nothing(gateway: GatewayProcess) -> None:
    assert gateway.get("silent").status_code == 404


def test_the_gateway_is_alive(gateway: GatewayProcess) -> None:
    from metrics_pipeline_tests.servers import PLAIN_HTTP

    assert PLAIN_HTTP.get(f"{gateway.http_url}/healthz").text == "ok\n"


def test_a_robot_that_connects_again_ends_its_first_connection(gateway: GatewayProcess) -> None:
    with gateway.connect("double") as first, gateway.connect("double") as second:
        assert await_close(first).code == 4409
        assert ask(second, message(1))["type"] == "ack"


def test_a_fragmented_message_is_one_message(gateway: GatewayProcess) -> None:
    with gateway.connect("parts") as robot:
        robot.send(iter(['{"id": 5, "cpu', '_usage": 1}']))
        assert '"ack"' in str(robot.recv(timeout=PATIENCE_SECONDS))


def test_a_token_that_is_not_there_at_the_start_keeps_out_nobody_else(tmp_path: Path) -> None:
    late = tmp_path / "late"
    write_settings(tmp_path, {"tokens": {"late": {"token": {"file": str(late)}}}})
    with gateway_process(tmp_path) as gateway:
        assert gateway.refusal(token=TOKEN) == 101
        assert gateway.refusal(token="a-token-that-comes-late") == 401
        late.write_text("a-token-that-comes-late")
        wait_until(
            lambda: gateway.refusal(token="a-token-that-comes-late") == 101,
            "it is read",
            gateway.process,
        )


def test_robots_come_over_tls(tmp_path: Path) -> None:
    pem = self_signed(tmp_path, "localhost")
    tls = {"certificate_file": str(pem), "key_file": str(pem)}
    write_settings(tmp_path, {"tls": tls, "handshake_seconds": 4.0})
    with (
        gateway_process(tmp_path) as gateway,
        # Less than the 60 s of the event loop's own.
        socket.create_connection(gateway.address, timeout=PATIENCE_SECONDS) as silent,
    ):
        assert gateway.url.startswith("wss://")
        robot = connect(
            f"{gateway.url}/ws/telemetry/r1",
            additional_headers={"Authorization": f"Bearer {TOKEN}"},
            ssl=ssl.create_default_context(cafile=pem),
            proxy=None,
        )
        with robot:
            assert ask(robot, message(1))["type"] == "ack"
            robot.send("x" * 100_000)
            assert await_close(robot).code == 1009
        assert silent.recv(1) == b""
