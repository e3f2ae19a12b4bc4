"""The spool's folder: bounded, in order, shared by processes, and clear when it cannot keep."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from metrics_pipeline.access import file_lock
from metrics_pipeline.access.file_lock import hold
from metrics_pipeline.core.errors import StoreUnavailable
from metrics_pipeline.core.points import Point
from metrics_pipeline.storage import spool as spool_module
from metrics_pipeline.storage.spool import (
    Spool,
    SpoolSettings,
    read_position,
    segments,
    size_of,
    write_position,
)
from metrics_pipeline.storage.spool_records import FORMAT, Record, decode
from metrics_pipeline.storage.spool_state import SpoolState, SpoolWatch
from metrics_pipeline_tests.power_cuts import watch_syncs
from metrics_pipeline_tests.storage.contract import TIME_NS, poll

KEPT_AT_NS = 1_700_000_000_000_000_000


def settings(folder: Path, max_bytes: int = 100_000) -> SpoolSettings:
    return SpoolSettings(directory=folder / "state" / "spool", max_bytes=max_bytes)


def spool(folder: Path, max_bytes: int = 100_000) -> Spool:
    return Spool(settings(folder, max_bytes), lambda: KEPT_AT_NS)


def some(first: int, count: int = 5) -> list[Point]:
    return [poll({"count": first + i}, TIME_NS + first + i) for i in range(count)]


def waiting(kept: Spool) -> list[Point]:
    """All points in the folder, in order; nothing may be damaged."""
    found: list[Point] = []
    for segment in segments(kept.directory):
        for record in decode(segment.read_bytes(), len(FORMAT)):
            assert isinstance(record, Record)
            found += record.points
    return found


def fill(kept: Spool) -> tuple[int, str]:
    """How many points went in until it said that it is full, and what it said."""
    count = 0
    while True:
        try:
            kept.append(some(count))
        except StoreUnavailable as error:
            return count, str(error)
        count += 5


def test_what_is_kept_comes_back_in_order_over_segments(tmp_path: Path) -> None:
    kept = spool(tmp_path, 20_000)
    for first in range(0, 300, 5):
        kept.append(some(first))
    assert waiting(kept) == some(0, 300)
    assert len(segments(kept.directory)) > 2
    assert not kept.is_empty()


APPEND_AND_DIE = """
import os, sys
from pathlib import Path
from metrics_pipeline_tests.storage.test_spool import some, spool
kept = spool(Path(sys.argv[1]))
for first in (0, 5, 10):
    kept.append(some(first))
os._exit(0)
"""


def test_what_was_appended_survives_a_power_cut(tmp_path: Path) -> None:
    folder = tmp_path / "syncs"
    folder.mkdir()
    synced = watch_syncs(folder)
    subprocess.run(
        [sys.executable, "-c", APPEND_AND_DIE, str(tmp_path)],
        env={**os.environ, **synced.environment},
        check=True,
    )
    kept = spool(tmp_path)
    for segment in segments(kept.directory):
        synced.cut_power(segment)
    assert waiting(kept) == some(0, 15)


def test_the_names_of_a_new_folder_and_of_its_first_segment_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = spool(tmp_path)
    synced: list[tuple[int, int]] = []
    """Inode, and how many segments there were."""
    monkeypatch.setattr(
        os,
        "fsync",
        lambda file: synced.append((os.fstat(file).st_ino, len(segments(kept.directory)))),
    )
    kept.append(some(0))
    assert (kept.directory.parent.stat().st_ino, 0) in synced
    assert (kept.directory.stat().st_ino, 1) in synced


def test_another_process_goes_on_in_the_same_segment(tmp_path: Path) -> None:
    spool(tmp_path).append(some(0))
    spool(tmp_path).append(some(5))
    assert waiting(spool(tmp_path)) == some(0, 10)
    assert len(segments(spool(tmp_path).directory)) == 1


def test_many_at_once_keep_everything(tmp_path: Path) -> None:
    def append(number: int) -> None:
        spool(tmp_path, 20_000).append(some(number * 5))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted(waiting(spool(tmp_path)), key=lambda point: point.time_ns)
    assert found == some(0, 60)


def test_at_its_bound_it_says_that_it_is_full_and_what_to_do(tmp_path: Path) -> None:
    kept = spool(tmp_path, 10_000)
    count, said = fill(kept)
    assert "is full" in said
    assert "of 10000 bytes (spool.max_bytes)" in said
    assert "Bring the time-series store back" in said
    assert size_of(kept.directory) <= 10_000
    assert waiting(kept) == some(0, count)


def test_what_was_set_aside_counts_towards_the_bound(tmp_path: Path) -> None:
    kept = spool(tmp_path, 10_000)
    kept.append(some(0))
    (kept.directory / "1-25.damaged").write_bytes(b"x" * 9900)
    with pytest.raises(StoreUnavailable, match="is full"):
        kept.append(some(5))


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    kept = spool(tmp_path)
    kept.append(some(0))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept.directory.iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(kept.directory.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_said_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    kept = spool(tmp_path)
    with pytest.raises(StoreUnavailable, match=r"cannot be written .* spool\.directory"):
        kept.append(some(0))
    with pytest.raises(StoreUnavailable, match=r"cannot be written .* spool\.directory"):
        kept.check()


def test_a_folder_that_may_only_be_read_is_said(tmp_path: Path) -> None:
    kept = spool(tmp_path)
    kept.append(some(0))
    # A folder where the file should be: root may write what others may not.
    (segment,) = segments(kept.directory)
    segment.unlink()
    segment.mkdir()
    with pytest.raises(StoreUnavailable, match="Is a directory"):
        kept.append(some(5))


FULL_DISK = """
import resource, sys
from pathlib import Path
from metrics_pipeline.core.errors import StoreUnavailable
from metrics_pipeline_tests.storage.test_spool import some, spool
kept = spool(Path(sys.argv[1]))
kept.append(some(0))
(segment,) = kept.directory.glob("*.spool")
size = segment.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, size + 40))
try:
    kept.append(some(5, 100))
