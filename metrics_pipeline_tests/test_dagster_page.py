"""docs/upgrading-dagster.md names every module that reaches into Dagster."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PAGE = (ROOT / "docs" / "upgrading-dagster.md").read_text()
PRIVATE = re.compile(r"\bdagster(_\w+)?(\.\w+)*\._")


def test_each_module_that_imports_what_is_private_in_dagster_is_named() -> None:
    package = ROOT / "metrics_pipeline"
    found = {file.name for file in package.rglob("*.py") if PRIVATE.search(file.read_text())}
    assert len(found) > 10
    assert found <= set(re.findall(r"`(\w+\.py)`", PAGE))


def test_each_test_and_page_that_it_names_is_there() -> None:
    tests = re.findall(r"`(orchestration/test_\w+\.py)`", PAGE)
    pages = re.findall(r"\]\(([^)#]+)", PAGE)
    assert tests
    assert pages
    for file in [*(TESTS / name for name in tests), *(ROOT / "docs" / link for link in pages)]:
        assert file.is_file(), file
