"""What is sampled, and what became of one of its slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from metrics_pipeline.core.catalog import SAMPLE_SLOTS
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.fetches import Totals, to_label, totals_of
from metrics_pipeline.core.platform_assets import sampled_asset
from metrics_pipeline.core.ports import Reading, SampledSource
from metrics_pipeline.core.sample_slots import Outcome

NOTHING = Reading(())


@dataclass(frozen=True, slots=True)
class Sampled:
    """A source that is sampled: what it is called, and how one is made, which opens nothing yet.

    `kinds` are the badges that Dagster shows, `reads` is the key of what it reads, in the lineage.
    """

    name: str
    every_seconds: float
    build: Callable[[], SampledSource]
    description: str
    kinds: Collection[str] = ()
    reads: str = ""
    asked: Collection[tuple[str, str]] = ()
    """Whom it asks for which fields; empty: its points say it all. What its latest points have
    besides is of settings that were."""

    @property
    def asset(self) -> str:
        """The key of its asset, and the name of its snapshot."""
        return sampled_asset(self.name)


@dataclass(frozen=True, slots=True)
class Slot:
    """What became of the slot `slot_ns`; where it was missed, of so many up to it.

    `problems` says why, in words, by the class of the error.
    """

    source: str
    slot_ns: int
    outcome: Outcome
    number: int = 1
    reading: Reading = NOTHING
    problems: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    took_seconds: float = 0.0

    @property
    def totals(self) -> Totals:
        """What it adds to the totals: the slots, and what its reading took and brought."""
        slots = Counter({to_label((self.source, self.outcome)): self.number})
        return {SAMPLE_SLOTS.name: slots, **totals_of(self.reading.fetches)}

    def not_stored(self, error: MetricsPipelineError | None = None) -> Slot:
        """The same, where its points are given up; nothing changes if it has none."""
        if not self.reading.points:
            return self
        why = {} if error is None else {type(error).__name__: str(error)}
        kept = replace(self.reading, points=())
        return replace(self, outcome=Outcome.NOT_STORED, reading=kept, problems=why)
