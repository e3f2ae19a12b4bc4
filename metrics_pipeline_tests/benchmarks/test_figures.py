"""The figures that others rely on are among those that each benchmark makes, by their names."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from metrics_pipeline_tests.benchmarks.figures import memory_mb_of, percentile

FOLDER = Path(__file__).parent

FIGURES = {
    "snmp": "devices cpu_ms_per_device peer_cpu_ms_per_device sweep_s rss_mb wrong_values",
    "ping": "sweep_s cpu_s peer_cpu_s",
    "ssh": "cpu_ms_per_poll peer_cpu_ms_per_poll",
    "line_protocol": "cpu_us_per_point peer_cpu_us_per_point",
    "exporter": "p50_ms p99_ms rss_mb series freshness_s",
    "dashboards": "slowest_ms over_one_second samples series",
    "telemetry": "events_per_second p99_latency_s handover_p99_latency_s rss_mb lost duplicated",
    "sql": "slowest_query_ms",
}
"""By the benchmark; each has a test besides that runs it on its smallest scale."""


def names_in(module: Path) -> set[str]:
    """Texts and names of keywords in a benchmark and in those that it imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.ImportFrom) and "benchmarks" in (node.module or ""):
            imported = FOLDER / f"{(node.module or '').rpartition('.')[2]}.py"
            found |= names_in(imported) if imported.exists() else set()
    return found


@pytest.mark.parametrize("benchmark", FIGURES)
def test_a_benchmark_names_every_figure_that_others_rely_on(benchmark: str) -> None:
    assert set(FIGURES[benchmark].split()) <= names_in(FOLDER / f"{benchmark}.py")


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.01, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert percentile([7.0], 0.5) == 7


def test_the_memory_of_a_process_is_below_its_peak() -> None:
    assert 1 < memory_mb_of(os.getpid()) <= memory_mb_of(os.getpid(), "VmHWM")
