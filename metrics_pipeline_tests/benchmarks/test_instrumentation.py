"""The benchmark's output; no figure is asserted here, but that counting is what differs."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from metrics_pipeline_tests.benchmarks import instrumentation
from metrics_pipeline_tests.orchestration.pipeline import pipeline


def test_the_last_line_is_one_json_object_with_its_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    instrumentation.main(["--json", "--rounds", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["cpu_ms_with"] > figures["alone_cpu_ms"] > 0


def test_only_the_run_as_it_is_counts_its_fetches(tmp_path: Path) -> None:
    with pipeline(tmp_path) as it, dg.DagsterInstance.ephemeral() as instance:
        run = instrumentation.make_run(it.settings, instance)
        instrumentation.without_instrumentation(run)()
        assert "artifacts_total" not in it.totals()
        run()
        assert "artifacts_total" in it.totals()
        assert len(it.history()) > 0
