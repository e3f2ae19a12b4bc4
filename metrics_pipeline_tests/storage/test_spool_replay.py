"""What waits in the spool gets to the store: all of it, in order, whatever dies or is damaged."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.access.file_lock import hold
from metrics_pipeline.core.errors import StoreError, StoreUnavailable
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage import spool_replay
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.spool import Spool, read_position, segments, write_position
from metrics_pipeline.storage.spool_records import FORMAT, Record, decode, encode
from metrics_pipeline.storage.spool_replay import Drain, Patience, Replayer
from metrics_pipeline_tests.at_once import last_word_of_the_killed
from metrics_pipeline_tests.servers import wait_until
from metrics_pipeline_tests.storage.contract import TIME_NS, poll
from metrics_pipeline_tests.storage.spool_process import (
    POINTS,
    append,
    replay,
    replay_for_ever,
)
from metrics_pipeline_tests.storage.spool_process import spool as shared_spool
from metrics_pipeline_tests.storage.test_spool import some, spool

QUICK = Patience(between=0.02, at_end=5.0)


@dataclass
class Taken:
    """Stands at the end of a replay, in memory: what came, in order; fails as told."""

    points: list[Point] = field(default_factory=list)
    failures: list[StoreError] = field(default_factory=list)
    is_closed: bool = False

    def append_kept(self, points: Sequence[Point]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.points += points

    def try_kept(self, points: Sequence[Point]) -> None:
        self.append_kept(points)

    def close(self) -> None:
        self.is_closed = True


def away() -> StoreUnavailable:
    return StoreUnavailable("store", "away", "Start it.")


def drain(kept: Spool, taken: Taken) -> None:
    Drain(kept, taken, threading.Event()).run()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records of five."""
    monkeypatch.setattr(spool_replay, "BATCH_POINTS", 10)


def filled(folder: Path, points: int = 60, max_bytes: int = 10_000) -> Spool:
    """With several segments."""
    kept = spool(folder, max_bytes)
    for first in range(0, points, 5):
        kept.append(some(first))
    return kept


def test_everything_goes_in_order_and_then_nothing_is_left(tmp_path: Path) -> None:
    kept, taken = filled(tmp_path), Taken()
    assert len(segments(kept.directory)) > 1
    drain(kept, taken)
    assert taken.points == some(0, 60)
    assert kept.is_empty()
    assert {path.suffix for path in kept.directory.iterdir()} == {".lock"}


def test_a_disk_that_is_full_does_not_stop_what_makes_room_on_it(tmp_path: Path) -> None:
    kept, taken = filled(tmp_path), Taken()
    (kept.directory / ".position").symlink_to("/dev/full")  # ENOSPC for whoever writes to it
    drain(kept, taken)
    assert taken.points == some(0, 60)
    assert kept.is_empty()


class Death(BaseException):
    """Of the process."""


def test_a_death_between_removing_a_segment_and_its_position_skips_nothing_of_one_so_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, taken = filled(tmp_path, 10, 100_000), Taken()
    (segment,) = segments(kept.directory)
    removed: list[Path] = []
    remove = Path.unlink

    def remove_one(path: Path, missing_ok: bool = False) -> None:
        if removed:
            raise Death
        removed.append(path)
        remove(path, missing_ok)

    with monkeypatch.context() as dying:
        dying.setattr(Path, "unlink", remove_one)
        with pytest.raises(Death):
            drain(kept, taken)
    assert removed
    drain(kept, taken)
    segment.write_bytes(FORMAT + encode(some(20), 1) + encode(some(25), 1))
    drain(kept, taken)
    assert taken.points[-10:] == some(20, 10)


class OneBatch(Taken):
    """Ends the replay after one batch."""

    stop = threading.Event()

    def append_kept(self, points: Sequence[Point]) -> None:
        Taken.append_kept(self, points)
        self.stop.set()


