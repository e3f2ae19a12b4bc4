"""A power cut right after checkpoints have moved: nothing before them is gone from the store."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from metrics_pipeline.simulators.event_hub.server import serve_event_hub
from metrics_pipeline_tests.ingestion.ingesting import (
    WAIT_SECONDS,
    Pipeline,
    append,
    errors,
    ingest_for_ever,
    is_drained,
    not_once,
    pipeline,
)
from metrics_pipeline_tests.power_cuts import SyncedFiles, watch_syncs

EVENTS = 400
CHECKPOINTS = 5
"""So many are moved before the power is cut."""


def run_until_the_power_is_cut(
    made: Pipeline, monkeypatch: pytest.MonkeyPatch, synced: SyncedFiles
) -> None:
    """An ingestion in a process of its own, killed after some checkpoints have moved."""
    context = multiprocessing.get_context("spawn")
    told, teller = context.Pipe(duplex=False)
    with monkeypatch.context() as patched:
        for name, value in synced.environment.items():
            patched.setenv(name, value)
        victim = context.Process(target=ingest_for_ever, args=(made, teller))
        victim.start()
    teller.close()
    for _ in range(CHECKPOINTS):
        assert told.poll(WAIT_SECONDS)
        told.recv()
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(WAIT_SECONDS)
    victim.close()
    told.close()


def test_a_checkpoint_that_survives_a_power_cut_has_all_events_before_it_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "syncs"
    folder.mkdir()
    synced = watch_syncs(folder)
    with serve_event_hub(partition_count=1) as hub:
        made = pipeline(hub, tmp_path)
        append(hub, range(EVENTS))
        run_until_the_power_is_cut(made, monkeypatch, synced)
        # The worst that can be: of the store all that was not synced is gone, and of the
        # checkpoints nothing is, for the disk happened to have written them.
        synced.cut_power(tmp_path / "embedded.sqlite")
        with made.opened() as (stream, stores):
            hub_names = (stream.namespace, stream.hub, stream.consumer_group)
            (checkpoint,) = stores.checkpoints.find_all(*hub_names).values()
        survived = made.stored()
        assert not_once(survived, len(survived)) == {}
        assert len(survived) > checkpoint.position.sequence_number > 0
        report = made.run(is_drained)
        assert errors(report) == []
        assert not_once(made.stored(), EVENTS) == {}
