"""What a library or a peer said, as a part of our own sentence."""

from __future__ import annotations

MAX_CHARACTERS = 300


def one_line(said: object) -> str:
    """The text of `said` (an error, say) on one line, of 300 characters at most."""
    return " ".join(str(said).split())[:MAX_CHARACTERS]