def test_a_store_that_goes_away_again_is_given_only_what_it_does_not_have(tmp_path: Path) -> None:
    kept, taken, goes = filled(tmp_path), OneBatch(), 0
    while not kept.is_empty():
        taken.failures = [away()] if goes % 2 else []
        before, goes = len(taken.points), goes + 1
        taken.stop.clear()
        try:
            Drain(kept, taken, taken.stop).run()
        except StoreUnavailable:
            assert len(taken.points) == before
    assert goes > 6
    assert taken.points == some(0, 60)


def test_what_is_appended_while_the_last_segment_is_stored_is_stored_too(tmp_path: Path) -> None:
    kept, taken = filled(tmp_path, 10), Taken()
    original = taken.append_kept

    def append_meanwhile(points: Sequence[Point]) -> None:
        if not taken.points:
            kept.append(some(10))
        original(points)

    taken.append_kept = append_meanwhile  # type: ignore[method-assign]
    drain(kept, taken)
    assert taken.points == some(0, 15)


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_damaged_record_is_set_aside_and_the_others_are_stored(
    tmp_path: Path, where: str
) -> None:
    kept, taken = filled(tmp_path, 15, 100_000), Taken()
    (segment,) = segments(kept.directory)
    content = bytearray(segment.read_bytes())
    records = list(decode(bytes(content), len(FORMAT)))
    index = {"first": 0, "middle": 1, "last": 2}[where]
    content[records[index].end - 4] ^= 1
    segment.write_bytes(content)
    drain(kept, taken)
    assert taken.points == [p for i in range(3) if i != index for p in some(5 * i)]
    (aside,) = kept.directory.glob("*.damaged")
    assert aside.read_bytes() == content[records[index].start : records[index].end]
    assert kept.is_empty()


def test_a_torn_record_is_set_aside_also_where_others_were_appended_behind_it(
    tmp_path: Path,
) -> None:
    kept, taken = filled(tmp_path, 10, 100_000), Taken()
    (segment,) = segments(kept.directory)
    segment.write_bytes(segment.read_bytes()[:-7])
    kept.append(some(10))
    drain(kept, taken)
    assert taken.points == [*some(0), *some(10)]
    assert len(list(kept.directory.glob("*.damaged"))) == 1


@pytest.mark.parametrize("content", [FORMAT.replace(b"1", b"2") + b"later", b"", FORMAT[:9], b"?"])
def test_a_segment_of_no_known_format_is_set_aside_whole(tmp_path: Path, content: bytes) -> None:
    kept, taken = filled(tmp_path, 5), Taken()
    (segment,) = segments(kept.directory)
    segment.write_bytes(content)
    kept.append(some(5))
    drain(kept, taken)
    assert taken.points == some(5)
    assert [p.read_bytes() for p in kept.directory.glob("*.damaged")] == [content] * bool(content)


def test_a_position_of_another_segment_or_beyond_the_end_skips_nothing(tmp_path: Path) -> None:
    for name, offset in (("1.spool", 200), (None, 10**9), (None, 3)):
        kept, taken = filled(tmp_path, 10), Taken()
        segment = name or segments(kept.directory)[0].name
        write_position(kept.directory, segment, offset)
        drain(kept, taken)
        assert taken.points == some(0, 10)


@dataclass
class Refusing(Taken):
    """Refuses what holds one of `numbers` or is of one of `measurements`, without a word about why;
    `is_ill` refuses all."""

    numbers: frozenset[int] = frozenset()
    measurements: frozenset[str] = frozenset()
    is_ill: bool = False

    def append_kept(self, points: Sequence[Point]) -> None:
        numbers = {point.fields["count"] for point in points}
        measurements = {point.measurement for point in points}
        if self.is_ill or self.numbers & numbers or self.measurements & measurements:
            raise StoreError("store", "refused", "Look at its log.")
        Taken.append_kept(self, points)


