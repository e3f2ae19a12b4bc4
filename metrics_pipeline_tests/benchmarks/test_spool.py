"""The benchmark runs, and gives the figures that docs/benchmarks.md has."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import spool


def test_it_prints_its_figures_as_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    spool.main(["--points", "600", "--rounds", "1", "--json"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    for what in ("direct", "kept", "replayed"):
        assert figures[f"{what}_points_per_second"] > 0
        assert figures[f"{what}_cpu_us_per_point"] > 0
    assert 5 < figures["bytes_per_point"] < 60
    assert figures["sample_bytes"] > figures["bytes_per_point"]
