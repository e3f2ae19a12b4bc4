"""Checkpoints in Blob Storage: the contract, and the Azure SDKs' own stores beside ours.

Against a real Azurite; the other clients are Microsoft's `azure-eventhub-checkpointstoreblob`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import (
    CheckpointMoved,
    ConfigurationError,
    StoreError,
    StoreUnavailable,
)
from metrics_pipeline.core.ports import CheckpointStore
from metrics_pipeline.core.telemetry import Checkpoint
from metrics_pipeline.storage.checkpoints import BlobCheckpointSettings
from metrics_pipeline.storage.open import open_checkpoints
from metrics_pipeline_tests.azurite import KEY as ACCOUNT_KEY
from metrics_pipeline_tests.azurite import azurite, connection_string
from metrics_pipeline_tests.servers import require_module
from metrics_pipeline_tests.storage.checkpoint_contract import (
    KEY,
    KEYS,
    NAMESPACE,
    CheckpointStoreContract,
    Place,
    at,
)

CONTAINER = "checkpoints"
GROUP = {
    "fully_qualified_namespace": NAMESPACE,
    "eventhub_name": "uplinks",
    "consumer_group": "$Default",
}
OTHER_KEY = "bm90IHRoZSBrZXk="
NO_DATABASE = DatabaseSettings(url="sqlite:///not-used.sqlite")


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    """The connection string of a running service."""
    require_the_extra()
    with azurite() as text:
        yield text


@pytest.fixture
def container(account: str) -> Iterator[Any]:
    """An empty container."""
    from azure.storage.blob import ContainerClient

    with ContainerClient.from_connection_string(account, CONTAINER) as client:
        client.create_container()
        yield client
        client.delete_container()


@pytest.fixture
def where(account: str, container: Any, tmp_path: Path) -> BlobCheckpointSettings:
    return settings_for(account, tmp_path)


@pytest.fixture
def store(where: BlobCheckpointSettings) -> Iterator[CheckpointStore]:
    with closing(open_in_blobs(where, "run 1")) as opened:
        yield opened


def settings_for(account: str, folder: Path, container: str = CONTAINER) -> BlobCheckpointSettings:
    secret = folder / "connection_string"
    secret.write_text(account)
    return BlobCheckpointSettings(
        kind="blob",
        container=container,
        connection_string=SecretReference(file=secret),
        timeout_seconds=5,
    )


def open_in_blobs(where: BlobCheckpointSettings, owner: str) -> CheckpointStore:
    return open_checkpoints(where, NO_DATABASE, owner)


class TestInBlobStorage(CheckpointStoreContract):
    STEPS = 6
    KILLS = 3

    @pytest.fixture
    def place(self, where: BlobCheckpointSettings) -> Place:
        return Place(open_in_blobs, where)


# --- other clients --------------------------------------------------------------------------------


class SyncClient:
    """The synchronous `BlobCheckpointStore` of Microsoft's package."""

    def __init__(self, account: str) -> None:
        self._account = account

    def call(self, method: str, *arguments: Any) -> Any:
        from azure.eventhub.extensions.checkpointstoreblob import BlobCheckpointStore

        with BlobCheckpointStore.from_connection_string(self._account, CONTAINER) as opened:
            return getattr(opened, method)(*arguments)


class AsyncClient:
    """The asynchronous one."""

    def __init__(self, account: str) -> None:
        self._account = account

    def call(self, method: str, *arguments: Any) -> Any:
        return asyncio.run(self._call(method, arguments))

    async def _call(self, method: str, arguments: Any) -> Any:
        from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore

        async with BlobCheckpointStore.from_connection_string(self._account, CONTAINER) as opened:
            return await getattr(opened, method)(*arguments)


@pytest.fixture(params=[SyncClient, AsyncClient])
def client(request: pytest.FixtureRequest, account: str) -> Any:
    require_module("azure.eventhub.extensions", "make install-test")
    return request.param(account)


