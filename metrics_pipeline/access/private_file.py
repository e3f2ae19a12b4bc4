"""Files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """All of `text` or the old content is there at any moment, and nobody else may read it.

    Makes the folder if need be. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    new.touch(mode=0o600, exist_ok=False)
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
