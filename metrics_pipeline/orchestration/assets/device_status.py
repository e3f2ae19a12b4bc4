"""Who is up: a run sweeps again and again on a fixed grid, until its window ends."""

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence

from metrics_pipeline.core.device_assets import STATUS_JOB, part_of
from metrics_pipeline.core.device_points import StatusBoard, metric_points, statuses_in
from metrics_pipeline.core.devices import PING_METRICS, Device, DeviceReading
from metrics_pipeline.core.errors import MetricsPipelineError, SourceError
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.orchestration.device_report import (
    Change,
    Report,
    Round,
    describe,
    describe_rounds,
    judge,
)
from metrics_pipeline.orchestration.device_run import DeviceRun
from metrics_pipeline.orchestration.device_sweep import MAX_EXAMPLES, Summary
from metrics_pipeline.orchestration.failures import failure
from metrics_pipeline.orchestration.poll_list import PollList, select_due
from metrics_pipeline.orchestration.status_grid import StatusGrid
from metrics_pipeline.polling import Question
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.probe_registry import PROBES


def poll_status(run: DeviceRun, grid: StatusGrid) -> Report:
    """Sweep in every slot that is left of the window; a sweep that fails does not end the run."""
    return _StatusRun(run).sweep_all(grid)


class _StatusRun:
    def __init__(self, run: DeviceRun) -> None:
        self._run = run
        self._sweeps = run.settings.sweeps
        self._memory = part_of(STATUS_JOB, run.shard)
        self._board = StatusBoard(self._sweeps.missed_answers, {})
        self._listed: PollList | None = None
        self._asked: dict[str, int] = {}
        """The slot in which each device was last asked, by its id."""
        self._summary = Summary()
        self._rounds: list[Round] = []
        self._changes: deque[Change] = deque(maxlen=MAX_EXAMPLES)
        self._failed: list[MetricsPipelineError] = []

    def sweep_all(self, grid: StatusGrid) -> Report:
        is_first, took, left_out = True, 0.0, 0
        for slot in grid.slots(time.time()):
            if not is_first and not grid.is_in_time(slot, time.time(), took):
                left_out += 1
                continue
            if is_first:
                self._load_board(slot)
            time.sleep(max(0.0, slot - time.time()))
            began = time.monotonic()
            self._try(slot)
            is_first, took = False, time.monotonic() - began
        return self._report(left_out)

    def _try(self, slot: int) -> None:
        before = self._board.copy()
        try:
            self._sweep(slot, before.online)
        except MetricsPipelineError as error:
            self._board = before  # what was not stored did not happen
            self._failed.append(error)
            self._run.context.log.warning("The sweep for %s failed: %s", slot, error)

    def _sweep(self, slot: int, before: Mapping[str, bool]) -> None:
        began = time.monotonic()
        listed = self._list_devices()
        due = select_due(listed.devices, slot, self._asked, self._sweeps.status_seconds)
        swept = self._run.sweep(
            _questions(self._run.settings, due),
            lambda reading: self._points_of(reading, slot * NS_PER_SECOND),
            listed,
            self._summary,
        )
        self._save_board()
        self._asked |= dict.fromkeys((device.id for device in due), slot)
        online = self._board.online
        changed = [d for d in due if d.id in before and before[d.id] != online[d.id]]
        self._changes += [Change(slot, device, online[device.id]) for device in changed]
        offline = sum(not online.get(device.id, True) for device in due)
        seconds = time.monotonic() - began
        self._rounds.append(Round(slot, len(due), swept.answered, offline, len(changed), seconds))

    def _list_devices(self) -> PollList:
        """As they are now; those of the last sweep, where the inventory cannot be read."""
        try:
            self._listed = self._run.list_devices(tuple(PROBES))
        except SourceError as error:
            if self._listed is None:
                raise
            self._run.context.log.warning("Polled are the devices of the last sweep: %s", error)
        return self._listed

    def _points_of(self, reading: DeviceReading, at_ns: int) -> Sequence[Point]:
        pinged = [
            point
            for point in metric_points(reading, at_ns)
            if point.tags["metric_name"] in PING_METRICS
        ]
        return [*self._board.judge(reading, at_ns), *pinged]

    def _report(self, left_out: int) -> Report:
        if self._listed is None or not self._rounds:
            raise failure(self._failed, kept=0)
        listed, summary = self._listed, self._summary
        seconds = sum(each.seconds for each in self._rounds)
        return Report(
            {
                **describe(summary, listed, listed.devices, seconds),
                **describe_rounds(self._rounds, self._changes, left_out),
            },
            judge(
                summary,
                listed,
                listed.devices,
                self._sweeps.warn_offline_share,
                self._run.find_compared(listed, tuple(PROBES)),
            ),
            self._failed,
            summary.stored + summary.spooled,
        )

    def _load_board(self, first_slot: int) -> None:
        """As the last run left it: who was online, and which answers they had missed."""
        # What was missed longer ago says nothing of the first slot: nobody asked in between.
        oldest_ns = (first_slot - 2 * self._sweeps.slowest_status_seconds) * NS_PER_SECOND
        stored = self._run.writer.load_memories(self._memory)
        missed = {device: json.loads(times) for device, times in stored.items()}
        self._board = StatusBoard(
            self._sweeps.missed_answers,
            statuses_in(self._run.shown_points()),
            {device: times for device, times in missed.items() if times[-1] >= oldest_ns},
        )

    def _save_board(self) -> None:
        missed = {d: json.dumps(times).encode() for d, times in self._board.missed.items()}
        self._run.writer.save_memories(self._memory, missed)


def _questions(settings: Settings, devices: Sequence[Device]) -> list[Question]:
    if settings.sweeps.status_by != "protocol":
        return [_question(settings, settings.sweeps.status_by, devices)]
    return [
        _question(settings, name, asked)
        for name in PROBES
        if (asked := [device for device in devices if device.protocol == name])
    ]


def _question(settings: Settings, name: str, devices: Sequence[Device]) -> Question:
    return Question(
        settings.build_probe(name), devices, PROBES[name].cheapest, settings.max_in_flight(name)
    )
