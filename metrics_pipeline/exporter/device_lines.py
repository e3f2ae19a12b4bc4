"""Gauges of single devices: lines of the page, made once for each revision of an asset.

80,000 samples take prometheus_client 1.7 s a page. So these are written by a renderer of our own,
whose lines equal its lines, and a family that has not changed is not rendered again. Kept are the
numbers and the compressed lines; the lines themselves are there some hundred at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import islice

from prometheus_client.utils import floatToGoString

from metrics_pipeline.core.catalog import (
    DEVICE_LABELS,
    DEVICE_UP,
    OFFLINE,
    ONLINE,
    Catalog,
    Family,
    Metric,
)
from metrics_pipeline.core.points import FieldValue
from metrics_pipeline.exporter.pieces import Piece
from metrics_pipeline.storage import device_labels, snapshots
from metrics_pipeline.storage.device_labels import LabelledSnapshot

STATUS_NUMBERS = {ONLINE: 1.0, OFFLINE: 0.0}
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
LINES_AT_ONCE = 500
MAX_NAMED = 50
"""So many devices that are down are named to people."""

Numbers = Mapping[str, Mapping[str, float]]
"""By family and device."""

LabelBlocks = Mapping[str, bytes]
"""By device: `{device_id="…",…} `."""

Found = dict[str, dict[str, tuple[int, float]]]
"""While an asset is read: by family and device, the time of its value and its number."""


@dataclass(frozen=True, slots=True)
class Values:
    """What an asset said last, and how its devices are called, packed. None if nobody said how."""

    updated_at_ns: int = 0
    numbers: Numbers = field(default_factory=dict)
    labels: bytes | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """The samples of one family, the same in both formats; `dropped` more were too many."""

    family: Family
    samples: Piece
    dropped: int


@dataclass(frozen=True, slots=True)
class Reachability:
    """How many devices answer and how many do not; `named` are the first of these, by id."""

    up: int
    down: int
    named: tuple[str, ...]


class DeviceLines:
    """The numbers of every asset as it was last seen, and the blocks they make."""

    def __init__(self, catalog: Catalog, shown: Collection[str], max_series: int) -> None:
        """`shown` are names of families; of each at most `max_series` devices."""
        self._max_series = max_series
        self._metrics = _by_selector(
            metric for metric in catalog if metric.family.name in shown and _is_of_device(metric)
        )
        self._assets: dict[str, Values] = {}
        self._families = {m.family.name: m.family for m in self._metrics.values()}
        self.blocks: tuple[Block, ...] = ()
        self.reachability: Reachability | None = None
        """None where `device_up` is not shown or nothing has given it."""

    def update(self, changed: Collection[LabelledSnapshot]) -> None:
        """Take what has changed; `blocks` then are the new ones."""
        touched: set[str] = set()
        for snapshot in changed:
            before = self._assets.get(snapshot.asset, Values())
            after = self._assets[snapshot.asset] = self._read(snapshot)
            touched |= before.numbers.keys() | after.numbers.keys()
        kept = {block.family.name: block for block in self.blocks}
        fresh = self._render(touched)
        merged = {name: block for name, block in (kept | fresh).items() if block is not None}
        self.blocks = tuple(merged[name] for name in self._families if name in merged)

    def _read(self, snapshot: LabelledSnapshot) -> Values:
        found: Found = {}
        ids: dict[str, str] = {}
        if self._metrics and snapshot.labels is not None:
            for rows in snapshots.decode_in_batches(snapshot.body):
                self._add(rows, ids, found)
        numbers = {
            name: {device: number for device, (_, number) in found.pop(name).items()}
            for name in list(found)
        }
        return Values(snapshot.updated_at_ns, numbers, snapshot.labels)

    def _add(self, rows: Iterable[snapshots.Row], ids: dict[str, str], found: Found) -> None:
        for measurement, tags, fields, time_ns in rows:
            device = tags.get("device_id", "")
            for field_name, value in fields.items():
                metric = self._metrics.get((measurement, field_name, tags.get("metric_name", "")))
                number = None if metric is None else number_of(value)
                if metric is None or number is None:
                    continue
                family = found.setdefault(metric.family.name, {})
                if device not in family or family[device][0] <= time_ns:
                    # One text for each id: every row has its own.
                    family[ids.setdefault(device, device)] = time_ns, number

    def _render(self, names: Collection[str]) -> dict[str, Block | None]:
        """The families over all assets; of a device that two have the one written last counts."""
        ordered = sorted(self._assets.values(), key=lambda values: values.updated_at_ns)
        having = [
            (values.numbers, _label_blocks(device_labels.decode(values.labels)))
            for values in ordered
            if values.labels is not None and not values.numbers.keys().isdisjoint(names)
        ]
        return {name: self._block(name, having) for name in names}

    def _block(self, name: str, having: Iterable[tuple[Numbers, LabelBlocks]]) -> Block | None:
        shown: dict[str, tuple[bytes, float]] = {}
        for numbers, labels in having:
            for device, number in numbers.get(name, {}).items():
                if device in labels:  # else the inventory no longer has it
                    shown[device] = labels[device], number
        if name == DEVICE_UP.family.name:
            self.reachability = _reachability(shown) if shown else None
        return block_of(self._families[name], shown, self._max_series) if shown else None


def _reachability(shown: Mapping[str, tuple[bytes, float]]) -> Reachability:
    down = [device for device, (_, number) in shown.items() if not number]
    return Reachability(len(shown) - len(down), len(down), tuple(nsmallest(MAX_NAMED, down)))


def block_of(family: Family, shown: Mapping[str, tuple[bytes, float]], max_series: int) -> Block:
    """The samples of `family`: of each device its labels and a number, of at most `max_series`."""
    # By label, so that the same series stay from one refresh to the next.
    kept = sorted(shown)[:max_series]
    samples = Piece.of_parts(_in_parts(_lines(family.name, (shown[device] for device in kept))))
    return Block(family, samples, len(shown) - len(kept))


def _lines(name: str, samples: Iterable[tuple[bytes, float]]) -> Iterator[bytes]:
    encoded = name.encode()
    for label_block, number in samples:
        sample: str = floatToGoString(number)  # type: ignore[no-untyped-call]
        yield b"%b%b%b\n" % (encoded, label_block, sample.encode())


def _in_parts(lines: Iterator[bytes]) -> Iterator[bytes]:
    while part := b"".join(islice(lines, LINES_AT_ONCE)):
        yield part


def number_of(value: FieldValue) -> float | None:
    """What a gauge shows for `value`: 1 for online, 0 for offline, nothing for other words."""
    return STATUS_NUMBERS.get(value) if isinstance(value, str) else float(value)


def _is_of_device(metric: Metric) -> bool:
    return metric.family.labels == DEVICE_LABELS


def _by_selector(metrics: Iterable[Metric]) -> dict[tuple[str, str, str], Metric]:
    return {(m.measurement.name, m.field, m.selected_by): m for m in metrics}


def _label_blocks(devices: device_labels.Labels) -> LabelBlocks:
    """The labels of each device, their names in the alphabet's order."""
    return {
        device: label_block(dict(zip(DEVICE_LABELS, (device, *names), strict=True)))
        for device, names in devices.items()
    }


def label_block(labels: Mapping[str, str]) -> bytes:
    """`labels` as they stand on the page, and a space behind them."""
    pairs = (f'{name}="{value.translate(ESCAPES)}"' for name, value in sorted(labels.items()))
    # Half a character is a question mark: one odd name must not cost the whole page.
    return f"{{{','.join(pairs)}}} ".encode(errors="replace")
