"""Checkpoints in Azure Blob Storage, in the layout of the Azure SDKs' own checkpoint stores.

So another Event Hubs client can take over where we are, and we where it is. Facts: the source of
`azure-eventhub-checkpointstoreblob` 1.2.0. A partition has two blobs,
`{namespace}/{hub}/{consumer group}/checkpoint/{partition}` and `…/ownership/{partition}`, in lower
case; what is known is their metadata: `offset` and `sequencenumber` of the one, `ownerid` of the
other. Ours have `epoch` and `owner` besides in the metadata of a checkpoint, which other clients
ignore, and drop when they write. So that an epoch is never given twice, it is also the body of the
ownership blob, which they leave alone.

Compare-and-set is by ETag. A reader that was shut out before a partition had any checkpoint may
still make its first one (two blobs cannot be compared at once); the one that shut it out is then
told by CheckpointMoved, and its next run goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import ContainerClient

from metrics_pipeline.access.one_line import one_line
from metrics_pipeline.access.system_timing import SYSTEM_TIMING
from metrics_pipeline.core.backoff import Backoff, Timing
from metrics_pipeline.core.errors import (
    CheckpointMoved,
    ConfigurationError,
    StoreError,
    StoreUnavailable,
)
from metrics_pipeline.core.telemetry import Checkpoint, PartitionKey, Position
from metrics_pipeline.storage.checkpoints import BlobCheckpointSettings, refuse_backwards

AGAINST_OTHERS = Backoff(tries=20, base_seconds=0.02, cap_seconds=1.0)
"""How a claim begins again when somebody else wrote at the same moment."""

FIX = "Check checkpoints in the settings: account, container, rights, network."

_MOVED_MEANWHILE = (ResourceModifiedError, ResourceExistsError)


class _Overtaken(Exception):
    """Somebody else claims at the same time."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a checkpoint blob holds; without `etag` there is none."""

    checkpoint: Checkpoint | None = None
    owner: str = "nobody"
    etag: str | None = None

    @property
    def epoch(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.epoch


@dataclass(frozen=True, slots=True)
class _Ownership:
    """What an ownership blob holds; without `etag` there is none."""

    epoch: int = 0
    owner: str = "nobody"
    etag: str | None = None


class BlobCheckpoints:
    """`CheckpointStore` over a container that exists; may be shared between threads.

    `owner` is who writes, such as a run's id; others are told it.
    """

    def __init__(
        self, settings: BlobCheckpointSettings, owner: str, timing: Timing = SYSTEM_TIMING
    ) -> None:
        self._settings = settings
        self._timing = timing
        self._lock = threading.Lock()
        self._client: ContainerClient | None = None
        self._owner = quote(owner, safe=" !#$&'()*+,/:;=?@[]")  # metadata is ASCII
        account = settings.account_url or f"the account of {settings.connection_string}"
        self.name = f"checkpoints in container {settings.container} of {account}"

    def find(self, key: PartitionKey) -> Checkpoint | None:
        """The checkpoint of `key`; None while nothing of it has been stored."""
        with self._translating():
            return self._stored(key).checkpoint

    def find_all(self, namespace: str, hub: str, consumer_group: str) -> dict[str, Checkpoint]:
        """Every checkpoint of the consumer group, by partition."""
        folder = f"{namespace}/{hub}/{consumer_group}/checkpoint/".lower()
        with self._translating():
            blobs = self._container.list_blobs(name_starts_with=folder, include=["metadata"])
            return {
                blob.name.removeprefix(folder): self._checkpoint(blob.name, blob.metadata)
                for blob in blobs
            }

    def claim(self, keys: Collection[PartitionKey]) -> int:
        """The epoch for a reader of `keys`, greater than any before of each of them (from 1)."""
        ordered = sorted(set(keys), key=_checkpoint_name)
        for tried in range(1, AGAINST_OTHERS.tries + 1):
            with self._translating(), suppress(_Overtaken, *_MOVED_MEANWHILE):
                return self._claim(ordered)
            # Begin again, above the epoch of those who were faster.
            self._timing.sleep(AGAINST_OTHERS.wait_seconds(tried, self._timing.random))
        raise StoreUnavailable(
            self.name, "others claim the same partitions again and again", "Try again later."
        )

    def advance(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        """Make `new` the checkpoint of `key` if it is exactly `old`; CheckpointMoved otherwise."""
        refuse_backwards(self.name, key, old, new)
        self._replace(key, old, new)

    def rewind(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        """As `advance`, but `new` may lie before `old`."""
        self._replace(key, old, new)

    def close(self) -> None:
        """Give back connections."""
        if self._client is not None:
            self._client.close()

    # --- one partition ----------------------------------------------------------------------

    def _replace(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        with self._translating():
            stored = self._stored(key)
            if stored.checkpoint == old and self._highest_epoch(key, stored) <= new.epoch:
                try:
                    self._put(key, new, stored.etag)
                except _MOVED_MEANWHILE:
                    stored = self._stored(key)  # by another, or by a try whose answer was lost
                else:
                    return
            if stored.checkpoint == new:
                return
            held = self._ownership(key)
        epoch = max(held.epoch, stored.epoch)
        owner = held.owner if stored.checkpoint is None else stored.owner
        raise CheckpointMoved(
            self.name, key, old, stored.checkpoint, stored_epoch=epoch, owner=owner
        )

    def _highest_epoch(self, key: PartitionKey, stored: _Stored) -> int:
        """A claim marks the checkpoint; where there is none yet, the ownership knows."""
        return self._ownership(key).epoch if stored.checkpoint is None else stored.epoch

    def _stored(self, key: PartitionKey) -> _Stored:
        name = _checkpoint_name(key)
        try:
            found = self._container.get_blob_client(name).get_blob_properties()
        except ResourceNotFoundError as error:
            _refuse_missing_container(error)
            return _Stored()
        owner = _lowered(found.metadata).get("owner", "another client")
        return _Stored(self._checkpoint(name, found.metadata), owner, found.etag)

    def _put(self, key: PartitionKey, checkpoint: Checkpoint, etag: str | None) -> None:
        """Write it over the one with `etag`, or where there is none; else `_MOVED_MEANWHILE`."""
        blob = self._container.get_blob_client(_checkpoint_name(key))
        metadata = {
            "offset": checkpoint.position.offset,
            "sequencenumber": str(checkpoint.position.sequence_number),
            "epoch": str(checkpoint.epoch),
            "owner": self._owner,
        }
        if etag is None:
            blob.upload_blob(b"", metadata=metadata, overwrite=False)
        else:
            unchanged = MatchConditions.IfNotModified
            blob.set_blob_metadata(metadata, etag=etag, match_condition=unchanged)

    def _checkpoint(self, name: str, metadata: Mapping[str, str] | None) -> Checkpoint:
        known = _lowered(metadata)
        try:
            position = Position(known["offset"], int(known["sequencenumber"]))
            return Checkpoint(position, int(known.get("epoch", 0)))
        except (KeyError, ValueError) as error:
            raise StoreError(
                self.name,
                f"the metadata of blob {name} is not a checkpoint's ({error!r})",
                "Look at it; without it the partition is read from where there is none.",
            ) from error

    # --- claiming ---------------------------------------------------------------------------

    def _claim(self, keys: list[PartitionKey]) -> int:
        held = [(key, self._ownership(key)) for key in keys]
        marked = (self._stored(key).epoch for key in keys)
        epoch = 1 + max([*(each.epoch for _, each in held), *marked], default=0)
        for key, ownership in held:
            self._take(key, ownership, epoch)
            self._mark(key, epoch)
        return epoch

    def _ownership(self, key: PartitionKey) -> _Ownership:
        blob = self._container.get_blob_client(_ownership_name(key))
        try:
            found = blob.download_blob()
        except ResourceNotFoundError as error:
            _refuse_missing_container(error)
            return _Ownership()
        body = found.readall()
        owner = _lowered(found.properties.metadata).get("ownerid", "another client")
        return _Ownership(int(body) if body.isdigit() else 0, owner, found.properties.etag)

    def _take(self, key: PartitionKey, held: _Ownership, epoch: int) -> None:
        blob = self._container.get_blob_client(_ownership_name(key))
        condition: dict[str, Any] = {"overwrite": False}
        if held.etag is not None:
            unchanged = MatchConditions.IfNotModified
            condition = {"overwrite": True, "etag": held.etag, "match_condition": unchanged}
        blob.upload_blob(str(epoch).encode(), metadata={"ownerid": self._owner}, **condition)

    def _mark(self, key: PartitionKey, epoch: int) -> None:
        """Write `epoch` into the checkpoint, which an earlier reader may still be moving."""
        for _ in range(AGAINST_OTHERS.tries):
            stored = self._stored(key)
            if stored.checkpoint is None:
                return
            if stored.epoch >= epoch:
                raise _Overtaken
            try:
                self._put(key, Checkpoint(stored.checkpoint.position, epoch), stored.etag)
            except _MOVED_MEANWHILE:
                continue
            return
        raise _Overtaken

    # --- the container ----------------------------------------------------------------------

    @property
    def _container(self) -> ContainerClient:
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def _open(self) -> ContainerClient:
        settings = self._settings
        limits: dict[str, Any] = {
            "connection_timeout": settings.timeout_seconds,
            "read_timeout": settings.timeout_seconds,
            "retry_total": 0,  # who calls tries again, as with every store
        }
        if settings.account_url is not None:
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415  (heavy)

            credential = DefaultAzureCredential()
            return ContainerClient(
                settings.account_url, settings.container, credential=credential, **limits
            )
        assert settings.connection_string is not None
        text = settings.connection_string.read()
        try:
            return ContainerClient.from_connection_string(text, settings.container, **limits)
        except ValueError:
            # The cause is left out: it must not carry the key into a traceback.
            raise ConfigurationError(
                str(settings.connection_string),
                "this is not the connection string of a storage account",
                "Copy it from the account's page 'Access keys'.",
            ) from None

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except ConfigurationError as error:
            raise StoreError(self.name, f"{error.where}: {error.problem}", error.fix) from error
        except _MOVED_MEANWHILE:
            raise
        except HttpResponseError as error:
            status = error.status_code or 0
            passes = status in (408, 429) or status >= 500  # noqa: PLR2004  (server errors)
            kind = StoreUnavailable if passes else StoreError
            raise kind(self.name, one_line(error), FIX) from error
        except AzureError as error:
            raise StoreUnavailable(self.name, one_line(error), FIX) from error


def _checkpoint_name(key: PartitionKey) -> str:
    return f"{key.namespace}/{key.hub}/{key.consumer_group}/checkpoint/{key.partition}".lower()


def _ownership_name(key: PartitionKey) -> str:
    return f"{key.namespace}/{key.hub}/{key.consumer_group}/ownership/{key.partition}".lower()


def _lowered(metadata: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower(): value for name, value in (metadata or {}).items()}


def _refuse_missing_container(error: ResourceNotFoundError) -> None:
    if getattr(error, "error_code", None) == "ContainerNotFound":
        raise error