except StoreUnavailable as error:
    print(error)
assert segment.stat().st_size == size
"""


def test_a_write_that_stops_half_way_leaves_nothing_behind_and_is_said(tmp_path: Path) -> None:
    """The system's limit of a file's size stands for a full disk: some bytes fit, not all."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "cannot be written (File too large). Check spool.directory" in done.stdout
    kept = spool(tmp_path)
    kept.append(some(5))
    assert waiting(kept) == some(0, 10)


def test_who_holds_the_lock_for_too_long_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "PATIENCE_SECONDS", 0.05)
    kept = spool(tmp_path)
    kept.append(some(0))
    with hold(kept.directory / "append.lock", 0) as is_held:
        assert is_held
        with pytest.raises(StoreUnavailable, match=r"append\.lock"):
            kept.append(some(5))


class Waiting:
    """In the place of the module `time`: whoever sleeps does so for a second, and costs none."""

    def __init__(self, after_ten_seconds: Callable[[], None]) -> None:
        self._now = 0.0
        self._after_ten_seconds = after_ten_seconds

    def monotonic(self) -> float:
        return self._now

    def sleep(self, _seconds: float) -> None:
        self._now += 1
        if self._now > 10:
            self._after_ten_seconds()


def test_who_waits_for_many_others_is_let_in_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = spool(tmp_path)
    kept.append(some(0))
    with ExitStack() as others:
        assert others.enter_context(hold(kept.directory / "append.lock", 0))
        monkeypatch.setattr(file_lock, "time", Waiting(others.close))
        kept.append(some(5))
    assert waiting(kept) == some(0, 10)


@pytest.mark.parametrize("name", [f"{KEPT_AT_NS:020d}-0.spool", "put-back.spool", "9.spool"])
def test_a_segment_that_somebody_called_otherwise_fails_no_write(tmp_path: Path, name: str) -> None:
    kept = spool(tmp_path)
    kept.append(some(0))
    segments(kept.directory)[0].rename(kept.directory / name)
    kept._segment_bytes = 0
    for first in (5, 10):
        kept.append(some(first))
    assert len(segments(kept.directory)) == 3
    assert sorted(point.time_ns for point in waiting(kept)) == [p.time_ns for p in some(0, 15)]


def test_a_segment_of_another_release_is_not_added_to(tmp_path: Path) -> None:
    kept = spool(tmp_path)
    kept.append(some(0))
    (old,) = segments(kept.directory)
    old.write_bytes(FORMAT.replace(b"1", b"7") + b"something")
    kept.append(some(5))
    newer = segments(kept.directory)[-1]
    assert newer != old
    assert int(newer.stem) > int(old.stem)
    assert old.read_bytes().endswith(b"something")


@pytest.mark.parametrize("text", ["", "x", "a 5 7", "00000000000000000001.spool 25 0"])
def test_a_position_that_is_not_whole_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "position").write_text(text)
    assert read_position(tmp_path) == ("", 0)
    write_position(tmp_path, "1.spool", 25)
    assert read_position(tmp_path) == ("1.spool", 25)


# --- looked at from outside -----------------------------------------------------------------------


def test_the_state_follows_what_is_appended_stored_and_set_aside(tmp_path: Path) -> None:
    given = settings(tmp_path, 20_000)
    watch, kept = SpoolWatch(given), spool(tmp_path, 20_000)
    assert watch.look() == SpoolState(0, 20_000, 0, None, 0)
    for first in range(0, 200, 5):
        kept.append(some(first))
        state = watch.look()
        assert (state.points, state.oldest_ns) == (first + 5, KEPT_AT_NS)
        assert state.size_bytes == sum(s.stat().st_size for s in segments(kept.directory))
    first_segment, *others = segments(kept.directory)
    records = list(decode(first_segment.read_bytes(), len(FORMAT)))
    write_position(kept.directory, first_segment.name, records[1].end)
    assert watch.look().points == SpoolWatch(given).look().points == 190
    os.truncate(others[-1], others[-1].stat().st_size - 3)
    (kept.directory / "1-25.damaged").write_bytes(b"x")
    state = SpoolWatch(given).look()
    assert (state.points, state.damaged) == (185, 1)
    first_segment.unlink()
    assert watch.look().points < 185
