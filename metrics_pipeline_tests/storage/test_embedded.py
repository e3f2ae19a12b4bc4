"""The embedded store: the contract, several processes, sudden death, and a disk that says no."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline_tests.storage.contract import ExactStoreContract, StoreUnderTest


class TestEmbeddedStore(ExactStoreContract):
    @pytest.fixture
    def tested(self, tmp_path: Path) -> Iterator[StoreUnderTest]:
        store = EmbeddedStore(EmbeddedStoreSettings(path=tmp_path / "state" / "points.sqlite"))
        yield StoreUnderTest(store, lambda measurement: store.read(measurement, 0, 2**63 - 1))
        store.close()
