"""What telemetry opens: only what is asked for, and all of it is closed again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.telemetry import BatchLimits
from metrics_pipeline.settings import Settings
from metrics_pipeline.simulators.event_hub.server import serve_event_hub
from metrics_pipeline.telemetry_connections import open_telemetry
from metrics_pipeline_tests.patience import PATIENCE_SECONDS


def settings(folder: Path, **sections: Any) -> Settings:
    document = {"version": 1, "sources": {}, **sections}
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


def of_a_hub(folder: Path) -> Settings:
    return settings(folder, telemetry={"source": {"connection_string": {"file": "event_hub"}}})


def test_what_is_not_asked_for_is_not_opened(tmp_path: Path) -> None:
    with open_telemetry(of_a_hub(tmp_path), "test") as opened:
        with pytest.raises(ConfigurationError, match="event_hub"):
            _ = opened.stream  # its connection string is not there
        with opened.database.writing():
            pass
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["operational.sqlite"]


def test_each_is_opened_once_and_all_are_of_the_same_hub(tmp_path: Path) -> None:
    with serve_event_hub(partition_count=2) as hub:
        (tmp_path / "event_hub").write_text(hub.connection_string)
        with open_telemetry(of_a_hub(tmp_path), "test") as opened:
            assert opened.stream is opened.stream
            assert set(opened.stream.partitions()) == {"0", "1"}
            assert opened.dead_letters.counts() == {}
            stream = opened.stream
            hub_names = (stream.namespace, stream.hub, stream.consumer_group)
            assert opened.checkpoints.find_all(*hub_names) == {}


def test_at_the_end_nobody_reads_any_more(tmp_path: Path) -> None:
    with serve_event_hub() as hub:
        (tmp_path / "event_hub").write_text(hub.connection_string)
        with open_telemetry(of_a_hub(tmp_path), "test") as opened:
            opened.stream.open("0", None, epoch=1).receive(BatchLimits(max_wait_seconds=0.05))
            assert hub.receivers() == [("$default", "0", 1)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while hub.receivers():
            assert time.monotonic() < deadline


def test_settings_without_telemetry_are_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="no such section"),
        open_telemetry(settings(tmp_path), "test"),
    ):
        pass
