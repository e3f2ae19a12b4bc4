"""SECURITY.md names what is there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "SECURITY.md").read_text()


def test_each_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(test_\w+))?`", PAGE)
    assert len(named) >= 12
    for file, test in named:
        text = (TESTS / file).read_text()
        assert not test or f"def {test}(" in text, (file, test)


def test_each_page_that_it_links_to_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (TESTS.parent / link).is_file(), link
