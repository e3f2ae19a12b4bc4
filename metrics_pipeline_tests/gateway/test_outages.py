"""Stores and gateways that go away in the middle: nothing is lost that was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

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
from metrics_pipeline_tests.servers import wait_until


@contextlib.contextmanager
def locked(file: Path):  # type: ignore[no-untyped-def]
    """Nobody else writes into the SQLite file meanwhile: as a store that is away."""
    connection = sqlite3.connect(file, isolation_level=None, timeout=PATIENCE_SECONDS)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_while_the_store_is_away_nothing_is_acknowledged_and_then_all_is(tmp_path: Path) -> None:
    write_settings(tmp_path, {"ping_seconds": 0.2, "pong_seconds": 1.0, "max_unacknowledged": 10})
    with gateway_process(tmp_path) as gateway, gateway.connect() as robot:
        assert ask(robot, message(0, time.time()))["type"] == "ack"
        with locked(tmp_path / "s.sqlite"):
            began = time.time()
            for number in range(1, 40):
                robot.send(message(number, began + number / 1000))
            with pytest.raises(TimeoutError):
                robot.recv(timeout=2)  # longer than ping and pong: who waits for us is not gone
        answers = [json.loads(robot.recv(timeout=PATIENCE_SECONDS)) for _ in range(1, 40)]
        assert answers == [{"type": "ack", "id": number} for number in range(1, 40)]
        assert len(stored(tmp_path)) == 40
        log = (tmp_path / "gateway.log").read_text()
        assert log.count("messages wait") == 1
        assert log.count("messages are stored again") == 1


def test_a_full_queue_stops_all_reading(tmp_path: Path) -> None:
    write_settings(tmp_path, {"queue_messages": 5, "messages_per_second": 10_000})
    with gateway_process(tmp_path) as gateway, gateway.connect("a") as robot:
        ask(robot, message(0))
        with locked(tmp_path / "s.sqlite"), gateway.connect("b") as other:
            for number in range(1, 20):
                robot.send(message(number, time.time()))
            # It is read as long as the five have not come.
            wait_until(lambda: not is_answered(other, message(1, cpu_usage=101)), "nobody is read")
        answers = [json.loads(robot.recv(timeout=PATIENCE_SECONDS))["type"] for _ in range(1, 20)]
        assert answers == ["ack"] * 19


def is_answered(robot: ClientConnection, text: str) -> bool:
    """Even what would be refused at once is not, where nobody is read."""
    robot.send(text)
    try:
        robot.recv(timeout=1.0)
    except TimeoutError:
        return False
    return True


async def _stream(gateway: GatewayProcess, robot_id: str, acknowledged: set[float]) -> None:
    """Send as fast as it goes until the connection ends; the times that were acknowledged."""
    times: dict[int, float] = {}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{gateway.url}/ws/telemetry/{robot_id}"
    async with connect(url, additional_headers=headers, proxy=None) as robot:

        async def send() -> None:
            for number in range(100_000):
                times[number] = round(time.time(), 6)
                await robot.send(message(number, times[number]))
                await asyncio.sleep(0.001)

        sending = asyncio.create_task(send())
        with contextlib.suppress(ConnectionClosed):
            async for text in robot:
                said = json.loads(text)
                assert said["type"] == "ack"
                acknowledged.add(times[said["id"]])
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_acknowledged_outlives_the_gateway(tmp_path: Path, number: signal.Signals) -> None:
    write_settings(tmp_path, {"messages_per_second": 10_000})
    acknowledged: dict[str, set[float]] = {f"robot-{n}": set() for n in range(5)}

    async def run(gateway: GatewayProcess) -> None:
        streams = [
            asyncio.create_task(_stream(gateway, name, acks)) for name, acks in acknowledged.items()
        ]
        while not all(len(acks) > 50 for acks in acknowledged.values()):
            await asyncio.sleep(0.01)
        gateway.process.send_signal(number)
        await asyncio.gather(*streams)

    with gateway_process(tmp_path) as gateway:
        asyncio.run(run(gateway))
        status = gateway.process.wait(20)
    assert status == (-number if number == signal.SIGKILL else 0)
    found: dict[str, set[int]] = {name: set() for name in acknowledged}
    for point in stored(tmp_path):
        found[point.tags["robot_id"]].add(point.time_ns)
    for name, acks in acknowledged.items():
        assert {round(at * 1e6) * 1000 for at in acks} <= found[name]


def test_a_gateway_that_ends_says_what_is_stored_and_goodbye(tmp_path: Path) -> None:
    write_settings(tmp_path, {"batch_wait_seconds": 1.0})
    with fresh_gateway_process(tmp_path) as gateway, gateway.connect() as robot:
        robot.send(message(1))
        time.sleep(0.2)  # it is in the queue, where it stays for a second
        gateway.process.send_signal(signal.SIGTERM)
        assert json.loads(robot.recv(timeout=PATIENCE_SECONDS)) == {"type": "ack", "id": 1}
        assert await_close(robot).code == 1001
        assert gateway.process.wait(20) == 0


def test_a_gateway_ends_although_its_store_does_not_answer(tmp_path: Path) -> None:
    write_settings(tmp_path, {})
    with gateway_process(tmp_path) as gateway, gateway.connect() as robot:
        ask(robot, message(1))
        with locked(tmp_path / "s.sqlite"):
            robot.send(message(2))
            time.sleep(0.5)
            assert gateway.end() == 0


def test_a_gateway_that_starts_again_knows_the_latest_values(tmp_path: Path) -> None:
    write_settings(tmp_path, {})
    with gateway_process(tmp_path) as gateway:
        with gateway.connect() as robot:
            ask(robot, message(1, cpu_usage=33))
        before = gateway.get("robot-1").json()
        gateway.end()
    with gateway_process(tmp_path) as gateway:
        wait_until(lambda: gateway.get("robot-1").is_success, "it has read them")
        assert gateway.get("robot-1").json() == before


def test_a_token_that_is_withdrawn_or_expires_ends_the_connection(tmp_path: Path) -> None:
    tokens = tmp_path / "robots"
    tokens.write_text("old old-token-0123456789\nbrief brief-token-0123456789\n")
    write_settings(tmp_path, {"robot_tokens_file": str(tokens)})
    with (
        gateway_process(tmp_path) as gateway,
        gateway.connect("stays") as stays,
        gateway.connect("old", "old-token-0123456789") as old,
        gateway.connect("brief", "brief-token-0123456789") as brief,
    ):
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
        tokens.write_text(f"new new-token-0123456789\nbrief brief-token-0123456789 {soon}\n")
        assert await_close(old).code == 4401
        assert await_close(brief).code == 4401
        assert ask(stays, message(1))["type"] == "ack"
        assert gateway.refusal("old", "old-token-0123456789") == 401
        assert gateway.refusal("new", "new-token-0123456789") == 101
