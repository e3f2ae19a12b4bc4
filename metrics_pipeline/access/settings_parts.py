"""Everything that settings are made of, each by its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel


def parts_of(part: object, key: str = "") -> Iterator[tuple[str, object]]:
    """`part` and all below it, with the key of each: `sources.inventory.database`."""
    yield key, part
    if isinstance(part, BaseModel):
        below = [(name, getattr(part, name)) for name in type(part).model_fields]
    elif isinstance(part, Mapping):
        below = list(part.items())
    else:
        return
    for name, inner in below:
        yield from parts_of(inner, f"{key}.{name}".removeprefix("."))
