"""A file that several processes append to: no line is lost, torn, or written twice."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from metrics_pipeline.core.events import Event, NotAnEvent, connection_established, read_event
from metrics_pipeline.events.file_following import CHUNK_BYTES, FileFollower
from metrics_pipeline.events.following import follow
from metrics_pipeline.events.json_lines import JsonLines
from metrics_pipeline.events.settings import JsonLinesSettings
from metrics_pipeline.events.transport import TransportUnavailable

SMALLEST = 64 * 1024


def settings(path: Path, kept_files: int = 3, rotate_bytes: int = SMALLEST) -> JsonLinesSettings:
    return JsonLinesSettings(
        kind="json_lines", path=path, kept_files=kept_files, rotate_bytes=rotate_bytes
    )


def line(robot: str, at: float = 1.0) -> str:
    return connection_established(robot, connection_id="c" * 400, connected_at=at).to_json()


def robots(found: Sequence[Event | NotAnEvent]) -> list[str]:
    return [each.payload["robot_id"] for each in found if isinstance(each, Event)]


def read_all(follower: FileFollower) -> list[Event | NotAnEvent]:
    """Everything there is."""
    found: list[Event | NotAnEvent] = []
    while more := follower.read():
        found += more
    return found


APPENDING = """
    import sys
    from pathlib import Path
    from metrics_pipeline_tests.events.test_json_lines import JsonLines, line, settings
    sink = JsonLines(settings(Path(sys.argv[1]), kept_files=20))
    for number in range(0, 200, 5):
        sink.send([line(f"{sys.argv[2]}-{each}") for each in range(number, number + 5)])
"""


def test_several_processes_append_and_rotate_and_a_follower_sees_each_line_once(
    tmp_path: Path,
) -> None:
    file = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", textwrap.dedent(APPENDING), str(file)]
    writers = [subprocess.Popen([*command, name]) for name in "ab"]
    follower = FileFollower(settings(file, kept_files=20), since=0.0)
    seen: list[Event | NotAnEvent] = []
    while any(writer.poll() is None for writer in writers):
        seen += follower.read()
    seen += read_all(follower)
    follower.close()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(list(tmp_path.glob("events.jsonl.*"))) >= 2
    found = robots(seen)
    for name in "ab":  # each in the order in which it wrote
        assert [r for r in found if r.startswith(name)] == [f"{name}-{n}" for n in range(200)]
    assert len(found) == 400


def test_no_more_files_are_kept_than_the_settings_say_and_none_is_larger(tmp_path: Path) -> None:
    sink = JsonLines(settings(tmp_path / "e", kept_files=2))
    for number in range(1000):
        sink.send([line(str(number))])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".e.lock", "e", "e.1", "e.2"]
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= SMALLEST


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "e"
    sink = JsonLines(settings(file))
    sink.send([line("before")])
    with file.open("ab") as torn:
        torn.write(b'{"id": "evt_')
    sink.send([line("after")])
    found = [read_event(each) for each in file.read_bytes().splitlines()]
    assert robots([found[0], found[2]]) == ["before", "after"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "e").symlink_to("/dev/full")
    with pytest.raises(TransportUnavailable, match=r"No space left on device.*free some"):
        JsonLines(settings(tmp_path / "e")).send([line("x")])


def test_a_folder_that_nobody_may_write_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        TransportUnavailable, match=r"events file .*cannot be written \(File exists\)"
    ):
        JsonLines(settings(tmp_path / "file" / "events.jsonl")).check()


def test_a_follower_leaves_out_what_is_old_but_nothing_that_comes_later(tmp_path: Path) -> None:
    file = tmp_path / "e"
    sink = JsonLines(settings(file))
    sink.send([line("old", at=10.0), line("new", at=30.0)])
    follower = FileFollower(settings(file), since=20.0)
    assert robots(read_all(follower)) == ["new"]
    assert follower.is_caught_up
    sink.send([line("told late", at=10.0)])
    assert robots(read_all(follower)) == ["told late"]
    follower.close()


def test_what_is_old_is_passed_over_without_a_pause(tmp_path: Path) -> None:
    given = settings(tmp_path / "e", rotate_bytes=10 * CHUNK_BYTES)
    old = line("old", at=10.0)
    JsonLines(given).send([*[old] * (2 * CHUNK_BYTES // len(old)), line("new", at=30.0)])

    def sleep(_: float) -> None:
        pytest.fail("there is more to read")

    follower = FileFollower(given, since=20.0, sleep=sleep)
    assert next(follow(follower, [], pytest.fail)).payload["robot_id"] == "new"
    follower.close()


def test_a_follower_waits_for_a_file_and_reads_a_line_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "e"
    follower = FileFollower(settings(file), since=0.0)
    assert not follower.read()
    whole = line("r").encode()
    with file.open("ab", buffering=0) as writer:
        writer.write(whole[:50])
        assert not follower.read()
        writer.write(whole[50:] + b"\n")
    assert robots(read_all(follower)) == ["r"]
    os.truncate(file, 0)
    assert not follower.read()
    JsonLines(settings(file)).send([line("after it was emptied")])
    assert robots(read_all(follower)) == ["after it was emptied"]
    follower.close()


@pytest.mark.parametrize("rotate_bytes", [SMALLEST, 10 * CHUNK_BYTES], ids=["rotated", "one file"])
def test_who_asks_once_has_an_end_however_much_is_written_meanwhile(
    tmp_path: Path, rotate_bytes: int
) -> None:
    given = settings(tmp_path / "e", rotate_bytes=rotate_bytes)
    sink = JsonLines(given)
    sink.send([line("there at first"), line("and this")])
    follower = FileFollower(given, since=0.0)
    seen = []
    for event in follow(follower, [], pytest.fail, once=True):
        seen.append(event)
        sink.send([line(str(len(seen)))] * 200)  # more than a file holds
        assert len(seen) < 1000, "it follows for ever"
    assert robots(seen)[:2] == ["there at first", "and this"]
    follower.close()


def test_a_follower_that_slept_through_rotations_misses_only_what_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "e"
    sink = JsonLines(settings(file, kept_files=2))
    follower = FileFollower(settings(file, kept_files=2), since=0.0)
    sink.send([line("first")])
    assert robots(read_all(follower)) == ["first"]
    for number in range(1000):
        sink.send([line(str(number))])
    kept = sum(
        len(path.read_bytes().splitlines()) for path in tmp_path.iterdir() if path.name[0] == "e"
    )
    rest = robots(read_all(follower))
    # Of the file that it had open, it reads the rest as well.
    assert rest[-kept:] == [str(number) for number in range(1000 - kept, 1000)]
    assert len(rest) == len(set(rest)) > kept
    follower.close()
