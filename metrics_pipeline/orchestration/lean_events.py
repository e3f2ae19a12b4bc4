"""What Dagster writes of an event several times is stored once: a third of a step's events less.

That a check yielded an output of no value is not stored where its outcome follows at once. Of each
other event of a step there are a handle of the step beside that of its node, from which Dagster
makes it again when it reads; the message a second time, for which it asks only where there is no
first; and tags for loggers, which it never reads.
"""

from collections.abc import Sequence
from functools import cached_property

from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage


class LeanEvents(SqlEventLogStorage):
    """Goes before a storage of Dagster's in the bases of a class."""

    def store_event(self, event: EventLogEntry) -> None:
        """Store it without what is repeated; the output of a check when the next event is known."""
        of_step = (event.run_id, event.step_key)
        held = self._held.pop(of_step, None)
        if held is not None and not tells(event, _output_of(held)):
            super().store_event(held)
        lean = without_repetition(event)
        if _output_of(event):
            self._held[of_step] = lean
        else:
            super().store_event(lean)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """The same with several of one type."""
        super().store_event_batch([without_repetition(event) for event in events])

    def store_asset_check_event(self, event: EventLogEntry, event_id: int | None) -> None:
        """In the table of outcomes, of which only what was judged is read."""
        said = event.get_dagster_event()._replace(message=None, pid=None, node_handle=None)
        super().store_asset_check_event(event._replace(dagster_event=said), event_id)

    @cached_property
    def _held(self) -> dict[tuple[str, str | None], EventLogEntry]:
        """Of each step the output, which may be that of a check, that was yielded last."""
        return {}


def tells(event: EventLogEntry, output: str | None) -> bool:
    """Whether it is the outcome of the check that has this output."""
    said = event.dagster_event
    if said is None or said.event_type is not DagsterEventType.ASSET_CHECK_EVALUATION:
        return False
    check = said.asset_check_evaluation_data
    return output == f"{check.asset_key.to_python_identifier()}_{check.check_name}"


def _output_of(event: EventLogEntry) -> str | None:
    """The name of the output of a check, or of what may be one, that was yielded."""
    said = event.dagster_event
    if said is None or said.event_type is not DagsterEventType.STEP_OUTPUT:
        return None
    output = said.step_output_data
    is_check = output.output_name.startswith(f"{said.step_key}_") and output.mapping_key is None
    return output.output_name if is_check and not output.metadata else None


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
