"""What was promised while something was broken, what became of it, and the table of all faults.

Promised is what is to be found again: an uplink that the hub has accepted, a slot of a sampled
source, a count that was due, a message that the gateway has acknowledged. It is stored, or it is
told of by the product itself (a dead letter, a missed slot, a run that failed); else it is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

HEAD = (
    *("fault", "away s", "sent", "stored", "spooled", "dead letters", "told as missed"),
    *("lost", "doubled", "back after s"),
)
NEVER = "not back"


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one kind of points."""

    sent: int = 0
    stored: int = 0
    dead_letters: int = 0
    told: int = 0
    doubled: int = 0

    @property
    def lost(self) -> int:
        """Of which nobody has said a word. Never below 0, so that none makes up for another's."""
        return max(0, self.sent - self.stored - self.dead_letters - self.told)

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.sent + other.sent,
            self.stored + other.stored,
            self.dead_letters + other.dead_letters,
            self.told + other.told,
            self.doubled + other.doubled,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. `back_seconds` is from its end until all went on; None if that did not happen.

    `spooled` points have waited in the spool, and are stored since.
    """

    fault: str
    away_seconds: float
    tallies: Mapping[str, Tally]
    back_seconds: float | None = None
    spooled: int = 0
    remarks: Sequence[str] = ()

    @property
    def total(self) -> Tally:
        """Of all kinds."""
        found = Tally()
        for tally in self.tallies.values():
            found = found.plus(tally)
        return found

    @property
    def lost(self) -> int:
        """Of all kinds, each for itself."""
        return sum(tally.lost for tally in self.tallies.values())

    @property
    def is_well(self) -> bool:
        """Whether nothing is lost, nothing is there twice, and all went on."""
        return not self.lost and not self.total.doubled and self.back_seconds is not None

    def cells(self) -> Sequence[str]:
        """As in the table."""
        total = self.total
        back = NEVER if self.back_seconds is None else f"{self.back_seconds:.0f}"
        numbers = (total.sent, total.stored, self.spooled, total.dead_letters, total.told)
        return (
            self.fault,
            f"{self.away_seconds:.0f}",
            *map(str, (*numbers, self.lost, total.doubled)),
            back,
        )


def account_numbers(numbers: Iterable[int], first: int, end: int, dead_letters: int = 0) -> Tally:
    """Of events numbered from `first` to before `end`, of which `numbers` were found stored."""
    found: dict[int, int] = {}
    for number in numbers:
        if first <= number < end:
            found[number] = found.get(number, 0) + 1
    doubled = sum(times - 1 for times in found.values())
    return Tally(end - first, len(found), dead_letters=dead_letters, doubled=doubled)


def account_kept(promised: Iterable[object], stored: Iterable[object]) -> Tally:
    """Of things that can be told apart, such as acknowledged messages; others may be stored too."""
    due = set(promised)
    return Tally(len(due), len(due & set(stored)))


def account_rounds(
    due: Iterable[int], size: int, stored: Mapping[int, int], told: Collection[int]
) -> Tally:
    """Of rounds that were due at these times, each of `size` points.

    `stored` says how many of each are; what is missing of a round that is `told` of is told of.
    """
    times = list(due)
    there = {at: min(size, stored.get(at, 0)) for at in times}
    said = sum(size - there[at] for at in times if at in told)
    return Tally(size * len(times), sum(there.values()), told=said)


def account_slots(due: int, outcomes: Mapping[str, int], asked: Iterable[str]) -> Tally:
    """Of so many slots by the clock; the `asked` outcomes are stored, all others are told of."""
    kept = set(asked)
    stored = sum(count for outcome, count in outcomes.items() if outcome in kept)
    told = sum(count for outcome, count in outcomes.items() if outcome not in kept)
    return Tally(due, stored, told=told)


def table(rows: Sequence[Row]) -> str:
    """In Markdown, a line a fault."""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def by_kind(rows: Sequence[Row]) -> str:
    """In Markdown: over all faults, a line a kind of points."""
    kinds: dict[str, list[Tally]] = {}
    for row in rows:
        for kind, tally in row.tallies.items():
            kinds.setdefault(kind, []).append(tally)
    lines = [["kind", "sent", "stored", "dead letters", "told as missed", "lost", "doubled"]]
    lines.append(["---"] * len(lines[0]))
    for kind, tallies in kinds.items():
        each = [(t.sent, t.stored, t.dead_letters, t.told, t.lost, t.doubled) for t in tallies]
        lines.append([kind, *(str(sum(column)) for column in zip(*each, strict=True))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
