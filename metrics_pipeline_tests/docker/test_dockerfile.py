"""The Dockerfile: linted, and every step of it that needs no container engine tried."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

from metrics_pipeline_tests.docker.container_files import (
    DOCKER,
    REPOSITORY,
    dockerfile_instructions,
    image_environment,
    last_stage,
)

HADOLINT = Path(sys.executable).with_name("hadolint")


def copied_from_the_repository() -> list[str]:
    copies = [words for name, words in dockerfile_instructions() if name == "COPY"]
    plain = [words for words in copies if not words[0].startswith("--from")]
    return [source for words in plain for source in words[:-1] if not source.startswith("--")]


@pytest.fixture
def build_context(tmp_path: Path) -> Path:
    """A folder with nothing but what the Dockerfile copies for the build of the package."""
    for name in set(copied_from_the_repository()):
        source, target = REPOSITORY / name, tmp_path / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            copytree(source, target, ignore=ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            copy(source, target)
    return tmp_path


def lint(dockerfile: Path, folder: Path) -> tuple[str, int]:
    """What hadolint says and its exit status; `folder` has no configuration that ignores a rule."""
    linted = subprocess.run(
        [HADOLINT, "--failure-threshold", "style", dockerfile],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={"HOME": str(folder)},
    )
    return linted.stdout, linted.returncode


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    assert lint(DOCKER / "Dockerfile", tmp_path) == ("", 0)


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\n")
    output, status = lint(tmp_path / "Dockerfile", tmp_path)
    assert "DL3007" in output
    assert status == 1


def test_dockerignore_lets_through_what_is_copied_and_no_more() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    assert set(rules[1:]) == {
        *(f"!{source}" for source in copied_from_the_repository() if "/" not in source.strip("./")),
        "**/__pycache__",
    }


def test_what_is_copied_is_there() -> None:
    assert [name for name in copied_from_the_repository() if not (REPOSITORY / name).exists()] == []


def test_the_package_builds_from_what_is_copied(build_context: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", "out"],
        check=True,
        capture_output=True,
        cwd=build_context,
    )
    (wheel,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = REPOSITORY / "metrics_pipeline"
    files = {str(p.relative_to(REPOSITORY)) for p in package.rglob("*") if p.is_file()}
    assert {name for name in files if not fnmatch(name, "*/__pycache__/*")} <= names


def test_what_is_installed_is_pinned_with_hashes_and_never_compiled() -> None:
    installs = [
        words
        for name, words in dockerfile_instructions()
        if name == "RUN" and words[:2] == ["pip", "install"]
    ]
    assert len(installs) == 2
    dependencies, package = installs
    assert {"--require-hashes", "--only-binary"} <= set(dependencies)
    assert {"--no-deps", "--no-build-isolation"} <= set(package)


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    users = [words for name, words in last_stage() if name == "USER"]
    assert users == [["10001:10001"]]


def test_the_image_finds_its_instance_where_the_file_of_the_package_is_put() -> None:
    home = image_environment()["DAGSTER_HOME"]
    copies = [words[-2:] for name, words in last_stage() if name == "COPY"]
    assert ["metrics_pipeline/dagster.yaml", f"{home}/dagster.yaml"] in copies


def test_no_secret_is_given_to_the_build() -> None:
    names = {name for name, _ in dockerfile_instructions()}
    arguments = [words for name, words in dockerfile_instructions() if name == "ARG"]
    assert "ADD" not in names
    assert [words[0].split("=")[0] for words in arguments] == ["BASE_IMAGE"]