def theirs(sequence_number: int) -> dict[str, Any]:
    """A checkpoint as other clients pass it."""
    known = at(sequence_number, 0).position
    return {
        **GROUP,
        "partition_id": "0",
        "offset": known.offset,
        "sequence_number": sequence_number,
    }


def claim_of_theirs(etag: str | None = None) -> dict[str, Any]:
    return {**GROUP, "partition_id": "0", "owner_id": "their processor", "etag": etag}


def test_another_client_goes_on_from_our_checkpoint(store: CheckpointStore, client: Any) -> None:
    store.advance(KEY, None, at(5, store.claim(KEYS)))
    assert client.call("list_checkpoints", *GROUP.values()) == [theirs(5)]


def test_another_client_sees_who_has_claimed(store: CheckpointStore, client: Any) -> None:
    store.claim(KEYS)
    owned = client.call("list_ownership", *GROUP.values())
    assert {each["partition_id"]: each["owner_id"] for each in owned} == dict.fromkeys(
        "012", "run 1"
    )


def test_a_claim_leaves_no_checkpoint_that_others_could_not_read(
    store: CheckpointStore, client: Any
) -> None:
    store.claim(KEYS)
    assert client.call("list_checkpoints", *GROUP.values()) == []


def test_we_go_on_from_another_client_s_checkpoint(store: CheckpointStore, client: Any) -> None:
    client.call("update_checkpoint", theirs(7))
    assert store.find(KEY) == at(7, 0)
    assert store.find_all(*GROUP.values()) == {"0": at(7, 0)}
    epoch = store.claim([KEY])
    assert store.find(KEY) == at(7, epoch)
    store.advance(KEY, at(7, epoch), at(8, epoch))
    assert client.call("list_checkpoints", *GROUP.values()) == [theirs(8)]


def test_another_client_that_took_over_shuts_us_out(store: CheckpointStore, client: Any) -> None:
    epoch = store.claim([KEY])
    store.advance(KEY, None, at(5, epoch))
    client.call("update_checkpoint", theirs(7))
    with pytest.raises(CheckpointMoved, match="written by another client;") as caught:
        store.advance(KEY, at(5, epoch), at(6, epoch))
    assert caught.value.stored == at(7, 0)


def test_another_client_at_our_position_shuts_us_out_too(
    store: CheckpointStore, client: Any
) -> None:
    epoch = store.claim([KEY])
    store.advance(KEY, None, at(5, epoch))
    client.call("update_checkpoint", theirs(5))
    with pytest.raises(CheckpointMoved):
        store.advance(KEY, at(5, epoch), at(6, epoch))


def test_epochs_go_on_after_another_client_has_claimed_and_written(
    store: CheckpointStore, client: Any
) -> None:
    assert [store.claim([KEY]) for _ in range(4)] == [1, 2, 3, 4]
    (owned,) = client.call("list_ownership", *GROUP.values())
    assert client.call("claim_ownership", [claim_of_theirs(owned["etag"])])
    client.call("update_checkpoint", theirs(5))
    assert store.claim([KEY]) == 5


def test_another_client_whose_ownership_we_took_cannot_renew_it(
    store: CheckpointStore, client: Any
) -> None:
    (owned,) = client.call("claim_ownership", [claim_of_theirs()])
    store.claim([KEY])
    assert client.call("claim_ownership", [claim_of_theirs(owned["etag"])]) == []


def test_the_layout_is_that_of_the_azure_sdks(store: CheckpointStore, container: Any) -> None:
    store.advance(KEY, None, at(5, store.claim([KEY])))
    blobs = {blob.name: blob.metadata for blob in container.list_blobs(include=["metadata"])}
    folder = f"{NAMESPACE}/uplinks/$default"
    assert blobs == {
        f"{folder}/checkpoint/0": {
            "offset": "240",
            "sequencenumber": "5",
            "epoch": "1",
            "owner": "run 1",
        },
        f"{folder}/ownership/0": {"ownerid": "run 1"},
    }


