"""What is remembered of a device between polls, so that it is asked for known instances only."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field

from metrics_pipeline.core.devices import Miss
from metrics_pipeline.sources.snmp_session import Index, Oid

Indexes = Annotated[str, Field(pattern=r"^[0-9. ]*$")]
"""Rows of a table, parted by blanks: one text is read and written faster than a list of texts."""
States = tuple[Indexes, list[int]]
"""Rows of a table, and what one column says of each."""

SHARED_KINDS = 512
"""So many are kept at hand, each with what such a device is asked for: 8 to 42 kB of the recorded
devices, 0.16 MB of one with 500 ports, which is near the bound below."""
SHARED_KIND_BYTES = 8192
"""What is stored in more, as of a chassis with hundreds of ports, is read anew at each poll."""


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


class Findings(BaseModel, frozen=True, extra="forbid"):
    """What discovering a device brought, as far as it still holds."""

    plans: dict[str, Plan] = Field(default_factory=dict)
    """By metric, how it is asked."""
    without: dict[str, Miss] = Field(default_factory=dict)
    """Metrics the device was found not to have, and why; asked again at the next discovery."""
    names: dict[str, dict[Index, str]] = Field(default_factory=dict)
    """By table of detail, what its rows are called."""
    states: dict[Oid, States] = Field(default_factory=dict)
    """Columns whose cells decided which rows are asked, and may change while the device runs."""

    def changed(self, **changes: object) -> Findings:
        """The same but for some of its fields."""
        fields = {name: getattr(self, name) for name in Findings.model_fields}
        return Findings.model_construct(**(fields | changes))


NOTHING_FOUND = Findings()


@dataclass(slots=True)
class Kind:
    """Devices of which the same was found: their findings, and what follows, worked out once."""

    found: Findings = NOTHING_FOUND
    stored: bytes | None = field(default=None, compare=False)
    """`found` as it is stored, once somebody wanted to know."""
    questions: dict[Hashable, tuple[Oid, ...]] = field(default_factory=dict, compare=False)
    """Which instances such a device is asked for, by what is wanted of it."""

    def to_json(self) -> bytes:
        """One line, 1 to 3 kB; with detail, 20 B more an interface."""
        if self.stored is None:
            self.stored = self.found.model_dump_json(exclude_defaults=True).encode()
        return self.stored


def _read_kind(stored: bytes) -> Kind:
    return Kind(Findings.model_validate_json(stored), stored)


_read_shared_kind = lru_cache(SHARED_KINDS)(_read_kind)


class DeviceMemory(BaseModel, extra="forbid"):
    """One device's memory. Nothing in it is worth keeping for ever; empty is a new device."""

    kind: Kind = Field(default_factory=Kind, exclude=True)
    """Kept apart from what changes with every poll."""
    watched: dict[Oid, int | str] = Field(default_factory=dict)
    """What the device said of itself at the last poll: who it is, its clocks, its table sizes."""
    before: dict[Oid, int] = Field(default_factory=dict)
    """Counters of the last poll that a formula needs a second time."""
    wraps: dict[Oid, int] = Field(default_factory=dict)
    """How often a clock went back to 0 because it was full."""
    polls: int = 0
    """Counted from where the device was given to begin, so that those that are alike, or restart
    together, are not in step: never set back."""

    @property
    def found(self) -> Findings:
        """What discovering it brought."""
        return self.kind.found

    def forget(self) -> None:
        """Discover everything anew; only the clocks' wraps and the count of polls are kept."""
        self.kind = Kind()
        self.before = {}

    def unlearn(self, metrics: Collection[str], tables: Collection[str] = ()) -> None:
        """Discover `metrics` anew, and what the rows of `tables` are called."""
        found = self.found
        self._change(
            plans=_without(found.plans, metrics),
            without=_without(found.without, metrics),
            names=_without(found.names, tables),
        )

    def learn(self, metric: str, plan: Plan, states: Mapping[Oid, States]) -> None:
        """How `metric` is asked, and the cells that this was decided by."""
        found = self.found
        self._change(plans={**found.plans, metric: plan}, states={**found.states, **states})

    def learn_miss(self, metric: str, miss: Miss) -> None:
        """The device does not have `metric`."""
        self._change(without={**self.found.without, metric: miss})

    def learn_names(self, table: str, names: Mapping[Index, str]) -> None:
        """What the rows of `table` are called."""
        self._change(names={**self.found.names, table: names})

    def _change(self, **changes: object) -> None:
        self.kind = Kind(self.found.changed(**changes))

    def to_json(self) -> bytes:
        """What to store for the next process: two lines, of which most polls change the second."""
        rest = self.model_dump_json(exclude_defaults=True).encode()
        return b"%b\n%b" % (self.kind.to_json(), rest)

    @classmethod
    def from_json(cls, stored: bytes) -> DeviceMemory:
        """What was stored; pydantic's ValidationError if it cannot be read."""
        found, _, rest = stored.partition(b"\n")
        memory = cls.model_validate_json(rest)
        read = _read_shared_kind if len(found) <= SHARED_KIND_BYTES else _read_kind
        memory.kind = read(found)
        return memory


_T = TypeVar("_T")


def _without(known: Mapping[str, _T], names: Collection[str]) -> dict[str, _T]:
    return {name: value for name, value in known.items() if name not in names}
