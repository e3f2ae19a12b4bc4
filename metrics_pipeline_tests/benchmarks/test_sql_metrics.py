"""The benchmark of the SQL sets runs, and prints what the contract promises."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline.sources.sql_sets import SHIPPED, load_sql_set
from metrics_pipeline_tests.benchmarks.sql_metrics import main


def test_the_benchmark_measures_every_query_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rows", "2000", "--rounds", "1", "--json"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    shipped = {f"{name}.{query.name}" for name in SHIPPED for query in load_sql_set(name).queries}
    assert figures["query_ms"].keys() == shipped
    assert figures["slowest_query_ms"] == max(figures["query_ms"].values())
    assert figures["artifacts_miscounted"] == 0
