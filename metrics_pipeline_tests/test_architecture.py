"""The promises the code makes about itself: layers, sizes, words, locks, links."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from metrics_pipeline_tests.conftest import LONGEST_FILES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "metrics_pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))
IMAGE_EXTRAS = ["build", "blob", "celery", "kubernetes"]
MEDIAN_LINES, NINTH_DECILE_LINES, MAX_LINES = 9, 25, 50
FORBIDDEN_TEXT = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.org|deb\.debian\.org|/work/main|/root/|TODO|FIXME|XXX"
)


def functions() -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function of the package."""
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{module.name}:{node.name}", node.end_lineno - node.lineno + 1


def test_the_files_that_begin_first_are_there() -> None:
    tests = Path(__file__).parent
    assert [name for name in LONGEST_FILES if not (tests / name).is_file()] == []


def tracked_files() -> list[Path]:
    """What is in the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_each_layer_imports_only_what_is_below() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_functions_are_short() -> None:
    lengths = dict(functions())
    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert too_long == {}
    assert statistics.median(lengths.values()) <= MEDIAN_LINES
    assert statistics.quantiles(lengths.values(), n=10)[8] <= NINTH_DECILE_LINES


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_for(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text()))


def test_dagster_code_keeps_its_annotations() -> None:
    for module in (PACKAGE / "orchestration").rglob("*.py"):
        imports = [n for n in ast.parse(module.read_text()).body if isinstance(n, ast.ImportFrom)]
        assert "__future__" not in {node.module for node in imports}, module


def test_the_map_in_the_readme_is_the_tree() -> None:
    readme = (ROOT / "README.md").read_text()
    mapped = re.findall(r"^\| `([\w./]+)` \|", readme, re.MULTILINE)
    for path in mapped:
        if path.startswith("/"):
            continue
        assert (ROOT / path).exists(), path
    for folder in PACKAGE.iterdir():
        if (folder / "__init__.py").exists():
            assert f"metrics_pipeline/{folder.name}/" in mapped


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for page in [path for path in tracked_files() if path.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_no_file_names_a_registry_or_a_machine() -> None:
    for path in tracked_files():
        if path == Path(__file__) or not path.is_file() or path.suffix == ".png":
            continue
        found = FORBIDDEN_TEXT.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found}"


def test_the_instance_file_at_the_top_is_the_one_that_is_installed() -> None:
    assert (ROOT / "dagster.yaml").resolve() == PACKAGE / "dagster.yaml"


def versions(lock: str) -> dict[str, str]:
    """By name, the version of each package in `lock`."""
    pinned = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", re.MULTILINE)
    return dict(pinned.findall((ROOT / lock).read_text()))


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("constraints.txt", ["build"]),
        ("constraints-image.txt", IMAGE_EXTRAS),
        ("constraints-test.txt", [*IMAGE_EXTRAS, "test"]),
    ],
)
def test_the_lock_holds_what_the_project_asks_for(lock: str, extras: list[str]) -> None:
    text = (ROOT / lock).read_text()
    locked = versions(lock)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [
        *project["dependencies"],
        *(a for e in extras for a in project["optional-dependencies"][e]),
    ]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement
    assert text.count("==") <= text.count("--hash=sha256:")


def test_the_locks_agree() -> None:
    """What is tested is what `make run` and the image have."""
    small, image, test = (versions(f"constraints{n}.txt") for n in ("", "-image", "-test"))
    assert small.items() <= image.items() <= test.items()


def test_the_locks_of_kerberos_agree_with_the_others() -> None:
    locked, kerberos = versions("constraints.txt"), versions("constraints-kerberos.txt")
    assert {name: locked.get(name, version) for name, version in kerberos.items()} == kerberos
    assert {"gssapi", "krb5"} <= set(kerberos)


@pytest.mark.parametrize("group", ["kerberos-build", "installer"])
def test_the_lock_of_a_group_holds_what_it_asks_for(group: str) -> None:
    lock = f"constraints-{group}.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for requirement in map(Requirement, project["dependency-groups"][group]):
        assert requirement.specifier.contains(versions(lock)[requirement.name]), requirement
    text = (ROOT / lock).read_text()
    assert text.count("==") <= text.count("--hash=sha256:")
