"""What the environment variables of every process mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from metrics_pipeline.access.environment import (
    DAGSTER_POSTGRES_FILE_VARIABLE,
    DAGSTER_POSTGRES_VARIABLE,
    DEFAULT_STATE_DIR,
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    default_settings_file,
    make_dagster_home,
    postgres_url,
    settings_file,
    state_dir,
)
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline_tests.file_size_limit import file_size_limit

URL = "postgresql://dagster:secret@db.example.net/dagster"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts in a folder of its own, with no variable set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SETTINGS_VARIABLE, raising=False)
    monkeypatch.delenv(STATE_DIR_VARIABLE, raising=False)


def test_the_settings_that_ship_are_a_file() -> None:
    assert default_settings_file().is_absolute()
    assert "version: 1" in default_settings_file().read_text()


@pytest.mark.parametrize("unset", [None, ""])
def test_without_a_variable_the_settings_that_ship_are_used(
    monkeypatch: pytest.MonkeyPatch, unset: str | None
) -> None:
    if unset is not None:
        monkeypatch.setenv(SETTINGS_VARIABLE, unset)
    assert settings_file() == default_settings_file()


def test_named_settings_are_found_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTINGS_VARIABLE, "mine.yaml")
    assert settings_file() == tmp_path / "mine.yaml"


@pytest.mark.parametrize(
    ("given", "expected"), [(None, DEFAULT_STATE_DIR), ("", DEFAULT_STATE_DIR), ("data", "data")]
)
def test_the_state_directory_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    if given is not None:
        monkeypatch.setenv(STATE_DIR_VARIABLE, given)
    assert state_dir() == tmp_path / expected


def test_dagsters_folder_has_the_configuration_that_ships(tmp_path: Path) -> None:
    for _ in range(2):  # it is made again at each start
        home = make_dagster_home(tmp_path / "state")
        assert home == tmp_path / "state" / "dagster"
        assert "run_coordinator" in (home / "dagster.yaml").read_text()
        (home / "dagster.yaml").write_text("of an older version")


def test_without_a_name_there_is_no_postgresql() -> None:
    assert postgres_url({}) is None
    assert postgres_url({DAGSTER_POSTGRES_VARIABLE: ""}) is None


def test_the_url_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(URL + "\n")
    assert (
        postgres_url(
            {DAGSTER_POSTGRES_FILE_VARIABLE: str(file), DAGSTER_POSTGRES_VARIABLE: "other"}
        )
        == URL
    )


def test_a_file_that_is_not_there_is_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{DAGSTER_POSTGRES_FILE_VARIABLE}: .*cannot be read"
    ):
        postgres_url({DAGSTER_POSTGRES_FILE_VARIABLE: str(tmp_path / "none")})


def test_who_reads_dagsters_configuration_while_it_is_written_reads_all_of_one(
    tmp_path: Path,
) -> None:
    file = make_dagster_home(tmp_path) / "dagster.yaml"
    shipped, earlier = file.read_text(), "of a release before\n"
    file.write_text(earlier)
    with file.open() as reader:
        make_dagster_home(tmp_path)
        assert reader.read() == earlier
    with file.open() as reader:
        make_dagster_home(tmp_path)
        assert reader.read() == file.read_text() == shipped
    assert [each.name for each in file.parent.iterdir()] == ["dagster.yaml"]


def test_a_disk_that_is_full_leaves_dagsters_configuration_as_it_was(tmp_path: Path) -> None:
    file = make_dagster_home(tmp_path) / "dagster.yaml"
    file.write_text("of a release before\n")
    with file_size_limit(100), pytest.raises(OSError, match="File too large"):
        make_dagster_home(tmp_path)
    assert file.read_text() == "of a release before\n"
