"""What the devices of an asset are called: written by its sweep, read by the exporter.

The points of a device carry its id alone. So a sweep leaves host name and type of every device that
it asked, beside its snapshot and in the same transaction, and the exporter never needs the
inventory. A device that is not among them is not shown: the inventory no longer has it.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from metrics_pipeline.core.devices import Device
from metrics_pipeline.storage.operational import DEVICE_LABELS, SNAPSHOTS, upsert

Labels = Mapping[str, tuple[str, str]]
"""Host name and type of each device, by its id."""

State = tuple[int, str]
"""Revision of a snapshot and digest of its labels: if neither changed, nothing did."""


@dataclass(frozen=True, slots=True)
class LabelledSnapshot:
    """A snapshot and the labels of its devices, both packed. Times in ns since the epoch."""

    asset: str
    state: State
    updated_at_ns: int
    complete_at_ns: int | None
    body: bytes
    labels: bytes | None
    """None if no sweep ever left any."""


def replace(connection: sa.Connection, asset: str, devices: Iterable[Device]) -> None:
    """Make `devices`, which are all that `asset` asks, those that are shown; in a transaction."""
    body = encode({device.id: (device.hostname, device.device_type) for device in devices})
    update = {"digest": hashlib.sha256(body).hexdigest(), "body": body}
    digest = sa.select(DEVICE_LABELS.c.digest).where(DEVICE_LABELS.c.asset == asset)
    if connection.execute(digest).scalar_one_or_none() == update["digest"]:
        return  # as nearly always: a sweep of status comes every 30 s
    upsert(connection, DEVICE_LABELS, {"asset": asset, **update}, update)


def find_changed(
    connection: sa.Connection, assets: Collection[str], known: Mapping[str, State]
) -> list[LabelledSnapshot]:
    """The snapshots of `assets` with their labels, where either is not as `known`."""
    heads = connection.execute(_select(assets, SNAPSHOTS.c.asset))
    changed = [row.asset for row in heads if known.get(row.asset) != _state(row)]
    if not changed:
        return []
    bodies = (DEVICE_LABELS.c.body.label("labels"), *SNAPSHOTS.c)
    return [
        LabelledSnapshot(
            row.asset, _state(row), row.updated_at_ns, row.complete_at_ns, row.body, row.labels
        )
        for row in connection.execute(_select(changed, *bodies))
    ]


def _select(
    assets: Collection[str], *columns: sa.ColumnElement[object]
) -> sa.Select[tuple[object]]:
    # One statement for both tables, so that they are of one transaction of the writer.
    return (
        sa.select(SNAPSHOTS.c.revision, DEVICE_LABELS.c.digest, *columns)
        .select_from(SNAPSHOTS.outerjoin(DEVICE_LABELS, SNAPSHOTS.c.asset == DEVICE_LABELS.c.asset))
        .where(SNAPSHOTS.c.asset.in_(assets))
    )


def _state(row: sa.Row[tuple[object]]) -> State:
    return row.revision, row.digest or ""


def encode(labels: Labels) -> bytes:
    """`labels` as compressed JSON, the same bytes for the same labels."""
    return zlib.compress(json.dumps(labels, sort_keys=True, separators=(",", ":")).encode(), 1)


def decode(body: bytes) -> dict[str, tuple[str, str]]:
    """The labels in `body`, as `encode` was given them."""
    pairs: dict[str, list[str]] = json.loads(zlib.decompress(body))
    return {device: (hostname, kind) for device, (hostname, kind) in pairs.items()}
