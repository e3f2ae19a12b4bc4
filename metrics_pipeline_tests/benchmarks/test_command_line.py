"""How benchmarks print their figures."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks.command_line import parser_of, show

FIGURES = {"p99_ms": 1.5, "wrong": []}


def test_figures_are_one_object_on_one_line_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(FIGURES, parser_of("How long.\n\nMore.").parse_args(["--json"]))
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == FIGURES


def test_for_people_the_figures_are_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    show(FIGURES, parser_of("How long.").parse_args([]))
    assert capsys.readouterr().out == "p99_ms 1.5\nwrong  []\n"
