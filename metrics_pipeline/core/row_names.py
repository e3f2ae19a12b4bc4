"""What the rows of a table of detail are called: names that devices chose, made fit to be a tag.

A name is a tag of the time-series store. So it has no control characters, which a terminal would
obey, and no backslash, which line protocol cannot say everywhere (`C:\\ Label:…` becomes
`C:/ Label:…`). The same name is made of the same words at every poll, or the series would break.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

MAX_CHARACTERS = 200


def clean_name(name: str) -> str:
    """`name` on one line, only what can be printed, at most 200 characters; perhaps nothing."""
    # A device may send 64 kB; most of what is not kept need not be looked at.
    shown = "".join(c for c in name[: 4 * MAX_CHARACTERS] if c.isprintable() or c.isspace())
    return " ".join(shown.split()).replace("\\", "/")[:MAX_CHARACTERS].rstrip()


def distinct_names(names: Mapping[str, str]) -> dict[str, str]:
    """`names`, by index, cleaned: one of nothing is its index, equal ones get `#` and theirs."""
    cleaned = {index: clean_name(name) or index for index, name in names.items()}
    times = Counter(cleaned.values())
    marked = {i: f"{name}#{i}" if times[name] > 1 else name for i, name in cleaned.items()}
    if len(set(marked.values())) == len(marked):
        return marked
    # Somebody is called as another is marked: mark all, as indexes differ and have no `#`.
    return {index: f"{name}#{index}" for index, name in cleaned.items()}
