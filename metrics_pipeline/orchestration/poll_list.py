"""Which devices a run polls: those of the inventory that are of its shard, and due. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from metrics_pipeline.core.device_assets import shard_of
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.points import Point
from metrics_pipeline.sources.inventory import DeviceRows
from metrics_pipeline.sources.probe_registry import PROBES

UNKNOWN_PROTOCOL = "unknown_protocol"


@dataclass(frozen=True, slots=True)
class PollList:
    """The devices an asset polls, and which rows of the inventory nobody can poll, by reason."""

    devices: Sequence[Device]
    unusable: Mapping[str, int]
    examples: Sequence[str]


def list_devices(
    listed: DeviceRows, protocols: Collection[str], shard: str, shards: int
) -> PollList:
    """The devices of `protocols` in `shard`, or in all where that is empty."""
    devices = listed.devices(protocols)
    if shard:
        devices = [device for device in devices if shard_of(device.id, shards) == shard]
    strange = {name: n for name, n in listed.by_protocol().items() if name not in PROBES}
    unusable = dict(listed.wrong)
    if strange:
        unusable[UNKNOWN_PROTOCOL] = sum(strange.values())
    examples = [f"{n} of protocol {name!r}" for name, n in sorted(strange.items())]
    return PollList(devices, unusable, (*listed.examples, *examples))


def select_due(
    devices: Iterable[Device],
    at_seconds: int,
    last_seconds: int | None,
    every_seconds: Callable[[str], int],
) -> list[Device]:
    """Of `devices` those whose type is due at `at_seconds`; all, where nobody was asked before.

    `last_seconds` is when somebody was last asked, `every_seconds` the cadence of a device type.
    So one whose time was missed, because a run was late or failed, is due the next time.
    """
    if last_seconds is None:
        return list(devices)
    return [
        device
        for device in devices
        if at_seconds // (every := every_seconds(device.device_type)) > last_seconds // every
    ]


def points_to_keep(
    points: Iterable[Point], listed: Iterable[Device], asked: Iterable[Device]
) -> list[Point]:
    """Of the `points` shown until now those of devices that are listed, but not asked this time."""
    kept = {device.id for device in listed} - {device.id for device in asked}
    return [point for point in points if point.tags["device_id"] in kept]