@pytest.mark.parametrize("max_bytes", [10_000, 100_000], ids=["last of its segment", "in between"])
def test_a_batch_that_the_store_refuses_is_set_aside_once_it_has_taken_another(
    tmp_path: Path, max_bytes: int
) -> None:
    kept, taken = spool(tmp_path, max_bytes), Refusing(numbers=frozenset({12}))
    kept.append(some(0, 10))
    kept._segment_bytes = 0 if max_bytes == 10_000 else kept._segment_bytes
    kept.append(some(10, 10))
    with pytest.raises(StoreError, match="refused"):
        drain(kept, taken)
    assert not kept.is_empty()
    assert list(kept.directory.glob("*.damaged")) == []
    kept.append(some(20, 10))
    drain(kept, taken)
    assert sorted({p.time_ns: p for p in taken.points}) == [
        p.time_ns for p in [*some(0, 10), *some(20, 10)]
    ]
    assert kept.is_empty()
    (aside,) = kept.directory.glob("*.damaged")
    (record,) = decode(aside.read_bytes(), 0)
    assert isinstance(record, Record)
    assert list(record.points) == some(10, 10)


def records_aside(kept: Spool) -> list[tuple[Point, ...]]:
    """The points of each record that was set aside; nothing else may be."""
    found = [list(decode(p.read_bytes(), 0)) for p in sorted(kept.directory.glob("*.damaged"))]
    records = [each for one in found for each in one]
    return [each.points for each in records if isinstance(each, Record)]


def test_a_record_that_the_store_refuses_costs_none_that_is_stored_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept, taken = filled(tmp_path, 40, 100_000), Refusing(numbers=frozenset({7, 21}))
    drain(kept, taken)
    assert records_aside(kept) == [tuple(some(5)), tuple(some(20))]
    stored = {point.time_ns: point for point in taken.points}
    aside = [*some(5), *some(20)]
    assert [*stored.values()] == [point for point in some(0, 40) if point not in aside]
    assert kept.is_empty()
    assert caplog.text.count("refused") == 2  # what the store said of each


def test_what_is_put_back_under_a_number_of_before_and_refused_again_takes_no_other_away(
    tmp_path: Path,
) -> None:
    kept, taken = filled(tmp_path, 40, 100_000), Refusing(numbers=frozenset({0, 21}))
    (segment,) = segments(kept.directory)
    drain(kept, taken)
    assert records_aside(kept) == [tuple(some(0)), tuple(some(20))]
    _, second = sorted(kept.directory.glob("*.damaged"))
    for _ in range(2):  # as docs/runbooks/alerts/SpoolDamaged.md says
        segment.write_bytes(FORMAT + second.read_bytes())
        kept.append(some(40))
        drain(kept, taken)
    assert kept.is_empty()
    aside = sorted(records_aside(kept), key=lambda points: points[0].time_ns)
    assert aside == [tuple(some(first)) for first in (0, 20, 20)]


def of_another_bucket(first: int) -> list[Point]:
    return [replace(point, measurement="others") for point in some(first)]


def test_while_a_bucket_is_missing_what_is_of_it_waits_though_others_are_taken(
    tmp_path: Path,
) -> None:
    kept, taken = spool(tmp_path), Refusing(measurements=frozenset({"others"}))
    for first in range(0, 40, 10):
        kept.append(some(first))
        kept.append(of_another_bucket(first + 5))
    for _ in range(3):
        with pytest.raises(StoreError, match="refused"):
            drain(kept, taken)
    assert list(kept.directory.glob("*.damaged")) == []
    taken.measurements = frozenset()
    drain(kept, taken)
    assert list(kept.directory.glob("*.damaged")) == []
    assert kept.is_empty()
    stored = {point.time_ns: point for point in taken.points}
    assert len(stored) == 40
    assert {point.measurement for point in stored.values()} == {"polls", "others"}


def test_a_store_that_refuses_everything_is_given_everything_later(tmp_path: Path) -> None:
    kept, taken = filled(tmp_path), Refusing()
    taken.is_ill = True
    with pytest.raises(StoreError, match="refused"):
        drain(kept, taken)
    taken.is_ill = False
    drain(kept, taken)
    assert taken.points == some(0, 60)
    assert list(kept.directory.glob("*.damaged")) == []


# --- by whom --------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def replayer(tmp_path: Path, taken: Taken) -> Iterator[Replayer]:
    with closing(Replayer(spool(tmp_path), lambda: taken, QUICK)) as made:
        yield made


