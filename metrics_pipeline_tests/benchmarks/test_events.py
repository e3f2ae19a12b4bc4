"""The benchmark's output; no figure is asserted here, but that a run with events has some."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import events


def test_the_last_line_is_one_json_object_with_its_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events.main(["--json", "--rounds", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = {"publish_cpu_us", "run_overhead_share", "redis_run_overhead_share"}
    assert keys <= figures.keys()
    assert figures["publish_cpu_us"] > 0
    assert figures["run_cpu_ms_with"] > figures["alone_cpu_ms"] > 0
