"""Reads the settings: one YAML file, a few environment variables, errors a person can act on.

Plain YAML only: keys and values, lists, no tags, anchors or aliases. No value of the file is in an
error, because it may be a secret in the wrong place; only numbers and names that are expected are.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, settings_file, state_dir
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.service_counters import KNOWN_COUNTERS
from metrics_pipeline.settings import Settings

OVERRIDES: Mapping[str, tuple[str, str, str]] = {"INFLUXDB_URL": ("store", "influxdb", "url")}
"""Environment variables that win over a key of a section of that kind."""

HEALTH_URLS: Mapping[str, str] = {f"{name.upper()}_HEALTH_URL": name for name in KNOWN_COUNTERS}
"""Environment variables that win over the address of a service's health page."""

Location = tuple[str | int, ...]

STRING_TAG = "tag:yaml.org,2002:str"
INTEGER_TAG = "tag:yaml.org,2002:int"
TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
NOT_READ = (yaml.TagToken, yaml.AnchorToken, yaml.AliasToken)
BEGINNINGS = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
ENDS = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
MAX_DEPTH = 20
"""Twice as deep as any key there is; PyYAML's time grows with the square of the depth."""

KINDS = {str: "text", dict: "keys and values", list: "a list", type(None): "nothing"}
LARGEST_SHOWN = 10**18

# How a validator over several keys says which one is wrong: `fleet.provider: expected …`.
_KEY_AND_PROBLEM = re.compile(r"([a-z_]+(?:\.[a-z_]+)*): (.+)", re.DOTALL)


def load_settings(file: Path | None = None) -> Settings:
    """The settings of `file`, else of $METRICS_PIPELINE_SETTINGS, else the defaults.

    Raises ConfigurationError with every mistake: file, line, key, what was expected.
    """
    path = file or settings_file()
    document, content = _parse(_read(path), path)
    overridden = _apply_overrides(content, os.environ)
    try:
        return Settings.model_validate(content, context={STATE_DIR_KEY: state_dir()})
    except pydantic.ValidationError as error:
        raise _translate(error, path, document, overridden) from None


class _PlainLoader(yaml.SafeLoader):
    """Dates stay text: nothing in the settings is one, and `2024-02-31` is an error of Python's."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own name and type)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP_TAG]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _construct_integer(loader: _PlainLoader, node: yaml.ScalarNode) -> int:
    try:
        return int(loader.construct_yaml_int(node))
    except ValueError:  # `0b_`, or more digits than Python reads
        raise yaml.constructor.ConstructorError(
            None, None, "this number cannot be read", node.start_mark
        ) from None


_PlainLoader.add_constructor(INTEGER_TAG, _construct_integer)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            str(path),
            f"cannot be read ({error})",
            f"Name another with --settings or ${SETTINGS_VARIABLE}.",
        ) from error


def _parse(text: str, path: Path) -> tuple[yaml.Node, dict[str, Any]]:
    """The document as nodes, which know their lines, and as values."""
    loader: Callable[[str], Any] = _PlainLoader
    try:
        _refuse_what_is_not_plain(text, path)
        reader = loader(text)
        document = reader.get_single_node()
        if not isinstance(document, yaml.MappingNode):
            raise ConfigurationError(
                str(path), "expected keys and values at the top", "Begin with `version: 1`."
            )
        _check_keys(document, path)
        return document, reader.construct_document(document)
    except yaml.YAMLError as error:
        raise _not_yaml(error, path) from None


def _refuse_what_is_not_plain(text: str, path: Path) -> None:
    depth = 0
    for token in yaml.scan(text, Loader=_PlainLoader):
        depth += isinstance(token, BEGINNINGS) - isinstance(token, ENDS)
        if depth > MAX_DEPTH:
            raise ConfigurationError(
                f"{path}:{token.start_mark.line + 1}", "is nested too deeply", "Flatten it."
            )
        if isinstance(token, NOT_READ):
            raise ConfigurationError(
                f"{path}:{token.start_mark.line + 1}",
                "tags (!), anchors (&) and aliases (*) are not read here",
                "Write the value itself, and text that begins with such a character in quotes.",
            )


def _not_yaml(error: yaml.YAMLError, path: Path) -> ConfigurationError:
    """Without the line itself, which PyYAML would show: there may be a secret in it."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = ", ".join(part for part in (error.context, error.problem) if part)
    else:
        where, problem = str(path), " ".join(str(error).split())
    return ConfigurationError(where, f"is not YAML: {problem}", "Correct that line.")