def test_what_is_kept_is_replayed_once_the_store_is_back(
    tmp_path: Path, taken: Taken, replayer: Replayer
) -> None:
    taken.failures = [away(), away()]
    assert not replayer.is_needed()
    assert replayer.keep(some(0), away()) == []
    wait_until(lambda: taken.points == some(0), "it is replayed")
    wait_until(lambda: not replayer.is_needed(), "the spool is empty")
    replayer.keep(some(5), None)
    wait_until(lambda: taken.points == some(0, 10), "it is replayed once more")


def test_a_process_that_ends_waits_for_what_gets_on(tmp_path: Path, taken: Taken) -> None:
    filled(tmp_path)
    with closing(Replayer(spool(tmp_path), lambda: taken, QUICK)):
        pass
    assert taken.points == some(0, 60)
    assert taken.is_closed


def test_a_process_that_ends_does_not_wait_for_a_store_that_is_away(
    tmp_path: Path, taken: Taken
) -> None:
    kept = filled(tmp_path)
    taken.failures = [away()] * 1000
    began = time.monotonic()
    patience = Patience(between=0.02, at_end=60)
    with closing(Replayer(spool(tmp_path), lambda: taken, patience)):
        pass
    assert time.monotonic() - began < 30  # of the 60 that it would wait
    assert not kept.is_empty()


def test_while_another_process_replays_this_one_does_not(
    tmp_path: Path, taken: Taken, replayer: Replayer
) -> None:
    kept = filled(tmp_path)
    with hold(kept.directory / "replay.lock", 0) as is_mine:
        assert is_mine
        for _ in range(5):
            assert replayer.is_needed()
            time.sleep(0.02)
        assert taken.points == []
    wait_until(lambda: not replayer.is_needed(), "it is replayed")
    assert taken.points == some(0, 60)


def test_the_spool_that_is_full_says_what_the_store_said(tmp_path: Path, taken: Taken) -> None:
    taken.failures = [away()] * 1000
    with (
        closing(Replayer(spool(tmp_path, 10_000), lambda: taken, QUICK)) as replayer,
        pytest.raises(StoreUnavailable, match=r"is full.*store: away"),
    ):
        replayer.keep(some(0, 5000), away())


# --- sudden death ---------------------------------------------------------------------------------


def stored(folder: Path) -> dict[tuple[str, int], int]:
    """By device and time the number of its record."""
    with closing(EmbeddedStore(EmbeddedStoreSettings(path=folder / "points.sqlite"))) as store:
        points = store.read("polls", 0, 2**63 - 1)
    return {(p.tags["device_id"], p.time_ns): int(p.fields["count"]) for p in points}


def test_writers_and_replayers_that_are_killed_lose_nothing_that_was_kept(tmp_path: Path) -> None:
    dice = random.Random(7)
    kept: dict[str, int] = {}
    shared_spool(tmp_path).append([poll({"count": 0}, TIME_NS, "first")])
    for turn in range(4):
        victims: list[tuple[Any, ...]] = [
            (append, tmp_path, f"{turn}-0"),
            (append, tmp_path, f"{turn}-1"),
            (replay_for_ever, tmp_path),
        ]
        with ThreadPoolExecutor(len(victims)) as pool:
            last_words = [
                pool.submit(last_word_of_the_killed, *each, after_seconds=dice.uniform(0.02, 0.2))
                for each in victims
            ]
        kept |= {f"{turn}-{n}": last_words[n].result() for n in (0, 1)}
        assert_position_is_of_a_record(shared_spool(tmp_path).directory)
    replay(tmp_path)
    assert shared_spool(tmp_path).is_empty()
    found = Counter((device, number) for (device, _), number in stored(tmp_path).items())
    for device, last in kept.items():
        expected = dict.fromkeys(range(last + 1), POINTS)
        assert {number: found[device, number] for number in expected} == expected, device


def assert_position_is_of_a_record(directory: Path) -> None:
    name, offset = read_position(directory)
    if name and (directory / name).exists():
        records = decode((directory / name).read_bytes(), len(FORMAT))
        assert offset in [each.end for each in records if isinstance(each, Record)]
