"""Gauges of single LoRaWAN devices: lines of the page, made once for each revision of their rows.

They differ from those of polled devices (`device_lines.py`) in what names them: no inventory does,
so each row has its labels itself. A network of 10,000 devices is 60,000 samples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from metrics_pipeline.core.catalog import LORAWAN_DEVICE_METRICS
from metrics_pipeline.exporter.device_lines import Block, block_of, label_block, number_of
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.device_labels import LabelledSnapshot

Shown = dict[str, tuple[bytes, float]]
"""By device: its labels as they stand on the page, and a number."""


class LorawanLines:
    """The blocks that the rows of all LoRaWAN devices make, as they were last seen."""

    def __init__(self, shown: Collection[str], max_series: int) -> None:
        """`shown` are names of families; of each at most `max_series` devices."""
        self._metrics = {
            metric.field: metric for metric in LORAWAN_DEVICE_METRICS if metric.family.name in shown
        }
        self._max_series = max_series
        self.blocks: tuple[Block, ...] = ()

    def update(self, changed: Iterable[LabelledSnapshot]) -> None:
        """Take what has changed; `blocks` then are the new ones."""
        for snapshot in changed:
            found: dict[str, Shown] = {field: {} for field in self._metrics}
            for rows in snapshots.decode_in_batches(snapshot.body):
                self._add(rows, found)
            self.blocks = tuple(
                block_of(metric.family, found[field], self._max_series)
                for field, metric in self._metrics.items()
                if found[field]
            )

    def _add(self, rows: Iterable[snapshots.Row], found: dict[str, Shown]) -> None:
        for _, tags, fields, _ in rows:
            blocks: dict[tuple[str, ...], bytes] = {}
            for field, value in fields.items():
                metric = self._metrics.get(field)
                number = None if metric is None else number_of(value)
                if metric is None or number is None:
                    continue
                labels = metric.family.labels
                if labels not in blocks:
                    blocks[labels] = label_block({name: tags.get(name, "") for name in labels})
                found[field][tags["device_eui"]] = blocks[labels], number
