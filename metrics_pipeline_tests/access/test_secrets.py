"""Secrets by reference: found when used, and never shown."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.errors import ConfigurationError

SECRET = "hunter2-and-more"
VARIABLE = "TEST_SECRET"


def test_a_secret_is_read_from_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f" {SECRET}\n")
    assert SecretReference(env=VARIABLE).read() == SECRET


def test_a_secret_is_read_from_a_file_below_the_state_directory(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    reference = SecretReference.model_validate({"file": "token"}, context={STATE_DIR_KEY: tmp_path})
    assert reference.read() == SECRET


def test_a_changed_secret_is_read_at_the_next_use(tmp_path: Path) -> None:
    file = tmp_path / "token"
    reference = SecretReference(file=file)
    for value in ("old", "new"):
        file.write_text(value)
        assert reference.read() == value


def test_neither_text_nor_repr_shows_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)
    (tmp_path / "token").write_text(SECRET)
    for reference in (SecretReference(env=VARIABLE), SecretReference(file=tmp_path / "token")):
        reference.read()
        assert SECRET not in f"{reference} {reference!r} {reference.model_dump_json()}"


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_variable_without_a_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(
        ConfigurationError, match=f"environment variable {VARIABLE}: no secret is there"
    ):
        SecretReference(env=VARIABLE).read()


def missing(path: Path) -> None:
    """Leave it missing."""


def make_empty(path: Path) -> None:
    path.write_text("\n")


def make_binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe" + SECRET.encode())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (missing, "cannot be read (FileNotFoundError)"),
        (Path.mkdir, "cannot be read (IsADirectoryError)"),
        (make_binary, "cannot be read (UnicodeDecodeError)"),
        (make_empty, "no secret is there"),
    ],
)
def test_a_file_without_a_secret_is_named(tmp_path: Path, make: Any, problem: str) -> None:
    file = tmp_path / "token"
    make(file)
    with pytest.raises(ConfigurationError) as caught:
        SecretReference(file=file).read()
    assert caught.value.where == f"file {file}"
    assert caught.value.problem == problem
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        SECRET,
        {"value": SECRET},
        {"env": VARIABLE, "value": SECRET},
        {"env": [SECRET]},
        [SECRET],
        {},
        {"env": ""},
        {"env": VARIABLE, "file": "token"},
        12345,
        None,
    ],
)
def test_what_is_no_reference_is_refused_and_not_repeated(given: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        SecretReference.model_validate(given)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert "12345" not in shown


@pytest.mark.parametrize("given", [SECRET, 12345, 1.5])
def test_a_value_in_the_settings_is_told_where_it_belongs(given: object) -> None:
    with pytest.raises(ValidationError, match="a secret is never written here"):
        SecretReference.model_validate(given)
