"""The benchmark's output; no figure is asserted here."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import ssh


def test_the_last_line_is_one_json_object_with_both_figures(
    capfd: pytest.CaptureFixture[str],
) -> None:
    ssh.main(["--json", "--hosts", "3", "--rounds", "1"])
    figures = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert figures["hosts"] == 3
    assert figures["cpu_ms_per_poll"] > 0
    assert figures["peer_cpu_ms_per_poll"] > 0
