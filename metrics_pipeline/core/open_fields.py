"""Fields whose names and types others choose, and what is done when two choose differently.

A store keeps the type a field was first written with, and refuses every point that has another. So
one model of devices whose `status` is a text and one whose `status` is a number cannot both write
`payload_status`. Points that a store refuses for that are written once more with the type's word at
the end of every open field: `payload_status_text`, `payload_status_number`, `payload_status_flag`.

These cannot be refused again, for whoever makes open fields keeps to one rule (`open_name`): a name
that ends in such a word holds that type. Numbers are floats always, or the rule would not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from metrics_pipeline.core.points import Point

TEXT, NUMBER, FLAG = "_text", "_number", "_flag"
TYPE_WORDS: Mapping[type, str] = {str: TEXT, float: NUMBER, int: NUMBER, bool: FLAG}


def open_name(name: str, word: str) -> str:
    """`name` for a value of the type that `word` is of; with the word if it ends in another's."""
    is_other_type = name.endswith((TEXT, NUMBER, FLAG)) and not name.endswith(word)
    return f"{name}{word}" if is_other_type else name


def with_typed_names(point: Point, prefixes: tuple[str, ...]) -> Point:
    """`point` with the type's word at the end of each field that begins with one of `prefixes`."""
    fields = {
        f"{name}{TYPE_WORDS[type(value)]}" if name.startswith(prefixes) else name: value
        for name, value in point.fields.items()
    }
    return replace(point, fields=fields)
