"""What a protocol's probe remembers of devices between runs, such as where an agent's tables are.

Losing it costs a few requests a device, so what cannot be read is as if it were not there.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping

import sqlalchemy as sa

from metrics_pipeline.storage.operational import PROBE_MEMORIES, upsert


def load(connection: sa.Connection, protocol: str) -> dict[str, bytes]:
    """What `save` was given last, by device id."""
    query = sa.select(PROBE_MEMORIES.c.body).where(PROBE_MEMORIES.c.protocol == protocol)
    body = connection.execute(query).scalar_one_or_none()
    if body is None:
        return {}
    stored: dict[str, str] = json.loads(zlib.decompress(body))
    return {device: base64.b64decode(memory) for device, memory in stored.items()}


def save(connection: sa.Connection, protocol: str, memories: Mapping[str, bytes]) -> None:
    """Remember `memories`, by device id, and forget all others of `protocol`."""
    stored = {device: base64.b64encode(memory).decode() for device, memory in memories.items()}
    update = {"body": zlib.compress(json.dumps(stored).encode(), 1)}
    upsert(connection, PROBE_MEMORIES, {"protocol": protocol, **update}, update)
