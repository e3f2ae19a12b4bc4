"""The benchmark's output on a small fleet; no figure is asserted but that none is wrong."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import snmp

CPU_TIMES = (
    "v3_cpu_ms_per_device",
    "v3_first_cpu_ms_per_device",
    "v3_peer_cpu_ms_per_device",
    "discovery_cpu_ms_per_device",
    "memories_cpu_ms_per_device",
    "publish_cpu_ms_per_device",
)


def test_the_last_line_is_one_json_object_without_a_wrong_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    snmp.main(["--json", "--devices", "20", "--dead-share", "0", "--rounds", "1"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["devices"] == 20
    assert figures["cpu_ms_per_device"] > 0
    assert figures["peer_cpu_ms_per_device"] >= 0
    assert (figures["wrong_values"], figures["missing_values"]) == (0, 0)
    assert figures["peer_missing_values"] == 0
    assert {"sweep_s", "rss_mb", *CPU_TIMES} <= set(figures)
