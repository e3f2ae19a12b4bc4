"""The benchmark of the exporter on its smallest scale: its keys, and that values become visible."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline_tests.benchmarks import exporter


def test_it_measures_scrapes_with_everything_on_and_how_fresh_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (SETTINGS_VARIABLE, STATE_DIR_VARIABLE, "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")  # the benchmark sets them; afterwards they are as before
    size = ["--devices", "3", "--rounds", "1", "--seconds", "0.2", "--freshness", "1"]
    size += ["--refresh-seconds", "0.2"]
    exporter.main([*size, "--json"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert 0 < figures["freshness_median_s"] <= figures["freshness_s"]
    assert figures["rss_mb"] > 0
    # Sixteen of each of three devices, and what there is one of.
    assert figures["series"] > 3 * 16 + 500
