"""What Azure's connection strings have in common: `Name=value` parts between semicolons.

Names are the same in upper and lower case. Nothing of the string is ever shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from metrics_pipeline.core.errors import ConfigurationError


class ConnectionParts:
    """The parts of `text`, which should be the connection string that `kind` describes.

    `where` says in errors where the text is from.
    """

    def __init__(self, text: str, kind: ConnectionKind, where: str) -> None:
        self._kind = kind
        self._where = where
        self._parts = dict(_split(part) for part in text.split(";") if part.strip())

    def find(self, name: str) -> str:
        """The part called `name`, or nothing."""
        return self._parts.get(name.lower(), "")

    def get(self, name: str) -> str:
        """The part called `name`; ConfigurationError without it."""
        value = self.find(name)
        if not value:
            raise self.malformed(f"it has no {name}")
        return value

    def malformed(self, problem: str) -> ConfigurationError:
        """Says that the text is no such string, and where to copy one."""
        kind = self._kind
        return ConfigurationError(
            self._where,
            f"this is not the connection string of {kind.of}: {problem}",
            f"Copy it from {kind.page}: {kind.example}",
        )


@dataclass(frozen=True, slots=True)
class ConnectionKind:
    """In words: whose connection string it is, where one is shown, and what it looks like."""

    of: str
    page: str
    example: str


def _split(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip().lower(), value.strip()
