"""Writing all of something, to a disk that may take it in parts."""

from __future__ import annotations

import os


def write_all(descriptor: int, data: bytes) -> None:
    """All of `data` is written when this returns; raises OSError, and then a part may be.

    A disk that is nearly full takes a part first, and says so only by how much it took.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
