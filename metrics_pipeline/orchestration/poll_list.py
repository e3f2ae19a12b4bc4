"""Which devices a run polls: those of the inventory that are of its shard, and due. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from metrics_pipeline.core.device_assets import shard_of
from metrics_pipeline.core.devices import Device
from metrics_pipeline.sources.inventory import DeviceRows
from metrics_pipeline.sources.probe_registry import PROBES

UNKNOWN_PROTOCOL = "unknown_protocol"
FIRST = "1"


@dataclass(frozen=True, slots=True)
class PollList:
    """The devices an asset polls, and which rows of the inventory nobody can poll, by reason."""

    devices: Sequence[Device]
    unusable: Mapping[str, int]
    examples: Sequence[str]


def wanted_ids(shard: str, shards: int) -> Callable[[str], bool] | None:
    """Whether a device is one that `list_devices` needs for `shard`; None where it needs all.

    What has no id, which is an empty one, is the first shard's.
    """
    if not shard:
        return None
    return lambda name: shard_of(name, shards) == shard if name else shard == FIRST


def list_devices(
    listed: DeviceRows, protocols: Collection[str], shard: str, shards: int
) -> PollList:
    """The devices of `protocols` in `shard`, or in all where that is empty.

    `listed` is what `wanted_ids` wants. What of it nobody can poll is told by the one who polls by
    all protocols.
    """
    everybody = listed.devices(protocols)
    devices = [each for each in everybody if not shard or shard_of(each.id, shards) == shard]
    if not set(protocols).issuperset(PROBES):
        return PollList(devices, {}, ())
    strange = {name: n for name, n in listed.by_protocol().items() if name not in PROBES}
    unusable = dict(listed.wrong)
    if strange:
        unusable[UNKNOWN_PROTOCOL] = sum(strange.values())
    examples = [f"{n} of protocol {name!r}" for name, n in sorted(strange.items())]
    return PollList(devices, unusable, (*listed.examples, *examples))


def select_due(
    devices: Iterable[Device],
    at_seconds: int,
    asked_seconds: Mapping[str, int],
    every_seconds: Callable[[str], int],
) -> list[Device]:
    """Of `devices` those that are due at `at_seconds`.

    `asked_seconds` says when each was last asked, `every_seconds` the cadence of a device type. So
    one whose time was missed, because a run was late or failed, is due the next time, and so is
    one that was never asked, or was by a clock that was ahead and has been set back since.
    """
    return [
        device
        for device in devices
        if (last := asked_seconds.get(device.id)) is None
        or at_seconds // (every := every_seconds(device.device_type)) != last // every
    ]
