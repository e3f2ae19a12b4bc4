"""Writing all of something, to what takes it in parts, and to what takes a part and no more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metrics_pipeline.access.whole_writes import write_all

DATA = bytes(range(256)) * 1000
AT_ONCE = 1000


def test_what_is_taken_in_parts_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda number, data: write(number, data[:AT_ONCE]))
    with (tmp_path / "file").open("wb") as file:
        write_all(file.fileno(), DATA)
    assert (tmp_path / "file").read_bytes() == DATA


def test_what_takes_a_part_and_no_more_is_an_error() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading, "rb") as pipe:
        try:
            with pytest.raises(BlockingIOError):
                write_all(writing, DATA)
        finally:
            os.close(writing)
        taken = pipe.read()
    assert 0 < len(taken) < len(DATA)
    assert DATA.startswith(taken)
