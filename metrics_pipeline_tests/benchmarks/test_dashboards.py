"""The benchmark of the dashboards on its smallest scale: every query has data, and its keys."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline_tests.benchmarks import dashboards
from metrics_pipeline_tests.dashboards.exported import queries

WITHOUT_DATA = {"product: Series left out", "product: Waiting for"}
"""Nothing is left out of a page with two devices, and nothing waits in the spool."""


def test_every_query_is_asked_over_the_range_and_has_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (SETTINGS_VARIABLE, STATE_DIR_VARIABLE, "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")  # the benchmark sets them; afterwards they are as before
    size = ["--devices", "2", "--days", "0.1", "--rounds", "1"]
    dashboards.main([*size, "--scrape-seconds", "60", "--wide-seconds", "60", "--json"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name.rpartition(" (")[0] for name in figures["without_data"]} == WITHOUT_DATA
    assert figures["queries"] == len(list(queries()))
    assert 0 < figures["median_ms"] <= figures["slowest_ms"]
    # 900 series that there are one of, each minute of two hours.
    assert figures["samples"] > 900 * 120
