"""Gauges of single devices: lines of the page, made once for each revision of an asset.

80,000 samples take prometheus_client 1.7 s a page. So these are written by a renderer of our own,
whose lines equal its lines, and an asset that has not changed is not rendered again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.utils import floatToGoString

from metrics_pipeline.core.catalog import DEVICE_LABELS, OFFLINE, ONLINE, Catalog, Family, Metric
from metrics_pipeline.core.points import FieldValue
from metrics_pipeline.exporter.pieces import Piece
from metrics_pipeline.storage import device_labels, snapshots
from metrics_pipeline.storage.device_labels import LabelledSnapshot

STATUS_NUMBERS = {ONLINE: 1.0, OFFLINE: 0.0}
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})

Found = dict[str, dict[str, tuple[int, bytes]]]
"""While an asset is read: by family and device, the time of its value and its line."""


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of one family of one asset: a line for each device, in the order of their ids."""

    devices: tuple[str, ...]
    plain: bytes

    def by_device(self) -> dict[str, bytes]:
        """Each line by itself, without its end."""
        return dict(zip(self.devices, self.plain.split(b"\n"), strict=False))


@dataclass(frozen=True, slots=True)
class Block:
    """The samples of one family, the same in both formats; `dropped` more were too many."""

    family: Family
    samples: Piece
    dropped: int


class DeviceLines:
    """The lines of every asset as it was last seen, and the blocks they make."""

    def __init__(self, catalog: Catalog, shown: Collection[str], max_series: int) -> None:
        """`shown` are names of families; of each at most `max_series` devices."""
        self._max_series = max_series
        self._metrics = _by_selector(
            metric for metric in catalog if metric.family.name in shown and _is_of_device(metric)
        )
        self._assets: dict[str, tuple[int, dict[str, Lines]]] = {}
        self._families = {m.family.name: m.family for m in self._metrics.values()}
        self.blocks: tuple[Block, ...] = ()

    def update(self, changed: Collection[LabelledSnapshot]) -> None:
        """Take what has changed; `blocks` then are the new ones."""
        touched: set[str] = set()
        for snapshot in changed:
            _, before = self._assets.get(snapshot.asset, (0, {}))
            lines = self._render(snapshot)
            self._assets[snapshot.asset] = (snapshot.updated_at_ns, lines)
            touched |= before.keys() | lines.keys()
        kept = {block.family.name: block for block in self.blocks}
        fresh = {name: self._block(name) for name in touched}
        merged = {name: block for name, block in (kept | fresh).items() if block is not None}
        self.blocks = tuple(merged[name] for name in self._families if name in merged)

    def _render(self, snapshot: LabelledSnapshot) -> dict[str, Lines]:
        found: Found = {}
        if self._metrics and snapshot.labels is not None:
            labels = _label_blocks(device_labels.decode(snapshot.labels))
            for rows in snapshots.decode_in_batches(snapshot.body):
                self._add(rows, labels, found)
        return {name: _join(found.pop(name)) for name in list(found)}

    def _add(
        self, rows: Iterable[snapshots.Row], labels: Mapping[str, tuple[str, bytes]], found: Found
    ) -> None:
        for measurement, tags, fields, time_ns in rows:
            # The id as the labels have it, so that it is in memory once and not in every line.
            device, label_block = labels.get(tags.get("device_id", ""), ("", b""))
            if not label_block:
                continue  # the inventory no longer has it
            for field, value in fields.items():
                metric = self._metrics.get((measurement, field, tags.get("metric_name", "")))
                number = None if metric is None else number_of(value)
                if metric is None or number is None:
                    continue
                family = found.setdefault(metric.family.name, {})
                if device not in family or family[device][0] <= time_ns:
                    family[device] = time_ns, _line(metric.family.name, label_block, number)

    def _block(self, name: str) -> Block | None:
        """The family over all assets; of a device that two have the one written last counts."""
        ordered = sorted(self._assets.values(), key=lambda asset: asset[0])
        having = [families[name] for _, families in ordered if name in families]
        if not having:
            return None
        count, plain = len(having[0].devices), having[0].plain
        if len(having) > 1 or count > self._max_series:
            lines = {device: line for part in having for device, line in part.by_device().items()}
            # By label, so that the same series stay from one refresh to the next.
            kept = sorted(lines)[: self._max_series]
            count, plain = len(lines), b"".join([lines[device] + b"\n" for device in kept])
        return Block(self._families[name], Piece.of(plain), max(0, count - self._max_series))


def _line(name: str, label_block: bytes, number: float) -> bytes:
    sample: str = floatToGoString(number)  # type: ignore[no-untyped-call]
    return b"%b%b%b\n" % (name.encode(), label_block, sample.encode())


def _join(found: Mapping[str, tuple[int, bytes]]) -> Lines:
    devices = tuple(sorted(found))
    return Lines(devices, b"".join([found[device][1] for device in devices]))


def number_of(value: FieldValue) -> float | None:
    """What a gauge shows for `value`: 1 for online, 0 for offline, nothing for other words."""
    return STATUS_NUMBERS.get(value) if isinstance(value, str) else float(value)


def _is_of_device(metric: Metric) -> bool:
    return metric.family.labels == DEVICE_LABELS


def _by_selector(metrics: Iterable[Metric]) -> dict[tuple[str, str, str], Metric]:
    return {(m.measurement.name, m.field, m.selected_by): m for m in metrics}


def _label_blocks(devices: device_labels.Labels) -> dict[str, tuple[str, bytes]]:
    """Of each device its id and `{device_id="…",…} `, label names in the alphabet's order."""
    return {
        device: (device, _label_block(dict(zip(DEVICE_LABELS, (device, *names), strict=True))))
        for device, names in devices.items()
    }


def _label_block(labels: Mapping[str, str]) -> bytes:
    pairs = (f'{name}="{value.translate(ESCAPES)}"' for name, value in sorted(labels.items()))
    # Half a character is a question mark: one odd name must not cost the whole page.
    return f"{{{','.join(pairs)}}} ".encode(errors="replace")
