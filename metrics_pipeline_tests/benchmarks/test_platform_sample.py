"""The benchmark's output; no figure is asserted here."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import platform_sample


def test_the_last_line_is_one_json_object_with_the_figure_of_each_part_and_of_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    platform_sample.main(["--json", "--samples", "2", "--rounds", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["samples"] == 2
    parts = [figures[f"{name}_cpu_ms"] for name in platform_sample.PARTS]
    assert min(parts) > 0
    assert figures["cpu_ms_per_sample"] >= max(parts)
