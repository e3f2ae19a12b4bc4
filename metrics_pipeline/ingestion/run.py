"""An ingestion as a whole: begins and ends the partitions, publishes, and says how it goes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping

from metrics_pipeline.access.garbage_collection import collecting_seldom
from metrics_pipeline.access.system_timing import SYSTEM_TIMING
from metrics_pipeline.access.thread_switching import switching_seldom
from metrics_pipeline.core.backoff import Timing
from metrics_pipeline.core.errors import MetricsPipelineError, SourceError, StoreError
from metrics_pipeline.core.lorawan import Rules
from metrics_pipeline.core.lorawan_devices import DEVICES_KEPT_DAYS
from metrics_pipeline.core.ports import EventStream
from metrics_pipeline.core.telemetry import BatchLimits, PartitionKey, PartitionState, in_order
from metrics_pipeline.core.validation import NS_PER_DAY
from metrics_pipeline.ingestion.latest import LatestDevices
from metrics_pipeline.ingestion.partition import PartitionIngestion, Work
from metrics_pipeline.ingestion.report import IngestionReport, Stores
from metrics_pipeline.ingestion.window import Window

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
"""How often it is looked whether all partitions have ended."""

PUBLISH_SECONDS = 3.0
PUBLISH_SHARE = 0.05
"""No more of the time than this goes into publishing, however many devices there are."""

ASK_SECONDS = 10.0
"""How often the hub is asked how far its partitions go, and whether there are new ones."""

TAKE_OVER_SECONDS = 15.0
"""So long a later run of ours needs at most to take all partitions, once it has taken one."""

LAST_BATCH_SECONDS = 1.5
"""So long a partition has to end by itself before its reader is closed under it."""

Tell = Callable[[IngestionReport], None]


@switching_seldom()
@collecting_seldom()
def ingest(
    stream: EventStream,
    stores: Stores,
    rules: Rules,
    limits: BatchLimits,
    *,
    asset: str,
    window_seconds: float,
    stop: threading.Event,
    devices_kept_days: float = DEVICES_KEPT_DAYS,
    patience_seconds: float = 0.0,
    tell: Tell = lambda _report: None,
    timing: Timing = SYSTEM_TIMING,
) -> IngestionReport:
    """Read all partitions until the window ends or `stop` is set, and say what became of them.

    While it goes on, the latest rows of all devices that sent within `devices_kept_days` are
    published as those of `asset` every few seconds, and then `tell` is given what was done so far.
    Where an earlier run still goes on, its last rows are waited for, `patience_seconds` at most.
    What fails is tried again until the end of the window; a partition that cannot be read costs the
    others nothing and has an `error` in the report. It ends early when no partition is left to
    read. Raises SourceError when the hub does not say which partitions there are, and StoreError
    when nobody says where to go on.
    """
    window = Window(window_seconds, stop, timing)
    states = window.until_it_works(stream.partitions, _warn)
    kept_ns = int(devices_kept_days * NS_PER_DAY)
    devices = LatestDevices(stores.writer, asset, kept_ns)
    work = Work(stream, stores, rules, limits, devices, window)
    ingestion = _Ingestion(work, states, tell, patience_seconds)
    try:
        window.until_it_works(ingestion.begin, _warn)
        ingestion.look_after()
        ingestion.end()
    except BaseException:
        stop.set()  # whoever ends us, such as Dagster: what has begun is still stored
        ingestion.end()
        raise
    return ingestion.finish()


class _Ingestion:
    """The partitions that are read, and when what is due."""

    def __init__(
        self,
        work: Work,
        states: Mapping[str, PartitionState],
        tell: Tell,
        patience_seconds: float,
    ) -> None:
        self._work = work
        self._patience_seconds = patience_seconds
        self._states = dict(states)
        self._tell = tell
        self._partitions: dict[str, PartitionIngestion] = {}
        self._epoch = 0
        self._publish_at = PUBLISH_SECONDS
        self._taken = 0
        """How many partitions others had taken when it was last published."""

        self._is_ours_after = 0.0
        """When it is clear, in seconds since it began, that no run of ours took them."""

        self._ask_at = ASK_SECONDS
        self._hub_answers = True

    def begin(self) -> None:
        """Take all partitions that are not read yet; StoreError if that cannot be said."""
        self._epoch = max(self._epoch, self._take(set(self._states) - set(self._partitions)))

    def look_after(self) -> None:
        """Publish and ask now and then, until the window ends or no partition is left."""
        window = self._work.window
        while not window.is_over() and any(p.is_alive() for p in self._partitions.values()):
            window.wait(LOOK_SECONDS)
            if window.seconds >= self._ask_at:
                self._ask()
                self._ask_at = window.seconds + ASK_SECONDS
            if window.seconds >= self._publish_at or self._count_taken() > self._taken:
                began = window.seconds
                self._publish()
                took = window.seconds - began
                self._publish_at = began + max(PUBLISH_SECONDS, took / PUBLISH_SHARE)

    def end(self) -> None:
        """Wait for the last micro-batches, and publish what they brought; may be called again."""
        latest = self._work.window.seconds + LAST_BATCH_SECONDS
        for partition in self._partitions.values():
            partition.end(max(0.0, latest - self._work.window.seconds))
        self._publish()

    def finish(self) -> IngestionReport:
        """What was done in all, with how far the hub is: one that is silent takes its time."""
        for partition in self._partitions.values():
            if partition.defect is not None:
                raise partition.defect
        if self._hub_answers:
            self._ask_how_far()
            self._tell(self.report())
        return self.report()

    def report(self) -> IngestionReport:
        """What was done so far."""
        now_ns = self._work.clock_ns()
        reports = {
            name: self._partitions[name].report(self._states.get(name), now_ns)
            for name in sorted(self._partitions, key=in_order)
        }
        return IngestionReport(reports, self._epoch, self._work.window.seconds)

    def _take(self, names: Iterable[str]) -> int:
        """Claim and read the partitions called `names`; the epoch in which."""
        stream, checkpoints = self._work.stream, self._work.stores.checkpoints
        hub = (stream.namespace, stream.hub, stream.consumer_group)
        keys = {name: PartitionKey(*hub, name) for name in sorted(names, key=in_order)}
        if not keys:
            return 0
        epoch = checkpoints.claim(keys.values())
        found = checkpoints.find_all(*hub)
        begun = {name: found[name] for name in keys if name in found}
        self._work.devices.begin(begun, self._work.window.wait, self._patience_seconds)
        for name, key in keys.items():
            state, checkpoint = self._states[name], found.get(name)
            partition = PartitionIngestion(self._work, key, state, checkpoint, epoch)
            self._partitions[name] = partition
            partition.start()
        return epoch

    def _ask(self) -> None:
        self._ask_how_far()
        try:
            self.begin()
        except StoreError as error:
            _warn(error)  # once more when the hub is asked again

    def _ask_how_far(self) -> None:
        try:
            self._states.update(self._work.stream.partitions())
            self._hub_answers = True
        except SourceError as error:
            self._hub_answers = False
            _warn(error)

    def _publish(self) -> None:
        """Not for some time after partitions were taken: a later run's rows are newer.

        But at that moment once more: the later run waits for what this one has stored last.
        """
        now, taken = self._work.window.seconds, self._count_taken()
        if taken > self._taken:
            self._taken = taken
            self._is_ours_after = now + TAKE_OVER_SECONDS
            is_ours = True
        else:
            is_ours = now >= self._is_ours_after
        if is_ours:
            try:
                self._work.devices.publish(self._work.clock_ns())
            except StoreError as error:
                _warn(error)  # it is tried again when it is due again
        self._tell(self.report())

    def _count_taken(self) -> int:
        return sum(partition.is_taken for partition in self._partitions.values())


def _warn(error: MetricsPipelineError) -> None:
    LOG.warning("telemetry: %s", error)
