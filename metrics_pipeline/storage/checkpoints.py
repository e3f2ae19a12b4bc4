"""How far each partition of a hub is stored: compare-and-set in the operational database.

One statement moves a checkpoint, and only from where its reader left it: of several readers of one
partition, whatever they do and wherever they die, one gets on and the others are told.
`blob_checkpoints.py` does the same in Blob Storage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field, model_validator

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import CheckpointMoved, StoreError
from metrics_pipeline.core.telemetry import Checkpoint, PartitionKey, Position
from metrics_pipeline.storage.operational import (
    TELEMETRY_CHECKPOINTS,
    OperationalDatabase,
    insert_if_absent,
)

_ROW = TELEMETRY_CHECKPOINTS.c


class DatabaseCheckpointSettings(BaseModel, frozen=True, extra="forbid"):
    """Checkpoints in the operational database."""

    kind: Literal["operational_database"] = Field(
        default="operational_database", description="Keeps them beside the latest values."
    )


class BlobCheckpointSettings(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """Checkpoints in Azure Blob Storage, laid out as by the Azure SDKs' own checkpoint stores."""

    kind: Literal["blob"] = Field(
        description="Keeps them where another Event Hubs client finds them; needs the extra `blob`."
    )
    container: str = Field(
        pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$", description="The container, which must exist."
    )
    connection_string: SecretReference | None = Field(
        default=None, description="Where the storage account's connection string is."
    )
    account_url: str | None = Field(
        default=None,
        pattern=r"^https://[^/?#@\s]+/?$",
        description="`https://NAME.blob.core.windows.net` instead: azure-identity's "
        "DefaultAzureCredential then says who we are, to a container that grants it the role "
        "Storage Blob Data Contributor.",
    )
    timeout_seconds: float = Field(
        default=10.0, gt=0, le=60, description="What one try of one request may take."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> BlobCheckpointSettings:
        if (self.connection_string is None) == (self.account_url is None):
            raise ValueError("give exactly one of connection_string and account_url")
        return self


CheckpointSettings = Annotated[
    DatabaseCheckpointSettings | BlobCheckpointSettings, Field(discriminator="kind")
]
"""Where the checkpoints of telemetry are."""


class DatabaseCheckpoints:
    """`CheckpointStore` over the operational database; may be shared between threads.

    `owner` is who writes, such as a run's id; others are told it.
    """

    def __init__(
        self,
        database: OperationalDatabase,
        owner: str,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = database
        self._owner = owner
        self._clock_ns = clock_ns

    @property
    def name(self) -> str:
        """Where it is."""
        return f"checkpoints in the operational database {self._database.name}"

    def find(self, key: PartitionKey) -> Checkpoint | None:
        """The checkpoint of `key`; None while nothing of it has been stored."""
        with self._database.reading() as connection:
            row = _find_row(connection, key)
        return None if row is None else _checkpoint(row)

    def find_all(self, namespace: str, hub: str, consumer_group: str) -> dict[str, Checkpoint]:
        """Every checkpoint of the consumer group, by partition."""
        rows = sa.select(TELEMETRY_CHECKPOINTS).where(
            _ROW.namespace == namespace.lower(),
            _ROW.hub == hub.lower(),
            _ROW.consumer_group == consumer_group.lower(),
        )
        with self._database.reading() as connection:
            found = {row.partition: _checkpoint(row) for row in connection.execute(rows)}
        return {partition: each for partition, each in found.items() if each is not None}

    def claim(self, keys: Collection[PartitionKey]) -> int:
        """The epoch for a reader of `keys`, greater than any before of each of them (from 1)."""
        # In one order, so that two readers never wait for each other.
        ordered = sorted(set(keys), key=_identity)
        with self._database.writing() as connection:
            epoch = 1 + max((_lock(connection, key) for key in ordered), default=0)
            for key in ordered:
                connection.execute(_update(key).values(epoch=epoch, **self._stamp()))
        return epoch

    def advance(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        """Make `new` the checkpoint of `key` if it is exactly `old`; CheckpointMoved otherwise."""
        refuse_backwards(self.name, key, old, new)
        self._replace(key, old, new)

    def rewind(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        """As `advance`, but `new` may lie before `old`."""
        self._replace(key, old, new)

    def close(self) -> None:
        """Close the operational database."""
        self._database.close()

    def _replace(self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint) -> None:
        columns = {
            "offset": new.position.offset,
            "sequence_number": new.position.sequence_number,
            "epoch": new.epoch,
            **self._stamp(),
        }
        statement = _update(key).where(_ROW.epoch <= new.epoch, *_is(old)).values(**columns)
        with self._database.writing() as connection:
            if connection.execute(statement).rowcount:
                return
            if old is None and insert_if_absent(
                connection, TELEMETRY_CHECKPOINTS, {**_columns(key), **columns}
            ):
                return
            row = _find_row(connection, key)
        self._refuse_unless_done(key, old, new, row)

    def _refuse_unless_done(
        self, key: PartitionKey, old: Checkpoint | None, new: Checkpoint, row: sa.Row[Any] | None
    ) -> None:
        stored = None if row is None else _checkpoint(row)
        if stored != new:
            epoch, owner = (0, "nobody") if row is None else (row.epoch, row.owner)
            raise CheckpointMoved(self.name, key, old, stored, stored_epoch=epoch, owner=owner)

    def _stamp(self) -> dict[str, object]:
        return {"owner": self._owner, "updated_at_ns": self._clock_ns()}


def refuse_backwards(
    store: str, key: PartitionKey, old: Checkpoint | None, new: Checkpoint
) -> None:
    """StoreError if `new` lies before `old`."""
    if old is None or new.position.sequence_number >= old.position.sequence_number:
        return
    raise StoreError(
        store,
        f"the checkpoint of partition {key.partition} of {key.hub} would go back from sequence "
        f"number {old.position.sequence_number} to {new.position.sequence_number}",
        "Only a rewind does that; a reader's checkpoints go forward.",
    )


def _identity(key: PartitionKey) -> tuple[str, str, str, str]:
    """What the hub takes `key` for: names are the same in upper and lower case."""
    return (
        key.namespace.lower(),
        key.hub.lower(),
        key.consumer_group.lower(),
        key.partition.lower(),
    )


def _columns(key: PartitionKey) -> dict[str, str]:
    names = ("namespace", "hub", "consumer_group", "partition")
    return dict(zip(names, _identity(key), strict=True))


def _at(key: PartitionKey) -> Iterable[sa.ColumnElement[bool]]:
    return (_ROW[name] == value for name, value in _columns(key).items())


def _update(key: PartitionKey) -> sa.Update:
    return sa.update(TELEMETRY_CHECKPOINTS).where(*_at(key))


def _is(old: Checkpoint | None) -> tuple[sa.ColumnElement[bool], ...]:
    if old is None:
        return (_ROW.sequence_number.is_(None),)
    return (
        _ROW.offset == old.position.offset,
        _ROW.sequence_number == old.position.sequence_number,
        _ROW.epoch == old.epoch,
    )


def _find_row(connection: sa.Connection, key: PartitionKey) -> sa.Row[Any] | None:
    return connection.execute(sa.select(TELEMETRY_CHECKPOINTS).where(*_at(key))).one_or_none()


def _lock(connection: sa.Connection, key: PartitionKey) -> int:
    """The epoch of `key`, 0 if it was never claimed; nobody else changes it before our end."""
    first = {**_columns(key), "epoch": 0, "owner": "", "updated_at_ns": 0}
    insert_if_absent(connection, TELEMETRY_CHECKPOINTS, first)
    row = sa.select(_ROW.epoch).where(*_at(key)).with_for_update()
    epoch: int = connection.execute(row).scalar_one()
    return epoch


def _checkpoint(row: sa.Row[Any]) -> Checkpoint | None:
    if row.sequence_number is None:
        return None
    return Checkpoint(Position(row.offset, row.sequence_number), row.epoch)
