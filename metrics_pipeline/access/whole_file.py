"""Files that are written whole or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path

OWNERS = 0o600
EVERYBODYS = 0o666
"""As far as the umask lets it."""


def write_private(path: Path, text: str) -> None:
    """As `write_whole`; nobody but the owner may read it."""
    write_whole(path, text.encode(), OWNERS)


def write_whole(path: Path, content: bytes, mode: int = EVERYBODYS) -> None:
    """All of `content` or the old one is there at any moment.

    Makes the folder if need be. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    new.touch(mode=mode, exist_ok=False)
    try:
        new.write_bytes(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
