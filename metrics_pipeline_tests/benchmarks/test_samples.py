"""The figures of slots, from notes and a store; no figure of a run is asserted here."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.core.points import Point
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline_tests.benchmarks import samples

EVERY_NS = 5 * NS_PER_SECOND
FIRST_NS = 1_700_000_000 * NS_PER_SECOND
WINDOW = (FIRST_NS, FIRST_NS + 4 * EVERY_NS)


def note(slot: int, late_ms: float, cpu_seconds: float) -> dict[str, Any]:
    slot_ns = FIRST_NS + slot * EVERY_NS
    return {
        "source": "services",
        "slot_ns": slot_ns,
        "asked_ns": slot_ns + int(late_ms * 1e6),
        "measurements": ["service_metrics"],
        "threads": {"sampling 1": cpu_seconds},
    }


def figures(folder: Path, notes: list[dict[str, Any]], stored: set[int]) -> dict[str, Any]:
    settings = EmbeddedStoreSettings(path=folder / "embedded.sqlite")
    with closing(EmbeddedStore(settings)) as store:
        tags = {"service": "ingest"}
        times = [FIRST_NS + slot * EVERY_NS for slot in stored]
        store.write([Point("service_metrics", tags, {"healthy": 1}, time) for time in times])
    return samples.figures(folder, notes, {"services": 5}, WINDOW)


def test_the_contracts_figures_are_of_the_slots_that_were_due(tmp_path: Path) -> None:
    notes = [note(slot, late_ms=2.0, cpu_seconds=1 + slot * 0.05) for slot in range(4)]
    found = figures(tmp_path, notes, {0, 1, 2, 3})
    assert found["slots_hit_share"] == 1
    assert found["jitter_p99_ms"] == pytest.approx(2.0)
    assert found["cpu_ms_per_sample"] == pytest.approx(0.15 * 1000 / 20 * 5)


@pytest.mark.parametrize(
    ("late_ms", "stored", "why"),
    [(501.0, {0, 1, 2, 3}, "late"), (2.0, {0, 1, 2}, "not stored")],
)
def test_a_slot_that_was_asked_late_or_is_not_in_the_store_is_missed(
    late_ms: float, stored: set[int], why: str, tmp_path: Path
) -> None:
    notes = [*(note(slot, 2.0, 1.0) for slot in range(3)), note(3, late_ms, 1.0)]
    found = figures(tmp_path, notes, stored)
    assert found["slots_hit_share"] == 0.75
    assert found["missed_by_source"] == {"services": {why: 1}}


def test_a_slot_that_nobody_asked_in_is_missed(tmp_path: Path) -> None:
    found = figures(tmp_path, [note(slot, 2.0, 1.0) for slot in range(3)], {0, 1, 2, 3})
    assert found["missed_by_source"] == {"services": {"not asked": 1}}
