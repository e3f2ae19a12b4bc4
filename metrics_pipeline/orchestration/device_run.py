"""One run of an asset that polls devices, or of one shard of it: what it reads, asks and shows."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence

import dagster as dg

from metrics_pipeline.access.interruption import run_until_signal
from metrics_pipeline.core.device_assets import part_of
from metrics_pipeline.core.devices import DeviceReading
from metrics_pipeline.core.errors import SourceError
from metrics_pipeline.core.fetches import Fetch
from metrics_pipeline.core.points import Point
from metrics_pipeline.orchestration.device_report import LOOKED_FOR_ELSEWHERE, Compared
from metrics_pipeline.orchestration.device_sweep import Summary, Swept, sweep_and_store
from metrics_pipeline.orchestration.fetch_counting import count_fetches
from metrics_pipeline.orchestration.poll_list import FIRST, PollList, list_devices, wanted_ids
from metrics_pipeline.orchestration.resources import WRITER
from metrics_pipeline.polling import Question
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.inventory import Inventory
from metrics_pipeline.storage.writer import Writer

INVENTORY = "inventory"
"""The source, and what its queries are for."""


class DeviceRun:
    """What a run of one of these assets works with."""

    def __init__(self, context: dg.AssetExecutionContext, asset: str, settings: Settings) -> None:
        self.context = context
        self._asset = asset
        self.settings = settings
        self.shard = context.partition_key if context.has_partition_key else ""
        self.snapshot_name = part_of(asset, self.shard)
        self.writer: Writer = getattr(context.resources, WRITER)
        self._inventory: Inventory = getattr(context.resources, INVENTORY)

    def list_devices(self, protocols: Collection[str]) -> PollList:
        """The devices of `protocols` as the inventory has them now; SourceError if it cannot."""
        shards = self.settings.sweeps.shards
        began, is_read = time.monotonic(), False
        try:
            listed = self._inventory.read_device_rows(wanted_ids(self.shard, shards))
            is_read = True
        finally:
            took = time.monotonic() - began
            fetch = Fetch(INVENTORY, took, int(is_read), int(not is_read), INVENTORY)
            count_fetches(self.context, [fetch])
        return list_devices(listed, protocols, self.shard, shards)

    def find_compared(self, listed: PollList, protocols: Collection[str]) -> Compared:
        """Among whom to look for devices that are there twice.

        The first shard looks among those of all `protocols`, as two that are one may well be in
        two shards, and the others look for none.
        """
        if not self.shard:
            return Compared(listed.devices)
        if self.shard != FIRST or not protocols:
            return LOOKED_FOR_ELSEWHERE
        try:
            return Compared(self._inventory.read_rows_at_one_place().devices(protocols))
        except SourceError as error:
            return Compared((), f"could not be looked for: {error}", is_known=False)

    def shown_points(self) -> Iterator[Point]:
        """What the exporter shows of this asset, or of its shard."""
        for batch in self.writer.latest_in_batches(self.snapshot_name):
            yield from batch

    def sweep(
        self,
        questions: Sequence[Question],
        points_of: Callable[[DeviceReading], Sequence[Point]],
        listed: PollList,
        summary: Summary,
    ) -> Swept:
        """Ask, store as the answers come, and show them at the end.

        Devices that are listed and not asked are shown as they were.
        """
        budget, say = self.settings.sweeps.device_budget_seconds, self._say
        work = sweep_and_store(questions, budget, points_of, self.writer, say=say, summary=summary)
        with asyncio.Runner() as runner:
            swept = run_until_signal(runner, work)
        asked = sum(len(question.devices) for question in questions)
        fetch = Fetch(self._asset, swept.seconds, swept.answered, asked - swept.answered)
        count_fetches(self.context, [fetch])
        self._pack_unchanged(swept, listed, questions)
        self.writer.publish(self.snapshot_name, swept.packing, listed.devices)
        return swept

    def _pack_unchanged(
        self, swept: Swept, listed: PollList, questions: Sequence[Question]
    ) -> None:
        asked = {device.id for question in questions for device in question.devices}
        unasked = {device.id for device in listed.devices} - asked
        if unasked:
            for batch in self.writer.latest_in_batches(self.snapshot_name):
                swept.packing.add(p for p in batch if p.tags["device_id"] in unasked)

    def _say(self, line: str) -> None:
        self.context.log.info(line)
