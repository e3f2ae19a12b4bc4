"""A thousand robots at once: all are let in, all is stored, and the exporter shows each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from metrics_pipeline.core import robots
from metrics_pipeline.core.events import parse_event
from metrics_pipeline.storage import snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.exporter.exporter_process import exporter_process
from metrics_pipeline_tests.gateway.gateway_process import (
    TOKEN,
    GatewayProcess,
    ask,
    gateway_process,
    message,
    read_settings,
    stored,
    write_settings,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import PLAIN_HTTP, wait_until

ROBOTS = 1000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    state = tmp_path_factory.mktemp("many")
    events = {"transport": {"kind": "json_lines", "path": "events.jsonl"}}
    exporter = {"port": 0, "refresh_seconds": 0.2}
    write_settings(state, {}, events=events, exporter=exporter)
    with gateway_process(state) as started:
        yield started


def connected(state: Path) -> int | None:
    with (
        closing(OperationalDatabase(read_settings(state).operational_database)) as database,
        database.reading() as connection,
    ):
        found = snapshots.find(connection, robots.ASSET)
    return None if found is None else int(found.points[0].fields["connected"])


def totals(state: Path) -> dict[str, dict[str, int]]:
    with (
        closing(OperationalDatabase(read_settings(state).operational_database)) as database,
        database.reading() as connection,
    ):
        return tallies.totals(connection)


async def live(url: str, name: str, together: asyncio.Barrier, seen: asyncio.Event) -> float:
    """One robot: connects with all others, stays until it was seen, and sends a message."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with connect(
        f"{url}/ws/telemetry/{name}",
        additional_headers=headers,
        compression=None,
        proxy=None,
        open_timeout=PATIENCE_SECONDS,
        ping_interval=None,
    ) as robot:
        await together.wait()
        now = round(time.time(), 3)
        await robot.send(message(1, now, cpu_usage=10, battery_percentage=50))
        assert json.loads(await robot.recv()) == {"type": "ack", "id": 1}
        await seen.wait()
    return now


def test_a_thousand_robots_are_connected_at_once_and_all_is_stored(
    gateway: GatewayProcess,
) -> None:
    async def run() -> list[float]:
        together, seen = asyncio.Barrier(ROBOTS), asyncio.Event()
        lives = [
            asyncio.create_task(live(gateway.url, f"many-{n}", together, seen))
            for n in range(ROBOTS)
        ]
        while await asyncio.to_thread(connected, gateway.state) != ROBOTS:
            assert not any(each.done() for each in lives)
            await asyncio.sleep(0.2)
        seen.set()
        return await asyncio.gather(*lives)

    times = asyncio.run(run())
    found = {p.tags["robot_id"]: p.time_ns for p in stored(gateway.state)}
    assert found == {f"many-{n}": round(at * 1e6) * 1000 for n, at in enumerate(times)}
    wait_until(lambda: connected(gateway.state) == 0, "all have gone")


def test_what_came_is_counted_and_shown(gateway: GatewayProcess) -> None:
    with gateway.connect("shown") as robot:
        now = round(time.time(), 3)
        ask(robot, message(1, now, cpu_usage=44.5, memory_usage=1))
        ask(robot, message(2, cpu_usage=101))
        gateway.refusal("shown", "wrong-token-0123456789")
        wait_until(
            lambda: (
                "refused_401" in totals(gateway.state)["metrics_pipeline_robot_connections_total"]
            ),
            "it is counted",
        )
        with exporter_process(gateway.state) as exporter:
            page: list[str] = []

            def is_there() -> bool:
                page[:] = PLAIN_HTTP.get(exporter.url).text.splitlines()
                return "metrics_pipeline_robots_connected 1.0" in page

            wait_until(is_there, "the page shows who is connected")
            status = PLAIN_HTTP.get(exporter.url.removesuffix("metrics")).text
    assert 'robot_cpu_usage{robot_id="shown"} 44.5' in page
    last = 'robot_last_message_timestamp_seconds{robot_id="shown"} '
    (shown,) = (line.removeprefix(last) for line in page if line.startswith(last))
    assert float(shown) == pytest.approx(now, abs=1e-3)
    assert not any('robot_battery_percentage{robot_id="shown"}' in line for line in page)
    assert 'metrics_pipeline_robot_messages_total{outcome="out_of_range"} 1.0' in page
    assert 'metrics_pipeline_robot_connections_total{outcome="refused_401"} 1.0' in page
    assert "1 robots are connected to the gateway" in status
    assert "telemetry/robot_metrics" in status


def test_each_connection_is_told_with_how_long_and_why(gateway: GatewayProcess) -> None:
    with gateway.connect("told") as robot:
        ask(robot, message(1, cpu_usage=44.5))
    file = gateway.state / "events.jsonl"

    def events() -> list[tuple[str, dict[str, object]]]:
        found = (parse_event(line) for line in file.read_text().splitlines())
        return [(e.type, dict(e.payload)) for e in found if e.payload["robot_id"] == "told"]

    wait_until(lambda: len(events()) == 3, "all events are there")
    (first, came), (second, metrics), (third, gone) = events()
    assert (first, second, third) == (
        "telemetry.connection_established",
        "telemetry.metrics_published",
        "telemetry.connection_closed",
    )
    assert metrics["metrics"] == {
        "cpu_usage": 44.5,
        "memory_usage": None,
        "network_latency_ms": None,
        "battery_percentage": None,
    }
    assert came["connection_id"] == gone["connection_id"]
    assert gone["reason"] == "client_disconnect"
    assert float(str(gone["duration_seconds"])) > 0
