"""The benchmark's output; no figure is asserted here but that nothing is lost."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.benchmarks import gateway


def test_the_last_line_is_one_json_object_with_all_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "TURNS", 2)
    gateway.main(["--json", "--robots", "5", "--seconds", "2", "--connects", "20"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["messages"], figures["acknowledged"], figures["lost"]) == (10, 10, 0)
    assert figures["connects_in"] == 20
    for name in ("rest_p99_ms", "messages_per_second", "rss_mb", "connection_ms"):
        assert figures[name] > 0, name
