"""Nested JSON as fields of a point: every leaf by its path, in a type that changes seldom.

A number is always a float, because one device's `21` is the next one's `21.5`, and a store keeps
the type a field was first written with. Flags and texts stay what they are; what happens where one
model of devices sends a text and another a number is in `open_fields.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

from metrics_pipeline.core.errors import InvalidPoint
from metrics_pipeline.core.open_fields import TYPE_WORDS, open_name
from metrics_pipeline.core.points import FieldValue

Path = tuple[str, ...]
"""Where a leaf was: the keys of objects and the places in arrays that lead to it."""

_Leaf = tuple[Path, str, type, FieldValue]
"""The path to the object or array, the key in it, the type that JSON gave it, and the value."""

SURELY_FINITE = 2**1000
_NAMES = 4096
_PATHS, _NAMES_AT_A_PATH = 256, 128
"""Names that are found with half the effort; others choose them, so there is a bound."""

_NOT_IN_A_NAME = re.compile(r"\W")
_HALF_CHARACTERS = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What an uplink may hold; the rest is cut off, and counted."""

    depth: int = 8
    """Objects and arrays inside each other; of `data` the outermost is the first."""

    fields: int = 200
    """Leaves of one uplink, the payload's before the others."""

    text_characters: int = 2000
    key_characters: int = 64
    """Of one key, in the name of a field."""


class Leaves:
    """The leaves of one uplink on their way into fields; `cut` counts what the limits cost.

    Words of `cut`: `too_deep` (an object or array each), `too_many_fields` (an uplink that had
    more) and `text_too_long`.
    """

    __slots__ = ("_fields", "_found", "_limits", "cut")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fields: dict[str, FieldValue] = {}
        self._found: list[_Leaf] = []
        self.cut: dict[str, int] = {}

    def add_value(self, path: Path, value: Any) -> None:
        """Take what is in `value`, an object or an array, or `value` itself as `…_value`."""
        is_nested = type(value) in (dict, list)
        self.add_all(path, _children(value) if is_nested else (("value", value),), depth=0)

    def add_all(self, path: Path, children: Iterable[tuple[str, Any]], depth: int = -1) -> None:
        """Take `children`, of types that `json.loads` gives, by key, at `path`; null is nothing.

        `depth` is how many objects and arrays they are in. Raises InvalidPoint for a number that
        no store takes (`not_finite`, `out_of_range`).
        """
        if depth >= self._limits.depth:
            self.count("too_deep")
            return
        fields, found, fit = self._fields, self._found, self._fit
        longest, most, names = self._limits.key_characters, self._limits.fields, _names(path)
        for key, value in children:
            short = key if len(key) <= longest else key[:longest]
            kind = type(value)
            known = names.get(kind)
            if known is not None and len(found) < most:
                leaf = fit(value, kind)
                fields[known.get(short) or _remember(known, path, short, kind)] = leaf
                found.append((path, short, kind, leaf))
            elif known is not None:
                self.cut["too_many_fields"] = 1
                return
            elif value is not None:
                self.add_all((*path, short), _children(value), depth + 1)
                if "too_many_fields" in self.cut:
                    return

    def _fit(self, value: Any, kind: type) -> Any:
        # Called for every leaf: what is usual is told without a call.
        if kind is int:
            return float(value) if -SURELY_FINITE < value < SURELY_FINITE else finite(value)
        if kind is float:
            return value if isfinite(value) else finite(value)
        if kind is bool or (value.isascii() and len(value) <= self._limits.text_characters):
            return value
        return self.as_text(value)

    def as_text(self, text: str) -> str:
        """`text` in the length and the characters that may be stored."""
        if len(text) > self._limits.text_characters:
            self.count("text_too_long")
            text = text[: self._limits.text_characters]
        # JSON can say half a character (`"\ud800"`), which has no UTF-8 form.
        return text if text.isascii() else _HALF_CHARACTERS.sub("\ufffd", text)

    def count(self, word: str) -> None:
        """Something was cut off, or not usable."""
        self.cut[word] = self.cut.get(word, 0) + 1

    def finish(self) -> dict[str, FieldValue]:
        """Every leaf by a name of its own; the same leaves always get the same names."""
        return self._fields if len(self._fields) == len(self._found) else _distinct(self._found)


def finite(number: float) -> float:
    """`number` as a float; InvalidPoint if it is not finite, or an integer beyond all floats."""
    try:
        as_float = float(number)
    except OverflowError:
        raise InvalidPoint("out_of_range", "an integer is larger than any float") from None
    if not isfinite(as_float):
        raise InvalidPoint("not_finite", f"a number is {as_float}")
    return as_float


def _children(value: dict[str, Any] | list[Any]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return value.items()
    return ((str(place), child) for place, child in enumerate(value))


@lru_cache(_PATHS)
def _names(path: Path) -> Mapping[type, dict[str, str]]:  # noqa: ARG001  (a place of its own)
    """Names of leaves at `path` by their type and their key, as far as remembered."""
    by_word: dict[str, dict[str, str]] = {word: {} for word in TYPE_WORDS.values()}
    return {kind: by_word[word] for kind, word in TYPE_WORDS.items()}


def _remember(names: dict[str, str], path: Path, key: str, kind: type) -> str:
    name = _name(path, key, TYPE_WORDS[kind])
    if len(names) < _NAMES_AT_A_PATH:
        names[key] = name
    return name


@lru_cache(_NAMES)
def _name(path: Path, key: str, word: str) -> str:
    name = "_".join(_NOT_IN_A_NAME.sub("_", part) or "_" for part in (*path, key))
    return open_name(name, word)


def _distinct(leaves: Iterable[_Leaf]) -> dict[str, FieldValue]:
    """Of leaves that would be called alike the outermost keeps its name, the others get a number.

    `{"a_b": 1, "a": {"b": 2}}` gives `a_b` and `a_b_2`, whichever comes first.
    """
    fields: dict[str, FieldValue] = {}
    numbers: Counter[str] = Counter()
    for path, key, kind, value in sorted(leaves, key=lambda leaf: (len(leaf[0]), *leaf[:2])):
        word = TYPE_WORDS[kind]
        name = first = _name(path, key, word)
        while name in fields:
            numbers[first] += 1
            name = _name((*path, key), str(numbers[first] + 1), word)
        fields[name] = value
    return fields
