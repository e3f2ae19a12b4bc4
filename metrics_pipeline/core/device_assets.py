"""The assets that polls of devices give: their keys, jobs, and the shards they may come in."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

GROUP = "devices"

STATUS = f"{GROUP}/device_status"
STATUS_JOB = "device_status"
METRICS_JOB = "device_metrics"

WINDOW_SECONDS = 300
"""A run of the status job sweeps again and again for this long; then the next one is due."""


def metrics_asset(protocol: str) -> str:
    """The key of the asset that holds how the devices of `protocol` are doing."""
    return f"{GROUP}/{protocol}_metrics"


def shard_names(shards: int) -> Sequence[str]:
    """The keys of the shards, which are Dagster's partitions; none where one run polls all."""
    return [str(number) for number in range(1, shards + 1)] if shards > 1 else []


def shard_of(device_id: str, shards: int) -> str:
    """The shard that polls a device: the same in every process, for as long as `shards` is."""
    return str(zlib.crc32(device_id.encode()) % shards + 1)


def part_of(name: str, shard: str) -> str:
    """What the snapshot or memory called `name` is called where it is of one shard only."""
    return f"{name}/{shard}" if shard else name
