"""Plain YAML: keys and values, lists, no tags, anchors or aliases, and no dates.

It is read by libyaml, which takes a tenth of the time of PyYAML's own reader; what is a mistake by
libyaml is told by the other, which says more. No value of a file is in an error, because it may be
a secret in the wrong place; lines and keys are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline.core.errors import ConfigurationError

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


def parse(text: str, path: Path, first_line: str) -> tuple[yaml.Node, dict[str, Any]]:
    """The document as nodes, which know their lines, and as values.

    `first_line` is what a file like this begins with. Raises ConfigurationError.
    """
    try:
        return _parse(text, path, first_line, _FastLoader)
    except yaml.YAMLError:
        try:
            return _parse(text, path, first_line, _PlainLoader)
        except yaml.YAMLError as error:
            raise _not_yaml(error, path) from None


def _parse(
    text: str, path: Path, first_line: str, loader: type[_PlainLoader | _FastLoader]
) -> tuple[yaml.Node, dict[str, Any]]:
    _refuse_what_is_not_plain(text, path, loader)
    reader = loader(text)
    document = reader.get_single_node()
    if not isinstance(document, yaml.MappingNode):
        raise ConfigurationError(
            str(path), "expected keys and values at the top", f"Begin with `{first_line}`."
        )
    _check_keys(document, path)
    return document, reader.construct_document(document)


class _PlainLoader(yaml.SafeLoader):
    """Dates stay text: nothing in the settings is one, and `2024-02-31` is an error of Python's."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own name and type)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP_TAG]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same over libyaml, which PyYAML's wheels have with them, and other builds may not."""

    yaml_implicit_resolvers = _PlainLoader.yaml_implicit_resolvers


def _construct_integer(loader: _PlainLoader | _FastLoader, node: yaml.ScalarNode) -> int:
    try:
        return int(loader.construct_yaml_int(node))
    except ValueError:  # `0b_`, or more digits than Python reads
        raise yaml.constructor.ConstructorError(
            None, None, "this number cannot be read", node.start_mark
        ) from None


_PlainLoader.add_constructor(INTEGER_TAG, _construct_integer)
_FastLoader.add_constructor(INTEGER_TAG, _construct_integer)


def _refuse_what_is_not_plain(
    text: str, path: Path, loader: type[_PlainLoader | _FastLoader]
) -> None:
    depth = 0
    for token in yaml.scan(text, Loader=loader):
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
