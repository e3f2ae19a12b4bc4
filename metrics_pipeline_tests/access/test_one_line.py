"""What others say, on one line."""

from __future__ import annotations

import pytest

from metrics_pipeline.access.one_line import first_line


def failed(began: Exception) -> Exception:
    """An error that another one began."""
    try:
        raise RuntimeError("the statement failed") from began
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("began", "said"),
    [
        (ValueError("no such table.\nSELECT 1"), "no such table"),
        (ValueError(""), "ValueError"),
        (ValueError("postgresql://me:hunter2@db is away"), "postgresql://me:***@db is away"),
    ],
)
def test_the_first_line_is_of_what_began_it_and_has_no_secret(began: Exception, said: str) -> None:
    assert first_line(failed(began)) == said
