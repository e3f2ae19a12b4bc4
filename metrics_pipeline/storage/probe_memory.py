"""What a protocol's probe remembers of devices between runs, such as where an agent's tables are.

Losing it costs a few requests a device, so what cannot be read is as if it were not there.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping

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
    update = {"body": b"".join(_packed(memories))}
    upsert(connection, PROBE_MEMORIES, {"protocol": protocol, **update}, update)


def _packed(memories: Mapping[str, bytes]) -> Iterator[bytes]:
    """Compressed JSON, a device at a time: all of it at once is 50 MB with 10,000 devices."""
    packing = zlib.compressobj(1)
    before = "{"
    for device, memory in memories.items():
        packed = base64.b64encode(memory).decode()
        yield packing.compress(f'{before}{json.dumps(device)}:"{packed}"'.encode())
        before = ","
    yield packing.compress(b"}" if memories else b"{}")
    yield packing.flush()
