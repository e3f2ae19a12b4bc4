"""The command `metrics-pipeline`: exit status 0 is fine, 1 something is wrong, 2 wrong usage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from metrics_pipeline import __version__
from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.cli import main

SUBCOMMANDS = (
    "run",
    "check",
    "doctor",
    "daemon",
    "code-server",
    "exporter",
    "gateway",
    "worker",
    "simulate",
    "devices",
    "telemetry",
    "events",
    "dashboards",
)
ACTIONS = (
    "run",
    "check",
    "exporter",
    "gateway",
    "worker",
    "simulate",
    "devices list",
    "telemetry dead-letters",
    "events follow",
)


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` exports its options; they end with the test."""
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path / "state"))
    for name in (SETTINGS_VARIABLE, "DAGSTER_HOME", "DAGSTER_POSTGRES_URL"):
        monkeypatch.setenv(name, "")


def leave(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The exit status by which argparse ends the command, what it printed, and its errors."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    said = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, said.out, said.err


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_subcommand_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = leave([command, "--help"], capsys)
    assert status == 0
    assert f"example: metrics-pipeline {command}" in out
    assert "--settings FILE" in out
    assert "--state-dir DIR" in out


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_the_example_of_every_subcommand_is_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from metrics_pipeline.cli import build_parser

    _, out, _ = leave([command, "--help"], capsys)
    example = out.partition("example: metrics-pipeline ")[2].split()
    assert callable(build_parser().parse_args(example).command)


def test_the_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = leave(["--help"], capsys)
    assert status == 0
    assert "{" not in out
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("    ")]
    assert listed == list(SUBCOMMANDS)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(["--version"], capsys) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["check", "--nonsense"],
        ["check", "surplus"],
        ["check", "--settings"],
        ["exporter", "--port", "many"],
        ["exporter", "--port", "65536"],
        ["exporter", "--port", "-1"],
        ["exporter", "--port", "1.5"],
        ["run", "--webserver-port", "70000"],
        ["run", "--exporter-port", "x"],
        ["run", "--for", "ever"],
        ["run", "--for", "-5"],
        ["run", "--for", "nan"],
        ["worker", "--at-once", "0"],
        ["worker", "--at-once", "many"],
    ],
)
def test_wrong_usage_is_status_2_and_says_what_is_wrong(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = leave(arguments, capsys)
    assert (status, out) == (2, "")
    assert err.startswith("usage: metrics-pipeline")
    assert "error: " in err.splitlines()[-1]


@pytest.mark.parametrize("command", ACTIONS)
def test_settings_that_are_not_there_are_one_line_and_status_1(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--settings", str(tmp_path / "nonexistent")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith(f"{tmp_path}/nonexistent: cannot be read (")
    assert "--settings" in line


@pytest.mark.parametrize("command", ["check", "exporter"])
def test_a_state_directory_that_cannot_be_made_is_one_line_and_status_1(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "a_file"
    in_the_way.write_text("")
    assert main([command, "--state-dir", str(in_the_way)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        f"{in_the_way}: nothing can be written there (Not a directory). "
        "Make it writable, or give another with --state-dir."
    )


def test_wrong_settings_are_told_by_the_process_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("version: 1\nsources: {}\nexportr: {}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "metrics_pipeline", "check", "--settings", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"{file}: line 3: exportr: there is no such key (did you mean 'exporter'?). "
        "docs/configuration.md lists every key.\n"
    )


def test_options_are_exported_to_every_process_as_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--settings", "none.yaml", "--state-dir", "here"]) == 1
    assert os.environ[SETTINGS_VARIABLE] == f"{tmp_path}/none.yaml"
    assert os.environ[STATE_DIR_VARIABLE] == f"{tmp_path}/here"


def test_help_does_not_import_what_is_heavy() -> None:
    script = (
        "import sys; from metrics_pipeline.cli import build_parser; build_parser().format_help(); "
        "print([m for m in ('dagster', 'sqlalchemy', 'pydantic', 'uvicorn') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
