"""Relative paths of the settings are below the state directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from metrics_pipeline.access.state_path import STATE_DIR_KEY, StatePath


class Section(BaseModel):
    file: StatePath


def resolved(given: str, state_dir: Path | None) -> Path:
    context = {STATE_DIR_KEY: state_dir} if state_dir else None
    return Section.model_validate({"file": given}, context=context).file


def test_a_relative_path_is_below_the_state_directory(tmp_path: Path) -> None:
    assert resolved("simulator/secret", tmp_path) == tmp_path / "simulator" / "secret"


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    assert resolved("/run/secrets/token", tmp_path) == Path("/run/secrets/token")


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert resolved("~/token", tmp_path / "state") == tmp_path / "home" / "token"


def test_without_a_state_directory_a_path_is_relative_to_the_working_directory() -> None:
    assert resolved("token", None) == Path("token")