def test_an_owner_of_any_name_can_write(where: BlobCheckpointSettings) -> None:
    with closing(open_in_blobs(where, "Läufer\n1")) as store:
        store.advance(KEY, None, at(1, store.claim([KEY])))
        with pytest.raises(CheckpointMoved, match="written by L%C3%A4ufer%0A1;"):
            store.advance(KEY, None, at(2, 1))


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata", [{}, {"offset": "1"}, {"offset": "1", "sequencenumber": "no_sequence_number"}]
)
def test_a_blob_that_is_no_checkpoint_is_named(
    store: CheckpointStore, container: Any, metadata: dict[str, str]
) -> None:
    name = f"{NAMESPACE}/uplinks/$default/checkpoint/0"
    container.upload_blob(name, b"", metadata=metadata)
    for look in (lambda: store.find(KEY), lambda: store.claim([KEY])):
        with pytest.raises(StoreError, match="is not a checkpoint's") as caught:
            look()
        assert f"blob {name}" in str(caught.value)
        assert not caught.value.retry_helps


def test_a_body_of_an_ownership_that_is_not_ours_is_no_epoch(
    store: CheckpointStore, container: Any
) -> None:
    name = f"{NAMESPACE}/uplinks/$default/ownership/0"
    container.upload_blob(name, b"somebody's notes", metadata={"ownerid": "x"})
    assert store.claim([KEY]) == 1


def require_the_extra() -> None:
    require_module("azure.storage", "make install-test")


def fails(where: BlobCheckpointSettings) -> StoreError:
    require_the_extra()
    with (
        closing(open_in_blobs(where, "run 1")) as store,
        pytest.raises(StoreError) as caught,
    ):
        store.advance(KEY, None, at(1, store.claim([KEY])))
    shown = "".join(traceback.format_exception(caught.value))
    assert ACCOUNT_KEY not in shown
    assert OTHER_KEY not in shown
    return caught.value


def test_a_container_that_is_not_there_is_told(account: str, tmp_path: Path) -> None:
    error = fails(settings_for(account, tmp_path, "nothing-of-that-name"))
    assert not error.retry_helps
    assert "The specified container does not exist" in str(error)
    assert "checkpoints in container nothing-of-that-name" in str(error)
    with (
        closing(open_in_blobs(settings_for(account, tmp_path, "nothing"), "run 1")) as store,
        pytest.raises(StoreError),
    ):
        store.find(KEY)


def test_a_key_that_is_wrong_is_told_without_it(
    account: str, container: Any, tmp_path: Path
) -> None:
    error = fails(settings_for(account.replace(ACCOUNT_KEY, OTHER_KEY), tmp_path))
    assert not error.retry_helps
    assert "authenticat" in str(error)


@pytest.mark.parametrize("text", ["AccountKey", f"AccountKey={OTHER_KEY};AccountName", "x=y"])
def test_what_is_no_connection_string_is_told_without_it(text: str, tmp_path: Path) -> None:
    error = fails(settings_for(text, tmp_path))
    assert not error.retry_helps
    assert "this is not the connection string of a storage account" in str(error)


def test_a_connection_string_that_is_not_there_is_told(tmp_path: Path) -> None:
    where = settings_for("x", tmp_path)
    (tmp_path / "connection_string").unlink()
    error = fails(where)
    assert not error.retry_helps
    assert "cannot be read (FileNotFoundError)" in str(error)


def test_a_service_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    error = fails(settings_for(connection_string(port), tmp_path))
    assert isinstance(error, StoreUnavailable)
    assert "refused" in str(error)


def test_without_the_extra_one_is_told_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "metrics_pipeline.storage.blob_checkpoints", raising=False)
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(ConfigurationError, match="pip install --require-hashes"):
        open_in_blobs(settings_for("x", tmp_path), "run 1")


def test_what_was_stored_is_of_the_type_that_was_given(store: CheckpointStore) -> None:
    store.advance(KEY, None, at(5, 1))
    found = store.find(KEY)
    assert isinstance(found, Checkpoint)
    assert isinstance(found.position.offset, str)
    assert isinstance(found.position.sequence_number, int)
