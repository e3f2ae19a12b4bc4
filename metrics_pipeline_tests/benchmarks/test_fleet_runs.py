"""Half of a small fleet dead: every status and value is right, whatever the time it took."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import fleet_runs


def test_half_of_the_fleet_dead_leaves_every_status_and_value_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fleet_runs.main(["--json", "--devices", "100", "--dead-share", "0.5"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["wrong_statuses"], figures["wrong_values"]) == (0, 0)
    assert {"status_sweep_s", "metrics_sweep_s", "status_cpu_s", "rss_mb"} <= set(figures)
