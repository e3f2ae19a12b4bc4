"""The benchmark's output; no figure is asserted here but that nothing is lost or doubled."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import telemetry


def test_the_last_line_is_one_json_object_with_all_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "WINDOW_SECONDS", 5)
    monkeypatch.setattr(telemetry, "STEADY_AFTER_SECONDS", 0)
    telemetry.main(["--json", "--events", "2000", "--rate", "40"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["events"], figures["lost"], figures["duplicated"]) == (2000, 0, 0)
    for name in ("events_per_second", "rss_mb", "p99_latency_s", "handover_p99_latency_s"):
        assert figures[name] > 0, name
