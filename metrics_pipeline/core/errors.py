"""Every error the product raises. Each class answers one question: would trying again help?

MetricsPipelineError
├── ConfigurationError         wrong before starting                     never
├── SourceError                reading failed; carries source and target
│   ├── SourceUnreachable      no answer, or the far side is ill         yes
│   ├── SourceRefused          the far side says no to what we ask       never
│   │   ├── CredentialRefused  the far side says no to who we are        never
│   │   └── PartitionTaken     another reader has come in our place      never
│   ├── SourceThrottled        asked too often                           after `retry_after_seconds`
│   └── UnexpectedReply        answered, but not what was asked for      never
├── StoreError                 the store says no to this write           never
│   ├── StoreUnavailable       the store is down, locked, full or busy   after `retry_after_seconds`
│   ├── CheckpointMoved        another reader has moved the checkpoint   never
│   └── PartialWrite           some points were kept, some were refused  never
├── InvalidPoint               one point is wrong; `reason` is a metric label
└── InvalidMessage             one message of a robot is wrong; `reason` is a metric label

A message says what was tried, on what, what came back, and what to do. It never holds a secret:
what came back may repeat one, so all that is known as one is left out (`redaction.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from metrics_pipeline.core.points import Point
from metrics_pipeline.core.redaction import KNOWN
from metrics_pipeline.core.telemetry import Checkpoint, PartitionKey

REPLY_EXCERPT_BYTES = 200


class MetricsPipelineError(Exception):
    """The root; catch it where a message is shown to a person."""

    def __init__(self, text: str) -> None:
        super().__init__(KNOWN.hide(text))

    def _hide_in(self, part: str, text: str) -> str:
        """`part` of the `text` that was given, without secrets: looked for where that has any."""
        return part if str(self) == text else KNOWN.hide(part)


class ConfigurationError(MetricsPipelineError):
    """A choice is wrong. `where` is the file and key, or the environment variable."""

    def __init__(self, where: str, problem: str, fix: str) -> None:
        text = f"{where}: {problem}. {fix}"
        super().__init__(text)
        self.where = where
        self.problem = self._hide_in(problem, text)
        self.fix = fix


class SourceError(MetricsPipelineError):
    """Reading failed. `source` is the registry's name of it, `target` what was asked."""

    retry_helps = False

    def __init__(self, source: str, target: str, problem: str, fix: str) -> None:
        hint = "trying again may help" if self.retry_helps else "trying again does not help"
        text = f"{source}: reading {target}: {problem}. {fix} ({hint})"
        super().__init__(text)
        self.source = source
        self.target = target
        self.problem = self._hide_in(problem, text)
        self.fix = fix

    def about(self, target: str) -> Self:
        """The same error as the failure of `target`, which needed what could not be read."""
        twin = self.__class__.__new__(self.__class__)
        vars(twin).update(vars(self))
        SourceError.__init__(twin, self.source, target, f"{self.target}: {self.problem}", self.fix)
        twin.__cause__ = self
        return twin


class SourceUnreachable(SourceError):
    """No connection, no answer in time, or a 5xx."""

    retry_helps = True


class SourceRefused(SourceError):
    """401, 403, 404 or its like; names the credential and the right that is missing."""


class CredentialRefused(SourceRefused):
    """Nobody is let in with this credential: asking for anything else is pointless."""


class PartitionTaken(SourceRefused):
    """A reader of the same or a higher epoch reads the partition now: this one has to end."""


class SourceThrottled(SourceError):
    """Asked too often; `retry_after_seconds` is what the far side asked for, if it said."""

    retry_helps = True

    def __init__(
        self,
        source: str,
        target: str,
        problem: str,
        fix: str,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(source, target, problem, fix)
        self.retry_after_seconds = retry_after_seconds


class UnexpectedReply(SourceError):
    """An answer that is not what the interface promises; shows its first 200 bytes."""

    def __init__(self, source: str, target: str, problem: str, reply: bytes) -> None:
        super().__init__(source, target, problem, f"The reply begins {excerpt(reply)}")


class StoreError(MetricsPipelineError):
    """A store says no. `store` is where it is."""

    retry_helps = False

    def __init__(self, store: str, problem: str, fix: str) -> None:
        text = f"{store}: {problem}. {fix}"
        super().__init__(text)
        self.store = store
        self.problem = self._hide_in(problem, text)
        self.fix = fix


class StoreUnavailable(StoreError):
    """The store is down, locked, full or busy; nothing of this write is known to be kept."""

    retry_helps = True

    def __init__(
        self, store: str, problem: str, fix: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(store, problem, fix)
        self.retry_after_seconds = retry_after_seconds


class CheckpointMoved(StoreError):
    """The checkpoint of `key` is not the one that the writer left there, or is of a later epoch.

    `expected` and `stored` are None where there is no position. `owner` has written it last, and be
    it with a claim; `stored_epoch` is the highest that anybody has claimed.
    """

    def __init__(
        self,
        store: str,
        key: PartitionKey,
        expected: Checkpoint | None,
        stored: Checkpoint | None,
        *,
        stored_epoch: int,
        owner: str,
    ) -> None:
        super().__init__(
            store,
            f"the checkpoint of partition {key.partition} of {key.namespace}/{key.hub}, consumer "
            f"group {key.consumer_group}, should be {_shown(expected)} and is {_shown(stored)}, "
            f"written by {owner}; the highest epoch claimed is {stored_epoch}",
            "Let this reader end: another has taken the partition over, and what both have stored "
            "is there once.",
        )
        self.key = key
        self.expected = expected
        self.stored = stored
        self.stored_epoch = stored_epoch
        self.owner = owner


@dataclass(frozen=True, slots=True)
class RefusedPoint:
    """A point that may not be stored, or that a store refused; `reason` as of InvalidPoint."""

    point: Point
    reason: str
    detail: str


class PartialWrite(StoreError):
    """The store kept `accepted` points and refused others, counted by reason in `rejected`.

    `kept` are those of the accepted that are known, and `refused` those of the others: a store may
    say how many, but not which.
    """

    def __init__(
        self,
        store: str,
        accepted: int,
        rejected: Mapping[str, int],
        problem: str,
        *,
        kept: Sequence[Point] = (),
        refused: Sequence[RefusedPoint] = (),
    ) -> None:
        super().__init__(
            store,
            f"{accepted} points kept, {sum(rejected.values())} refused: {problem}",
            "Compare the field types with what the store already holds.",
        )
        self.accepted = accepted
        self.rejected = MappingProxyType(dict(rejected))
        self.kept = tuple(kept)
        self.refused = tuple(refused)


class InvalidPoint(MetricsPipelineError):
    """A point that may not be stored. `reason` is short and of few values: it is a label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidMessage(MetricsPipelineError):
    """A message of a robot that may not be stored. `reason` is short and of few values.

    `message_id` is what the robot calls the message, None where that could not be read.
    """

    def __init__(self, reason: str, detail: str, message_id: int | str | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.message_id = message_id


def excerpt(reply: bytes) -> str:
    """The first 200 bytes of `reply`, printable on one line."""
    said = KNOWN.hide(reply.decode("utf-8", errors="replace")).encode()
    shown = said[:REPLY_EXCERPT_BYTES].decode("utf-8", errors="replace")
    more = "…" if len(said) > REPLY_EXCERPT_BYTES else ""
    return f"{shown!r}{more}"


def _shown(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "none"
    position = checkpoint.position
    return (
        f"sequence number {position.sequence_number} (offset {position.offset!r}) "
        f"of epoch {checkpoint.epoch}"
    )
