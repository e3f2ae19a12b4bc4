"""Checkpoints in the operational database: the contract, over SQLite and PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import StoreUnavailable
from metrics_pipeline.core.ports import CheckpointStore
from metrics_pipeline.storage.checkpoints import (
    BlobCheckpointSettings,
    CheckpointSettings,
    DatabaseCheckpointSettings,
)
from metrics_pipeline.storage.open import open_checkpoints
from metrics_pipeline_tests.storage.checkpoint_contract import (
    KEY,
    CheckpointStoreContract,
    Place,
    at,
)

SECTION: TypeAdapter[DatabaseCheckpointSettings | BlobCheckpointSettings] = TypeAdapter(
    CheckpointSettings
)


def open_in_database(where: DatabaseSettings, owner: str) -> CheckpointStore:
    return open_checkpoints(DatabaseCheckpointSettings(), where, owner)


class TestInTheOperationalDatabase(CheckpointStoreContract):
    @pytest.fixture
    def place(self, settings: DatabaseSettings) -> Place:
        return Place(open_in_database, settings)


def test_a_database_that_is_not_there_is_unavailable_and_nothing_has_moved(tmp_path: Path) -> None:
    path = tmp_path / "operational.sqlite"
    path.write_bytes(b"This is no database. " * 1000)
    settings = DatabaseSettings(url=f"sqlite:///{path}")
    with closing(open_in_database(settings, "run 1")) as store:
        with pytest.raises(StoreUnavailable, match=r"operational\.sqlite: file is not a database"):
            store.claim([KEY])
        path.unlink()
        store.advance(KEY, None, at(1, store.claim([KEY])))
        assert store.find(KEY) == at(1, 1)


def test_the_operational_database_is_where_they_are_by_default() -> None:
    assert SECTION.validate_python({"kind": "operational_database"}) == DatabaseCheckpointSettings()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "exactly one of connection_string and account_url"),
        (
            {"connection_string": {"env": "A"}, "account_url": "https://a.example"},
            "exactly one of connection_string and account_url",
        ),
        ({"connection_string": "AccountKey=abc"}, "a secret is never written here"),
        ({"account_url": "http://a.example"}, "account_url"),
        ({"account_url": "https://a.example/?sv=1&sig=abc"}, "account_url"),
        ({"container": "Upper", "account_url": "https://a.example"}, "container"),
        ({"container": "a--b", "account_url": "https://a.example"}, "container"),
    ],
)
def test_a_section_that_cannot_work_is_refused(section: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        BlobCheckpointSettings.model_validate(
            {"kind": "blob", "container": "checkpoints", **section}
        )
    assert "abc" not in str(caught.value)


def test_a_section_for_blob_storage_names_its_secret() -> None:
    section = {"kind": "blob", "container": "checkpoints", "connection_string": {"env": "STORAGE"}}
    settings = SECTION.validate_python(section)
    assert isinstance(settings, BlobCheckpointSettings)
    assert settings.connection_string == SecretReference(env="STORAGE")
