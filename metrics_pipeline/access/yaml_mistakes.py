"""What pydantic finds wrong with a YAML file, in words: line, key, what was expected.

No value of the file is in them, because it may be a secret in the wrong place; only numbers and
names that are expected are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pydantic
import yaml

Location = tuple[str | int, ...]
Schema = dict[str, Any]

LARGEST_SHOWN = 10**18
KINDS = {str: "text", dict: "keys and values", list: "a list", type(None): "nothing"}

# How a validator over several keys says which one is wrong: `fleet.provider: expected …`.
_KEY_AND_PROBLEM = re.compile(r"([a-z_]+(?:\.[a-z_]+)*): (.+)", re.DOTALL)


def describe(
    error: pydantic.ValidationError,
    document: yaml.Node,
    schema: Schema,
    overridden: Mapping[Location, str] = MappingProxyType({}),
) -> str:
    """Every mistake on a line of its own, or the only one; `schema` is what may stand there.

    `overridden` are the keys whose values are not the file's, and the environment variables they
    are from.
    """
    problems = [
        _describe(problem, document, schema, overridden)
        for problem in error.errors(include_url=False, include_input=True)
    ]
    more = "" if len(problems) == 1 else f"{len(problems)} mistakes:\n  "
    return more + "\n  ".join(problems)


def _describe(
    problem: Any, document: yaml.Node, schema: Schema, overridden: Mapping[Location, str]
) -> str:
    location, expected = _locate(problem)
    keys, line = _find(document, location)
    # A validator over several keys may name one that is not in the file.
    name = ".".join(keys if location == problem["loc"] else map(str, location))
    where = f"line {line}: {name}" if name else f"line {line}"
    # Between them a section of one of several kinds has its kind.
    variable = overridden.get(location) or overridden.get((*location[:1], *location[-1:]))
    if variable is not None:
        where = f"environment variable {variable}"
    match problem["type"]:
        case "extra_forbidden":
            return f"{where}: there is no such key{_suggest(location, schema)}"
        case "missing":
            return f"{where}: the key {location[-1]!r} is missing"
        case "union_tag_not_found" | "union_tag_invalid":
            context = problem["ctx"]
            kinds = context.get("expected_tags") or ", ".join(_kinds(location, schema))
            return f"{where}: expected the key {context['discriminator']} to be one of {kinds}"
        case "value_error":
            return f"{where}: {expected}"
    return f"{where}: expected {expected}, got {_shown(problem['input'])}"


def _locate(problem: Any) -> tuple[Location, str]:
    """Where the problem is, and what was expected there."""
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    named = _KEY_AND_PROBLEM.fullmatch(expected) if problem["type"] == "value_error" else None
    if named is None:
        return problem["loc"], expected
    return (*problem["loc"], *named[1].split(".")), named[2]


def _shown(given: Any) -> str:
    """A number as it is; of anything else only the kind, because it may be a misplaced secret."""
    if isinstance(given, int | float):
        return repr(given) if not abs(given) > LARGEST_SHOWN else "a very large number"
    return KINDS.get(type(given), "something else")


def _find(document: yaml.Node, location: Location) -> tuple[list[str], int]:
    """The keys of `location` that are in the file, and the line of the last of them."""
    keys: list[str] = []
    node, line = document, document.start_mark.line
    for part in location:
        for key, value, key_line in _children(node):
            if key == str(part):
                node, line = value, key_line
                keys.append(key)
                break
    return keys, line + 1


def _children(node: yaml.Node) -> Iterator[tuple[str, yaml.Node, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.value, value, key.start_mark.line
    if isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield str(index), value, value.start_mark.line


def _suggest(location: Location, schema: Schema) -> str:
    known = sorted({name for part in _schemas(location[:-1], schema) for name in _properties(part)})
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f"; expected one of {', '.join(known)}" if known else ""


def _kinds(location: Location, schema: Schema) -> list[str]:
    return sorted(kind for part in _schemas(location, schema) for kind in _constants(part))


def _schemas(location: Location, schema: Schema) -> list[Schema]:
    """The JSON schemas of what may stand at `location`; of a union, those of the kind it names."""
    here = [schema]
    for key in location:
        below = [found for part in here for found in _resolve(_below(part, str(key)), schema)]
        here = below or [part for part in here if key in _constants(part)]
    return here


def _below(part: Schema, key: str) -> Schema | None:
    """What may stand at `key` of `part`, whose keys may be anybody's."""
    others = [*part.get("patternProperties", {}).values(), part.get("additionalProperties")]
    found = _properties(part).get(key, others[0])
    return found if isinstance(found, dict) else None


def _properties(part: Mapping[str, Any]) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = part.get("properties", {})
    return properties


def _constants(part: Mapping[str, Any]) -> Sequence[str]:
    return [each["const"] for each in _properties(part).values() if "const" in each]


def _resolve(part: Schema | None, schema: Schema) -> list[Schema]:
    if part is None:
        return []
    if "$ref" in part:
        return [schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]]
    choices: Sequence[Schema] = part.get("anyOf") or part.get("oneOf") or []
    return [found for choice in choices for found in _resolve(choice, schema)] or [part]
