"""What is remembered of a device between polls, so that it is asked for known instances only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from metrics_pipeline.core.devices import Miss
from metrics_pipeline.sources.snmp_session import Index, Oid

Indexes = Annotated[str, Field(pattern=r"^[0-9. ]*$")]
"""Rows of a table, parted by blanks: one text is read and written faster than a list of texts."""
States = tuple[Indexes, list[int]]
"""Rows of a table, and what one column says of each."""


class Plan(BaseModel, frozen=True, extra="forbid"):
    """How one metric of one device is asked."""

    way: str
    """The name of a Way of `snmp_ways`."""
    asked: dict[Oid, Indexes]
    """The rows to ask, by column."""
    known: dict[Oid, dict[Index, int]] = Field(default_factory=dict)
    """What was read once: scales, precisions, which rows are caches."""


def join_indexes(indexes: Iterable[Index]) -> Indexes:
    """As they are kept."""
    return " ".join(indexes)


class DeviceMemory(BaseModel, extra="forbid"):
    """One device's memory. Nothing in it is worth keeping for ever; empty is a new device."""

    plans: dict[str, Plan] = Field(default_factory=dict)
    """By metric, how it is asked."""
    without: dict[str, Miss] = Field(default_factory=dict)
    """Metrics the device was found not to have, and why; asked again at the next discovery."""
    names: dict[str, dict[Index, str]] = Field(default_factory=dict)
    """By table of detail, what its rows are called."""
    states: dict[Oid, States] = Field(default_factory=dict)
    """Columns whose cells decided which rows are asked, and may change while the device runs."""
    watched: dict[Oid, int | str] = Field(default_factory=dict)
    """What the device said of itself at the last poll: who it is, its clocks, its table sizes."""
    before: dict[Oid, int] = Field(default_factory=dict)
    """Counters of the last poll that a formula needs a second time."""
    wraps: dict[Oid, int] = Field(default_factory=dict)
    """How often a clock went back to 0 because it was full."""
    polls: int = 0
    """Polls since the tables were last discovered."""

    def forget(self) -> None:
        """Discover everything anew; only the clocks' wraps are kept."""
        self.plans = {}
        self.without = {}
        self.names = {}
        self.states = {}
        self.before = {}
        self.polls = 0

    def to_json(self) -> bytes:
        """What to store for the next process, 1 to 3 kB; with detail, 20 B more an interface."""
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def from_json(cls, stored: bytes) -> DeviceMemory:
        """What was stored; a new device's memory if it cannot be read, which costs some walks."""
        try:
            return cls.model_validate_json(stored)
        except ValidationError:
            return cls()
