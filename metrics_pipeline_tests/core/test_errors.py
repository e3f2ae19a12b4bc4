"""What an error keeps when it is told as the failure of something else."""

from __future__ import annotations

import pytest

from metrics_pipeline.core.errors import (
    CredentialRefused,
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)


@pytest.mark.parametrize("kind", [SourceUnreachable, SourceRefused, CredentialRefused])
def test_an_error_about_something_else_says_both(kind: type[SourceError]) -> None:
    error = kind("cloud", "GET /things", "HTTP 500", "Look at the logs.")
    seen = error.about("device_count")
    assert (type(seen), seen.target) == (kind, "device_count")
    assert str(seen).startswith("cloud: reading device_count: GET /things: HTTP 500. Look at ")
    assert seen.retry_helps is error.retry_helps
    assert seen.__cause__ is error
    assert error.target == "GET /things"


def test_an_error_about_something_else_keeps_how_long_to_wait() -> None:
    error = SourceThrottled("cloud", "GET /things", "HTTP 429", "Ask less.", 7)
    assert error.about("device_count").retry_after_seconds == 7


def test_a_reply_is_quoted_once() -> None:
    seen = UnexpectedReply("cloud", "GET /things", "no JSON", b"<html>").about("device_count")
    assert str(seen).count("<html>") == 1
