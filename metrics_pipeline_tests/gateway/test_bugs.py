"""What is wrong with the gateway itself is said, and ends what cannot go on."""

from __future__ import annotations

import asyncio
import logging
import textwrap
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.websockets import WebSocket

from metrics_pipeline.core.catalog import ROBOT_CONNECTIONS
from metrics_pipeline.events.publisher import EventPublisher
from metrics_pipeline.gateway.gateway import Gateway
from metrics_pipeline.gateway.tokens import Tokens
from metrics_pipeline.settings import GatewaySettings
from metrics_pipeline_tests.gateway.gateway_process import fresh_gateway_process, write_settings
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

NO_WRITER = cast("Any", object())
"""Whatever is asked of it is an AttributeError, which nobody expects."""


def make(tmp_path: Path, end: asyncio.Event) -> Gateway:
    settings = GatewaySettings(robot_tokens_file=tmp_path / "robots")
    return Gateway(settings, Tokens(settings), NO_WRITER, EventPublisher(None), end.set)


def test_a_task_that_ends_by_a_bug_ends_the_gateway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> BaseException | None:
        ended = asyncio.Event()
        gateway = make(tmp_path, ended)
        async with gateway.running(), asyncio.timeout(PATIENCE_SECONDS):
            await ended.wait()
        return gateway.bug

    assert isinstance(asyncio.run(run()), AttributeError)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


WITHOUT_A_WRITER = """
    from contextlib import nullcontext
    from metrics_pipeline.cli import main
    from metrics_pipeline.gateway import serve

    class NoWriter:
        close = nullcontext

    serve.open_writer = lambda *_: NoWriter()
    main(["gateway"])
"""


def test_the_process_of_a_gateway_that_ends_by_a_bug_has_status_1(tmp_path: Path) -> None:
    write_settings(tmp_path, {})
    with fresh_gateway_process(tmp_path, ("-c", textwrap.dedent(WITHOUT_A_WRITER))) as gateway:
        assert gateway.process.wait(60) == 1
    log = (tmp_path / "gateway.log").read_text()
    assert "CRITICAL" in log
    assert "AttributeError: 'NoWriter' object has no attribute 'latest_in_batches'" in log


def test_a_gateway_that_is_ended_has_no_bug(tmp_path: Path) -> None:
    async def run() -> tuple[BaseException | None, bool]:
        ended = asyncio.Event()
        gateway = make(tmp_path, ended)
        async with gateway.running():
            pass
        return gateway.bug, ended.is_set()

    assert asyncio.run(run()) == (None, False)


def test_a_connection_that_ends_by_a_bug_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    came: list[Any] = [{"type": "websocket.connect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return came.pop()  # the second time there is none: an IndexError

    async def send(event: Any) -> None:
        sent.append(event)

    async def run() -> Gateway:
        gateway = make(tmp_path, asyncio.Event())
        scope = {"type": "websocket", "headers": [], "extensions": {}}
        await gateway.serve(WebSocket(scope, receive, send), "robot-1")
        return gateway

    counts = asyncio.run(run()).latest.draw_up(0, 0).counts[ROBOT_CONNECTIONS.name]
    assert (sent[-1]["type"], sent[-1]["code"]) == ("websocket.close", 1011)
    assert counts == {"established": 1, "ended_server_error": 1}
    assert "robot robot-1 ends by a bug" in caplog.text
