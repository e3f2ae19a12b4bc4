"""Reads the settings: one YAML file, a few environment variables, errors a person can act on."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, settings_file, state_dir
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.settings import Settings

OVERRIDES: Mapping[str, tuple[str, str]] = {"INFLUXDB_URL": ("store", "url")}
"""Environment variables that win over a key of the file, where that key is in use."""

Location = tuple[str | int, ...]


def load_settings(file: Path | None = None) -> Settings:
    """The settings of `file`, else of $METRICS_PIPELINE_SETTINGS, else the defaults.

    Raises ConfigurationError with every mistake: file, line, key, what was expected.
    """
    path = file or settings_file()
    document = _parse(path)
    content = _construct(document, path)
    _apply_overrides(content, os.environ)
    try:
        return Settings.model_validate(content, context={STATE_DIR_KEY: state_dir()})
    except pydantic.ValidationError as error:
        raise _translate(error, path, document) from None


def _parse(path: Path) -> yaml.Node:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            str(path), f"cannot be read ({error})", f"Name another with ${SETTINGS_VARIABLE}."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(
            str(path), f"is not YAML: {' '.join(str(error).split())}", "Correct that line."
        ) from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigurationError(
            str(path), "expected keys and values at the top", "Begin with `version: 1`."
        )
    _refuse_repeated_keys(node, path)
    return node


def _construct(node: yaml.Node, path: Path) -> dict[str, Any]:
    loader = yaml.SafeLoader("")
    try:
        content: dict[str, Any] = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            str(path), f"is not plain YAML: {' '.join(str(error).split())}", "Correct that line."
        ) from None
    finally:
        loader.dispose()
    return content


def _refuse_repeated_keys(node: yaml.Node, path: Path) -> None:
    """YAML would silently take the last of two values."""
    seen: set[str] = set()
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value in seen:
            raise ConfigurationError(
                f"{path}:{key.start_mark.line + 1}", f"{key.value} is given twice", "Remove one."
            )
        seen.add(key.value)
        _refuse_repeated_keys(value, path)


def _apply_overrides(content: dict[str, Any], environment: Mapping[str, str]) -> None:
    for variable, (section, key) in OVERRIDES.items():
        given = environment.get(variable)
        target = content.get(section)
        if given and isinstance(target, dict) and key in target:
            target[key] = given


def _translate(
    error: pydantic.ValidationError, path: Path, document: yaml.Node
) -> ConfigurationError:
    problems = [
        _describe(problem["loc"], problem, document)
        for problem in error.errors(include_url=False, include_input=True)
    ]
    more = "" if len(problems) == 1 else f"{len(problems)} mistakes:\n  "
    return ConfigurationError(
        str(path), more + "\n  ".join(problems), "docs/configuration.md lists every key."
    )


def _describe(location: Location, problem: Any, document: yaml.Node) -> str:
    keys, line = _find(document, location)
    where = f"line {line}: {'.'.join(keys)}" if keys else f"line {line}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: there is no such key{_suggest(keys, location)}"
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] == "missing":
        return f"{where}: the key {location[-1]!r} is missing"
    if problem["type"] == "value_error":
        return f"{where}: {expected}"
    return f"{where}: expected {expected}, got {_shown(problem['input'])}"


def _shown(given: Any) -> str:
    """A number as it is; of anything else only the kind, because it may be a misplaced secret."""
    return repr(given) if isinstance(given, int | float) else f"a {type(given).__name__}"


def _find(document: yaml.Node, location: Location) -> tuple[list[str], int]:
    """The keys of `location` that are in the file, and the line of the last of them."""
    keys: list[str] = []
    node, line = document, document.start_mark.line
    for part in location:
        for key, value in _children(node):
            if key == str(part):
                node, line = value, value.start_mark.line
                keys.append(key)
                break
    return keys, line + 1


def _children(node: yaml.Node) -> Sequence[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        return [(key.value, value) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [(str(index), value) for index, value in enumerate(node.value)]
    return []


def _suggest(keys: Sequence[str], location: Location) -> str:
    known = _known_keys(keys[:-1])
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; expected one of {', '.join(sorted(known))}" if known else ""


def _known_keys(keys: Sequence[str]) -> list[str]:
    """The keys that may stand below `keys`, from the schema of the settings."""
    schema = Settings.model_json_schema()
    here: list[dict[str, Any]] = [schema]
    for key in keys:
        here = [
            found
            for part in here
            for found in _resolve(part.get("properties", {}).get(key), schema)
        ]
    return sorted({name for part in here for name in part.get("properties", {})})


def _resolve(part: dict[str, Any] | None, schema: dict[str, Any]) -> list[dict[str, Any]]:
    if part is None:
        return []
    if "$ref" in part:
        return [schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]]
    choices = part.get("anyOf", part.get("oneOf", []))
    return [found for choice in choices for found in _resolve(choice, schema)] or [part]
