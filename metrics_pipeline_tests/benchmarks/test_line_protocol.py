"""The benchmark's output, and the fairness of its rounds; no figure is asserted here."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import line_protocol
from metrics_pipeline_tests.benchmarks.interleaved import measure_cpu_seconds


def test_the_last_line_is_one_json_object_with_both_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line_protocol.main(["--json", "--points", "30", "--rounds", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["points"] == 30
    assert figures["cpu_us_per_point"] > 0
    assert figures["peer_cpu_us_per_point"] > 0


def test_contenders_take_turns_at_being_first_after_a_round_that_does_not_count() -> None:
    called: list[str] = []
    contenders = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    measure_cpu_seconds(contenders, rounds=3)
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"


def test_the_figure_is_the_median_of_the_rounds() -> None:
    clock = iter([0.0, 1.0, 0.0, 9.0, 0.0, 2.0])
    found = measure_cpu_seconds({"a": lambda: None}, rounds=3, cpu_seconds=lambda: next(clock))
    assert found == {"a": 2.0}
