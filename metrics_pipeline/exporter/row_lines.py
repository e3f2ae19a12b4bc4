"""Gauges of single LoRaWAN devices and robots: lines of the page, made once for each revision of
their rows, and when one of them has been silent for too long.

They differ from those of polled devices (`device_lines.py`) in what names them: no inventory does,
so each row has its labels itself. A network of 10,000 devices is 60,000 samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from metrics_pipeline.core.catalog import Metric
from metrics_pipeline.exporter.device_lines import Block, block_of, label_block, number_of
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.device_labels import LabelledSnapshot

NEVER_NS = 2**63 - 1

Shown = dict[str, tuple[bytes, float]]
"""By device: its labels as they stand on the page, and a number."""


class RowLines:
    """The blocks that the rows of all who send by themselves make, as they were last seen."""

    def __init__(
        self,
        metrics: Iterable[Metric],
        tag: str,
        *,
        shown: Collection[str],
        max_series: int,
        kept_ns: int,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """A row has fields of `metrics`, and `tag` is who it is of.

        `shown` are names of families; of each at most `max_series` rows, each until `kept_ns`
        after its time.
        """
        self._metrics = {m.field: m for m in metrics if m.family.name in shown}
        self._tag = tag
        self._max_series = max_series
        self._kept_ns = kept_ns
        self._clock_ns = clock_ns
        self._body = snapshots.encode(())
        self._oldest_ns = NEVER_NS
        """The time of the last uplink of the device that is to go first."""
        self.blocks: tuple[Block, ...] = ()

    def update(self, changed: Iterable[LabelledSnapshot]) -> None:
        """Take what has changed, and leave out who was silent too long; then `blocks` are new."""
        since_ns = self._clock_ns() - self._kept_ns
        bodies = [snapshot.body for snapshot in changed]
        if bodies:
            self._body = bodies[-1]
        if bodies or self._oldest_ns < since_ns:
            self._render(since_ns)

    def _render(self, since_ns: int) -> None:
        found: dict[str, Shown] = {field: {} for field in self._metrics}
        self._oldest_ns = NEVER_NS
        for rows in snapshots.decode_in_batches(self._body):
            young = [row for row in rows if row[3] >= since_ns]
            self._oldest_ns = min((self._oldest_ns, *(row[3] for row in young)))
            self._add(young, found)
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
                found[field][tags[self._tag]] = blocks[labels], number
