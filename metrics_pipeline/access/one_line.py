"""What a library or a peer said, as a part of our own sentence."""

from __future__ import annotations

from metrics_pipeline.core.redaction import KNOWN, without_secrets

MAX_CHARACTERS = 300


def one_line(said: object) -> str:
    """The text of `said` (an error, say) on one line, of 300 characters at most.

    Less what is known as a secret, before that is cut in two.
    """
    return " ".join(KNOWN.hide(str(said)).split())[:MAX_CHARACTERS]


def first_line(error: BaseException) -> str:
    """Of the error that began `error`, without secrets and the full stop at its end.

    SQL, parameters and traces come on the lines below. Its type, where it says nothing.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = without_secrets(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(" .")
