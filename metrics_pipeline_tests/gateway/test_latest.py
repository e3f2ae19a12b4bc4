"""The latest value of a robot, whatever the clock does."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import CATALOG, ROBOT_METRICS
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.validation import NS_PER_DAY, NS_PER_MINUTE
from metrics_pipeline.events.publisher import EventPublisher
from metrics_pipeline.gateway.gateway import Gateway
from metrics_pipeline.gateway.latest import LatestValues
from metrics_pipeline.gateway.tokens import Tokens
from metrics_pipeline.settings import GatewaySettings
from metrics_pipeline.storage.embedded import EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

NOW_NS = 1_795_262_400 * 10**9
NO_WRITER = cast("Any", None)


def point(time_ns: int, cpu_usage: float) -> Point:
    return Point(ROBOT_METRICS.name, {"robot_id": "r"}, {"cpu_usage": cpu_usage}, time_ns)


def cpu_usage(latest: LatestValues) -> float:
    found = latest.find("r")
    assert found is not None
    return float(found["cpu_usage"])


def test_after_a_clock_that_was_ahead_is_set_back_what_comes_is_the_latest() -> None:
    latest = LatestValues(NO_WRITER, 30 * NS_PER_DAY)
    latest.take(point(NOW_NS + 365 * NS_PER_DAY, 1))
    latest.bring_back(NOW_NS)
    assert cpu_usage(latest) == 1
    latest.take(point(NOW_NS + 1, 2))
    assert cpu_usage(latest) == 2


def test_a_gateway_brings_back_what_it_published_by_such_a_clock(tmp_path: Path) -> None:
    settings = GatewaySettings(robot_tokens_file=tmp_path / "robots", publish_seconds=1)
    database = DatabaseSettings(url=f"sqlite:///{tmp_path}/operational.db")
    store = EmbeddedStoreSettings(kind="embedded", path=tmp_path / "points.db")

    async def run(gateway: Gateway) -> None:
        gateway.latest.take(point(time.time_ns() + NS_PER_DAY, 1))
        async with gateway.running(), asyncio.timeout(PATIENCE_SECONDS):
            while gateway.latest.find("r")["time"] > time.time():  # type: ignore[index]
                await asyncio.sleep(0.05)

    with closing(open_writer(store, database, CATALOG)) as writer:
        end = cast("Any", None)
        asyncio.run(run(Gateway(settings, Tokens(settings), writer, EventPublisher(None), end)))


def test_what_a_robot_says_of_the_next_minutes_stays_the_latest_meanwhile() -> None:
    latest = LatestValues(NO_WRITER, 30 * NS_PER_DAY)
    latest.take(point(NOW_NS + 9 * NS_PER_MINUTE, 1))
    latest.bring_back(NOW_NS)
    latest.take(point(NOW_NS + 1, 2))
    assert cpu_usage(latest) == 1
