"""A file is whole and the only thing that is left behind; a private one is its owner's alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from metrics_pipeline.access.whole_file import write_private, write_whole


def test_only_the_owner_may_read_it_even_where_it_was_open_before(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "secret"
    write_private(file, "first")
    file.chmod(0o644)
    write_private(file, "second")
    assert file.read_text() == "second"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["secret"]


def test_what_cannot_be_written_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "\ud800")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_what_is_not_private_is_for_whom_the_umask_lets_read(tmp_path: Path) -> None:
    new, usual = tmp_path / "new", tmp_path / "usual"
    write_whole(new, b"content")
    usual.write_bytes(b"content")
    assert new.read_bytes() == b"content"
    assert new.stat().st_mode == usual.stat().st_mode
