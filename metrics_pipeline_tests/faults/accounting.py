"""What was promised while something was broken, what became of it, and the table of all faults.

Promised is what is to be found again: an uplink that the hub has accepted, a slot of a sampled
source, a count that was due, a message that the gateway has acknowledged. It is stored, or it is
told of by the product itself (a dead letter, a missed slot, a run that failed); else it is lost.
Where the product speaks of more than was promised, it counts something twice, and lost ones may
hide behind that: no row with such is well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

HEAD = (
    *("fault", "away s", "sent", "stored", "spooled", "dead letters", "told as missed"),
    *("lost", "doubled", "counted twice", "back after s"),
)
NEVER = "not back"
NUMBERS = attrgetter(
    *("sent", "stored", "dead_letters", "told", "lost", "doubled", "counted_twice")
)


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one kind of points. `doubled` are in the store more than once; `counted_twice` is by how
    much what the product says of them is more than there are."""

    sent: int = 0
    stored: int = 0
    dead_letters: int = 0
    told: int = 0
    doubled: int = 0
    counted_twice: int = 0

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
            self.counted_twice + other.counted_twice,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One fault. `back_seconds` is from its end until all went on; None if that did not happen.

    `spooled` points have waited in the spool, and are stored since. `not_made` says why the fault
    could not be made: nothing is known of it then.
    """

    fault: str
    away_seconds: float
    tallies: Mapping[str, Tally]
    back_seconds: float | None = None
    spooled: int = 0
    remarks: Sequence[str] = ()
    not_made: str = ""

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
        """Whether it was made, nothing is lost, nothing is there twice, and all went on."""
        total = self.total
        is_each_once = not (self.lost or total.doubled or total.counted_twice)
        return not self.not_made and is_each_once and self.back_seconds is not None

    def cells(self) -> Sequence[str]:
        """As in the table."""
        if self.not_made:
            return (self.fault, f"not made: {self.not_made}", *[""] * (len(HEAD) - 2))
        total = self.total
        back = NEVER if self.back_seconds is None else f"{self.back_seconds:.0f}"
        numbers = (total.sent, total.stored, self.spooled, total.dead_letters, total.told)
        return (
            self.fault,
            f"{self.away_seconds:.0f}",
            *map(str, (*numbers, self.lost, total.doubled, total.counted_twice)),
            back,
        )

    def as_json(self) -> Mapping[str, Any]:
        """Its numbers, of all kinds together and of each."""
        total = self.total
        return {
            "fault": self.fault,
            "sent": total.sent,
            "stored": total.stored,
            "spooled": self.spooled,
            "dead_lettered": total.dead_letters,
            "told_as_missed": total.told,
            "lost": self.lost,
            "duplicated": total.doubled,
            "counted_twice": total.counted_twice,
            "recovery_s": None if self.back_seconds is None else round(self.back_seconds, 1),
            "not_made": self.not_made or None,
            "kinds": {
                kind: {"sent": each.sent, "stored": each.stored, "told_as_missed": each.told}
                for kind, each in self.tallies.items()
            },
        }


def account_numbers(numbers: Iterable[int], first: int, end: int, dead_letters: int = 0) -> Tally:
    """Of events numbered from `first` to before `end`, of which `numbers` were found stored."""
    found: dict[int, int] = {}
    for number in numbers:
        if first <= number < end:
            found[number] = found.get(number, 0) + 1
    doubled = sum(times - 1 for times in found.values())
    sent, stored = end - first, len(found)
    twice = max(0, stored + dead_letters - sent)
    return Tally(sent, stored, dead_letters, doubled=doubled, counted_twice=twice)


def account_kept(promised: Iterable[Hashable], stored: Iterable[Hashable]) -> Tally:
    """Of things that can be told apart, such as acknowledged messages; others may be stored too."""
    due = set(promised)
    found = Counter(each for each in stored if each in due)
    return Tally(len(due), len(found), doubled=found.total() - len(found))


def times_doubled(stored: Iterable[tuple[int, Hashable]], every: int) -> Mapping[int, int]:
    """Of rounds that are due at multiples of `every`: how much there is beyond one of each.

    `stored` are times with what is to be there once a round, at whichever time of it.
    """
    doubled: Counter[int] = Counter()
    for (round_, _), times in Counter((at // every, what) for at, what in stored).items():
        doubled[round_ * every] += times - 1
    return doubled


def account_rounds(
    due: Iterable[int],
    size: int,
    stored: Mapping[int, int],
    told: Collection[int],
    doubled: Mapping[int, int],
) -> Tally:
    """Of rounds that were due at these times, each of `size` points.

    `stored` says how many of each are; what is missing of a round that is `told` of is told of.
    """
    times = list(due)
    there = {at: min(size, stored.get(at, 0)) for at in times}
    said = sum(size - there[at] for at in times if at in told)
    more = sum(doubled.get(at, 0) for at in times)
    return Tally(size * len(times), sum(there.values()), told=said, doubled=more)


def account_slots(
    due: Collection[int],
    outcomes: Mapping[str, int],
    asked: Collection[str],
    stored: Collection[int],
    doubled: Mapping[int, int],
) -> Tally:
    """Of the slots `due` by the clock. Those of `asked` outcomes are to be among the times that are
    `stored`; all others are told of."""
    kept = sum(count for outcome, count in outcomes.items() if outcome in asked)
    told = sum(count for outcome, count in outcomes.items() if outcome not in asked)
    return Tally(
        len(due),
        min(kept, len(set(due) & set(stored))),
        told=told,
        doubled=sum(doubled.get(at, 0) for at in due),
        counted_twice=max(0, kept + told - len(due)),
    )


def table(rows: Sequence[Row]) -> str:
    """In Markdown, a line a fault."""
    return _markdown([HEAD, *(row.cells() for row in rows)])


def by_fault_and_kind(rows: Sequence[Row]) -> str:
    """In Markdown: of each fault and kind what was sent, what is stored and what is told of."""
    made = [row for row in rows if not row.not_made]
    kinds = list(dict.fromkeys(kind for row in made for kind in row.tallies))
    lines = [["fault: sent, stored, told as missed", *kinds]]
    for row in made:
        each = [row.tallies.get(kind, Tally()) for kind in kinds]
        lines.append([row.fault, *(f"{t.sent}, {t.stored}, {t.told}" for t in each)])
    return _markdown(lines)


def by_kind(rows: Sequence[Row]) -> str:
    """In Markdown: over all faults, a line a kind of points."""
    kinds: dict[str, list[Tally]] = {}
    for row in rows:
        for kind, tally in row.tallies.items():
            kinds.setdefault(kind, []).append(tally)
    head = ("sent", "stored", "dead letters", "told as missed", "lost", "doubled", "counted twice")
    lines = [["kind", *head]]
    for kind, tallies in kinds.items():
        columns = zip(*map(NUMBERS, tallies), strict=True)
        lines.append([kind, *(str(sum(column)) for column in columns)])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)
