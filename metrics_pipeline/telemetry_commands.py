"""What `metrics-pipeline telemetry …` does: each function takes the options, gives the exit status.

News is printed to standard output, what is wrong to standard error. Nothing here prints a secret;
bodies of dead letters are printed as they came, with what a terminal would obey escaped.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby

from metrics_pipeline.core.lorawan import Reason
from metrics_pipeline.core.telemetry import Checkpoint, PartitionKey
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.sources.streams import open_stream
from metrics_pipeline.storage.dead_letters import DeadLetters, KeptDeadLetter, Selection
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.telemetry_connections import TelemetryConnections, open_telemetry
from metrics_pipeline.telemetry_replay import Replay, Replayed

WRONG_USAGE = 2
OWNER = "metrics-pipeline telemetry replay"
AT_ONCE = 500
"""Dead letters that are in memory at a time."""

NS_PER_DAY = 86_400 * NS_PER_SECOND
COLUMNS = ("id", "partition", "number", "accepted", "reason", "bytes", "detail")
DETAIL_CHARACTERS = 80


def dead_letters(options: argparse.Namespace) -> int:
    """List, show or delete; status 1 if the one that is to be shown is not there."""
    with open_telemetry(load_settings(), OWNER) as opened:
        if options.show is not None:
            return _show(opened.dead_letters, options.show)
        wanted = Selection(reason=options.reason, partition=options.partition)
        if options.purge_older_than is not None:
            return _purge(opened.dead_letters, wanted, options.purge_older_than)
        return _list(opened.dead_letters, wanted, options)


def replay(options: argparse.Namespace) -> int:
    """Store events again; status 1 if some were not there, or are refused (still).

    What no device sent is refused, too, and rightly so.
    """
    problem = _misuse(options)
    if problem:
        print(problem, file=sys.stderr)
        return WRONG_USAGE
    with open_telemetry(load_settings(), OWNER) as opened:
        if options.dead_letters:
            wanted = Selection(
                reason=options.reason,
                partition=options.partition,
                first_sequence_number=options.first,
                last_sequence_number=options.last,
            )
            return _replay_dead_letters(opened, wanted, options.consumer_group)
        partition = options.partition
        if partition not in opened.stream.partitions():
            print(f"{opened.stream.name} has no partition {partition!r}", file=sys.stderr)
            return 1
        if options.move_checkpoint:
            return _move_checkpoint(opened, partition, options.first)
        with _replaying(opened, options.consumer_group) as replaying:
            return _replay_range(replaying, partition, options.first, options.last)


@contextmanager
def _replaying(opened: TelemetryConnections, consumer_group: str | None = None) -> Iterator[Replay]:
    settings = opened.settings
    with (
        closing(
            open_writer(settings.store, settings.operational_database, settings.catalog())
        ) as writer,
        closing(open_stream(opened.telemetry.source, consumer_group)) as stream,
    ):
        yield Replay(
            stream,
            writer,
            opened.dead_letters,
            opened.telemetry.rules(),
            opened.telemetry.batch_limits(),
        )


# --- dead letters ---------------------------------------------------------------------------------


def _list(letters: DeadLetters, wanted: Selection, options: argparse.Namespace) -> int:
    found = letters.find(wanted, options.limit)
    if options.json:
        for kept in found:
            print(json.dumps(_document(kept), ensure_ascii=False))
        return 0
    _print_table([COLUMNS, *(_cells(kept) for kept in found)])
    counts = letters.counts(wanted)
    by_reason = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    print(f"{sum(counts.values())} in all{': ' if by_reason else ''}{by_reason}")
    return 0


def _show(letters: DeadLetters, number: int) -> int:
    found = letters.find(Selection(id=number))
    if not found:
        print(f"there is no dead letter {number}", file=sys.stderr)
        return 1
    (kept,) = found
    letter = kept.letter
    print(f"dead letter {kept.id}, kept {_time(kept.kept_at_ns)}")
    print(f"event       {letter.sequence_number} of partition {letter.partition}, ", end="")
    print(f"accepted {_time(letter.enqueued_time_ns)}, offset {_printable(letter.offset)}")
    print(f"reason      {letter.reason}: {_printable(letter.detail)}")
    print(f"body        {kept.body_bytes} bytes, of which {len(letter.body)} are kept:")
    print(_printable(letter.body.decode(errors="backslashreplace")))
    return 0


def _purge(letters: DeadLetters, wanted: Selection, days: int) -> int:
    before_ns = time.time_ns() - days * NS_PER_DAY
    old = replace(wanted, kept_before_ns=before_ns)
    removed = 0
    while found := letters.find(old, AT_ONCE):
        removed += letters.remove([kept.id for kept in found])
    print(f"{removed} dead letters from before {_time(before_ns)} were deleted.")
    return 0


def _document(kept: KeptDeadLetter) -> dict[str, str | int]:
    letter = kept.letter
    return {
        "id": kept.id,
        "partition": letter.partition,
        "sequence_number": letter.sequence_number,
        "offset": letter.offset,
        "accepted": _time(letter.enqueued_time_ns),
        "kept": _time(kept.kept_at_ns),
        "reason": letter.reason,
        "detail": letter.detail,
        "body_bytes": kept.body_bytes,
        "body_base64": base64.b64encode(letter.body).decode(),
    }


def _cells(kept: KeptDeadLetter) -> tuple[str, ...]:
    letter = kept.letter
    detail = _printable(letter.detail)
    return (
        str(kept.id),
        letter.partition,
        str(letter.sequence_number),
        _time(letter.enqueued_time_ns),
        letter.reason,
        str(kept.body_bytes),
        detail if len(detail) <= DETAIL_CHARACTERS else f"{detail[:DETAIL_CHARACTERS]}…",
    )


def _print_table(lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


# --- replay ---------------------------------------------------------------------------------------


def _misuse(options: argparse.Namespace) -> str:
    """What is wrong with the options together; nothing if they fit."""
    if options.dead_letters:
        return ""
    if options.reason is not None:
        return "--reason goes with --dead-letters"
    if options.partition is None or options.first is None:
        return "name --partition and --from, or --dead-letters"
    if options.move_checkpoint:
        return _misuse_of_move(options)
    if options.last is not None and options.last < options.first:
        return f"--to {options.last} lies before --from {options.first}"
    return ""


def _misuse_of_move(options: argparse.Namespace) -> str:
    if options.consumer_group is not None:
        return "--move-checkpoint takes the partition over: leave --consumer-group out"
    if options.last is not None:
        return "--move-checkpoint reads to the newest event: leave --to out"
    return ""


def _replay_range(replaying: Replay, partition: str, first: int, last: int | None) -> int:
    done = replaying.replay_range(partition, first, last, _say_so_far)
    _say(done)
    if done.gone:
        print(f"{done.gone} events are not in the hub (any more)", file=sys.stderr)
    return 1 if _is_anything_missing(done) else 0


def _is_anything_missing(done: Replayed) -> bool:
    refused = done.refused.total() - done.refused[Reason.FOREIGN_SCOPE]
    return bool(refused or done.rejected or done.gone)


def _replay_dead_letters(
    opened: TelemetryConnections, wanted: Selection, consumer_group: str | None
) -> int:
    done, removed = Replayed(), 0
    with _replaying(opened, consumer_group) as replaying:
        for batch in _batches(opened.dead_letters, wanted):
            by_partition = sorted(batch, key=lambda kept: kept.letter.partition)
            for _, kept in groupby(by_partition, key=lambda kept: kept.letter.partition):
                decoded = replaying.replay_dead_letters(list(kept), done)
                removed += opened.dead_letters.remove(decoded)
    _say(done)
    print(f"{removed} dead letters are wholly stored now, and were deleted.")
    if done.gone:
        print(
            f"{done.gone} are not in the hub any more, and only their beginning is kept here",
            file=sys.stderr,
        )
    return 1 if _is_anything_missing(done) else 0


def _batches(letters: DeadLetters, wanted: Selection) -> Iterator[list[KeptDeadLetter]]:
    while batch := letters.find(wanted, AT_ONCE):
        yield batch
        wanted = replace(wanted, after_id=batch[-1].id)


def _move_checkpoint(opened: TelemetryConnections, partition: str, first: int) -> int:
    checkpoints, stream = opened.checkpoints, opened.stream
    key = PartitionKey(stream.namespace, stream.hub, stream.consumer_group, partition)
    with _replaying(opened) as replaying:
        before = replaying.position_before(partition, first, lambda: checkpoints.claim([key]))
    # From here on a run that is on its way cannot move it.
    epoch = checkpoints.claim([key])
    old = checkpoints.find(key)
    checkpoints.rewind(key, old, Checkpoint(before, epoch))
    after = before.sequence_number + 1
    if after > first:
        print(f"Events {first} to {after - 1} are not in the hub any more.", file=sys.stderr)
    was = "nowhere" if old is None else f"at event {old.position.sequence_number}"
    print(f"The checkpoint of partition {partition} was {was}, and is before event {after} now.")
    print("The next run reads from there. What it stores again is there once.")
    return 0


def _say_so_far(done: Replayed) -> None:
    print(f"{done.events} events, {done.points} points stored", file=sys.stderr)


def _say(done: Replayed) -> None:
    print(f"{done.events} events were read again, {done.points} points stored.")
    for counts, what in ((done.refused, "refused"), (done.rejected, "rejected by the store")):
        if counts:
            reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
            print(f"{counts.total()} were {what}: {reasons}")


# --- words ----------------------------------------------------------------------------------------


def _time(time_ns: int) -> str:
    """UTC, to the second; the number itself where it is none of a calendar."""
    try:
        moment = datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns"
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _printable(text: str) -> str:
    """`text` without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
