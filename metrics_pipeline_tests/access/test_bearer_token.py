"""Tokens of headers."""

from __future__ import annotations

import pytest

from metrics_pipeline.access.bearer_token import bearer


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("abc", ""), ("", "")],
)
def test_the_token_is_in_the_header(header: str, token: str) -> None:
    assert bearer(header) == token