def _check_keys(node: yaml.Node, path: Path) -> None:
    """Refuse keys that are not text, and repeated ones, of which YAML silently takes the last."""
    seen: set[str] = set()
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        where = f"{path}:{key.start_mark.line + 1}"
        if key.tag != STRING_TAG:
            raise ConfigurationError(where, "a key is not text", "Write it in quotes.")
        if key.value in seen:
            raise ConfigurationError(where, f"{key.value} is given twice", "Remove one.")
        seen.add(key.value)
        _check_keys(value, path)
    for value in node.value if isinstance(node, yaml.SequenceNode) else ():
        _check_keys(value, path)


def _apply_overrides(
    content: dict[str, Any], environment: Mapping[str, str]
) -> Mapping[Location, str]:
    """Change `content`; the keys that were overridden, and by which variable."""
    overridden: dict[Location, str] = {}
    for variable, (section, kind, key) in OVERRIDES.items():
        given = environment.get(variable)
        target = content.get(section)
        if given and isinstance(target, dict) and target.get("kind") == kind:
            target[key] = given
            overridden[section, key] = variable
    overridden.update(_override_health_urls(content, environment))
    return overridden


def _override_health_urls(
    content: dict[str, Any], environment: Mapping[str, str]
) -> dict[Location, str]:
    """Change `content`, where the services need not be named for it."""
    overridden: dict[Location, str] = {}
    for variable, name in HEALTH_URLS.items():
        given = environment.get(variable)
        service = _section(content, "platform", "services", name) if given else None
        if service is not None:
            service.pop("url_from", None)
            service["url"] = given
            overridden["platform", "services", name, "url"] = variable
    return overridden


def _section(content: dict[str, Any], *keys: str) -> dict[str, Any] | None:
    """The section at `keys`, made where there is none; None if something else stands there."""
    here: Any = content
    for key in keys:
        here = here.setdefault(key, {})
        if not isinstance(here, dict):
            return None
    section: dict[str, Any] = here
    return section


def _translate(
    error: pydantic.ValidationError,
    path: Path,
    document: yaml.Node,
    overridden: Mapping[Location, str],
) -> ConfigurationError:
    problems = [
        _describe(problem, document, overridden)
        for problem in error.errors(include_url=False, include_input=True)
    ]
    more = "" if len(problems) == 1 else f"{len(problems)} mistakes:\n  "
    return ConfigurationError(
        str(path), more + "\n  ".join(problems), "docs/configuration.md lists every key."
    )


def _describe(problem: Any, document: yaml.Node, overridden: Mapping[Location, str]) -> str:
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
            return f"{where}: there is no such key{_suggest(location)}"
        case "missing":
            return f"{where}: the key {location[-1]!r} is missing"
        case "union_tag_not_found" | "union_tag_invalid":
            context = problem["ctx"]
            kinds = context.get("expected_tags") or ", ".join(_kinds(location))
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


def _suggest(location: Location) -> str:
    known = sorted({name for part in _schemas(location[:-1]) for name in _properties(part)})
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f"; expected one of {', '.join(known)}" if known else ""


def _kinds(location: Location) -> list[str]:
    return sorted(kind for part in _schemas(location) for kind in _constants(part))


@functools.cache
def _schema() -> dict[str, Any]:
    return Settings.model_json_schema()


def _schemas(location: Location) -> list[dict[str, Any]]:
    """The JSON schemas of what may stand at `location`; of a union, those of the kind it names."""
    schema = _schema()
    here: list[dict[str, Any]] = [schema]
    for key in location:
        below = [
            found for part in here for found in _resolve(_properties(part).get(str(key)), schema)
        ]
        here = below or [part for part in here if key in _constants(part)]
    return here


def _properties(part: Mapping[str, Any]) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = part.get("properties", {})
    return properties


def _constants(part: Mapping[str, Any]) -> Sequence[str]:
    return [each["const"] for each in _properties(part).values() if "const" in each]


def _resolve(part: dict[str, Any] | None, schema: dict[str, Any]) -> list[dict[str, Any]]:
    if part is None:
        return []
    if "$ref" in part:
        return [schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]]
    choices = part.get("anyOf", part.get("oneOf", []))
    return [found for choice in choices for found in _resolve(choice, schema)] or [part]
