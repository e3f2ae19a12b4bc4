"""Simulated robots against the real gateway: they drop and come back, and nothing is missing."""

from __future__ import annotations

from pathlib import Path
from random import Random

from metrics_pipeline.simulators.robots import KEPT_MESSAGES, Robot, serve_robots
from metrics_pipeline_tests.gateway.gateway_process import (
    gateway_process,
    stored,
    write_settings,
)
from metrics_pipeline_tests.servers import wait_until


def test_robots_that_drop_and_come_back_lose_nothing(tmp_path: Path) -> None:
    write_settings(tmp_path, {})
    with gateway_process(tmp_path) as gateway:
        with serve_robots(
            token_file=tmp_path / "token", url=gateway.url, count=5, step_seconds=0.02, seed=1
        ) as fleet:
            wait_until(
                lambda: all(robot.acknowledged > 60 for robot in fleet.robots),
                "all have dropped and come back",
            )
        found = {point.tags["robot_id"] for point in stored(tmp_path)}
        counts = {robot.id: robot.acknowledged for robot in fleet.robots}
    assert found == counts.keys()
    points = [point.tags["robot_id"] for point in stored(tmp_path)]
    for robot in fleet.robots:
        assert robot.refused == 0
        # What was stored and not acknowledged is sent again, and is not there twice.
        assert robot.acknowledged <= points.count(robot.id)
        assert points.count(robot.id) <= robot.acknowledged + len(robot.unacknowledged)


def test_the_token_stays_what_it_is(tmp_path: Path) -> None:
    for _ in range(2):
        with serve_robots(
            token_file=tmp_path / "new", url="ws://127.0.0.1:1", count=0, step_seconds=1, seed=1
        ):
            pass
    assert len((tmp_path / "new").read_text().strip()) == 64
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_a_robot_keeps_what_is_not_acknowledged_but_not_for_ever() -> None:
    robot = Robot("r", Random(1), clock=lambda: 5.0)
    for _ in range(KEPT_MESSAGES + 3):
        robot.measure()
    assert next(iter(robot.unacknowledged)) == 4
    robot.hear('{"type": "ack", "id": 4}')
    robot.hear('{"type": "refused", "id": 5}')
    assert (robot.acknowledged, robot.refused, next(iter(robot.unacknowledged))) == (1, 1, 6)
