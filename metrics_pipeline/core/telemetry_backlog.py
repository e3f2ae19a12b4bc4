"""How far what is stored of a hub is behind what the hub has accepted. Pure.

A hub is asked every few seconds. It tells of each partition the newest event and when it came, and
nothing of those before. So the newest event of each look is remembered until it is stored: the
oldest that is still remembered says how long something has been waiting, too little at the most by
the time between two looks, or by a part of the whole where the backlog lasts for many looks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import Checkpoint, PartitionState, in_order
from metrics_pipeline.core.telemetry_assets import LAG
from metrics_pipeline.core.validation import NS_PER_SECOND

MAX_MARKS = 6
"""Events that are remembered of a partition. The cursor of the sensor is kept with every tick."""

MOVE_IT = "move it with `metrics-pipeline telemetry replay --move-checkpoint`"
"""What to do about a checkpoint that is ahead of the hub."""

Mark = tuple[int, int]
"""An event that is not stored yet: its sequence number, and when it came in ns since the epoch."""


@dataclass(frozen=True, slots=True)
class PartitionBacklog:
    """One partition at one look. A sequence number is -1 where there is no event yet."""

    newest: int
    """The sequence number of the newest event of the hub."""

    stored: int
    """That of the last one that is stored."""

    lag_events: int = 0
    lost_events: int = 0
    """Gone before they were read, for the hub does not keep them any longer."""

    is_ahead: bool = False
    """The checkpoint is of an event that the hub never had: this is another hub by this name.

    All that it keeps counts as waiting, though no run finds it until the checkpoint is moved.
    """

    waiting: tuple[Mark, ...] = ()
    """Some of the events that are not stored, in their order."""

    def lag_seconds(self, now_ns: int) -> float:
        """How long the oldest of those that are known has been waiting; 0 if there is none."""
        return max(0, now_ns - self.waiting[0][1]) / NS_PER_SECOND if self.waiting else 0.0


Backlog = Mapping[str, PartitionBacklog]
"""By partition."""


def look(
    states: Mapping[str, PartitionState], stored: Mapping[str, Checkpoint], before: Backlog
) -> Backlog:
    """What the hub says, held against the checkpoints, with what the last look remembered."""
    return {
        partition: look_at(
            states[partition],
            stored.get(partition),
            before[partition].waiting if partition in before else (),
        )
        for partition in sorted(states, key=in_order)
    }


def look_at(
    state: PartitionState, checkpoint: Checkpoint | None, known: tuple[Mark, ...]
) -> PartitionBacklog:
    """`look` at one partition; `known` are events of it, in their order, of which some may wait."""
    position = None if checkpoint is None else checkpoint.position
    stored = -1 if position is None else position.sequence_number
    newest = state.last_sequence_number
    is_ahead = stored > newest
    lag = state.lag_events(None if is_ahead else position)
    done = -1 if is_ahead else stored
    return PartitionBacklog(
        newest=newest,
        stored=stored,
        lag_events=lag,
        lost_events=state.lost_events(position),
        is_ahead=is_ahead,
        waiting=_remember(known, done, (newest, state.last_enqueued_time_ns)) if lag else (),
    )


def _remember(known: tuple[Mark, ...], stored: int, newest: Mark) -> tuple[Mark, ...]:
    """The oldest stays, and the newest; of those between some go where there are too many."""
    marks = [mark for mark in known if stored < mark[0] < newest[0]]
    if len(marks) >= MAX_MARKS - 1:
        marks = [marks[0], *marks[2::2]]
    return (*marks, newest)


def lag_points(backlog: Backlog, now_ns: int) -> Iterator[Point]:
    """What the exporter shows of each partition; not for the time-series store."""
    for partition, each in backlog.items():
        fields = {"lag_events": each.lag_events, "lag_seconds": each.lag_seconds(now_ns)}
        yield Point(LAG, {"partition": partition}, fields, now_ns)


def in_words(backlog: Backlog, now_ns: int) -> str:
    """For people, in one line whatever the number of partitions."""
    events = sum(each.lag_events for each in backlog.values())
    if not events:
        return f"all events of {len(backlog)} partitions are stored"
    behind = {name: each for name, each in backlog.items() if each.lag_events}
    most = max(behind, key=lambda name: behind[name].lag_events)
    seconds = max(each.lag_seconds(now_ns) for each in behind.values())
    return (
        f"{events} events in {len(behind)} of {len(backlog)} partitions are not stored, for "
        f"{seconds:.0f} s; most of them, {behind[most].lag_events}, in partition {most}"
    )


def ahead_in_words(backlog: Backlog) -> str:
    """Which checkpoints are ahead of the hub; nothing if none is."""
    ahead = ", ".join(name for name, each in backlog.items() if each.is_ahead)
    told = f"the checkpoint of partition {ahead} is ahead of the hub, which was made anew"
    return told if ahead else ""


def to_cursor(backlog: Backlog) -> str:
    """As the sensor's cursor: JSON, by partition, of which people can read the first two."""
    rows = {
        name: {"newest": each.newest, "stored": each.stored, "waiting": each.waiting}
        for name, each in backlog.items()
    }
    return json.dumps(rows, separators=(",", ":"))


def from_cursor(cursor: str | None) -> Backlog:
    """What `to_cursor` made; nothing for no cursor, or one that somebody has typed."""
    try:
        rows = json.loads(cursor or "{}")
        return {str(name): _from_row(row) for name, row in rows.items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        return {}


def _from_row(row: Mapping[str, Any]) -> PartitionBacklog:
    waiting = tuple((int(number), int(time_ns)) for number, time_ns in row["waiting"])
    return PartitionBacklog(int(row["newest"]), int(row["stored"]), waiting=waiting)
