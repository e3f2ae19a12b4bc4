"""Lets schedules and sensors go on after the clock of the daemon was ahead and was set back.

Dagster evaluates none of them before the time of its last tick has come again, were it in a year,
and then takes the run of that tick for the one that is due. So ticks of the future, and their runs,
become of now; and runs that have not ended are ended: the time of none would be over in time.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorTick,
    InstigatorType,
    TickStatus,
)
from dagster._core.storage.tags import TICK_ID_TAG

from metrics_pipeline.access.one_line import one_line
from metrics_pipeline.core.findings import span_in_words
from metrics_pipeline.orchestration.in_flight import IN_FLIGHT
from metrics_pipeline.orchestration.run_time import SCHEDULED_TAG

LOG = logging.getLogger(__name__)

LEAST_AHEAD_SECONDS = 30.0
"""What is less in the future is waited for: clocks of machines differ."""

TIMES = (
    *("start_timestamp", "last_iteration_timestamp"),
    *("last_tick_timestamp", "last_tick_start_timestamp", "last_sensor_start_timestamp"),
)
"""Of the data of schedules and of sensors: what keeps the next tick from coming."""

WAS_OF = "By a clock that was ahead this tick was of"
"""How the reason of a tick begins that is of another time than it was; the time follows, and why
it launched nothing. It is shown as skipped, for only such a one has a reason; its runs stay."""

ENDED = "The clock was set back: this run was of the future, and the next one is of the right time."
NOTE = "metrics_pipeline/set_back_clock"


@dataclass(frozen=True, slots=True)
class SetBack:
    """What was done about it: when, in seconds since the epoch, and how far the clock was ahead.

    `names` are schedules and sensors that go on, `run_ids` are runs that were ended.
    """

    at_seconds: float
    ahead_seconds: float
    names: Sequence[str]
    run_ids: Sequence[str]

    def __str__(self) -> str:
        return (
            f"the clock was ahead by {span_in_words(self.ahead_seconds)} or more and was set back: "
            f"{', '.join(self.names) or 'no schedule'} went on by the new time, and "
            f"{len(self.run_ids)} runs were ended"
        )


def forget_the_future(instance: dg.DagsterInstance, now_seconds: float) -> SetBack | None:
    """Make of now what is of the future; what was done is logged, noted and given, if anything.

    To be called while no daemon runs: its threads remember what they wait for, and would wait on.
    """
    latest: dict[str, float] = {}
    runs: set[str] = set()
    for state in instance.all_instigator_state():
        ticks = list(_future_ticks(instance, state, now_seconds))
        at = max([*(tick.timestamp for tick in ticks), *_times(state).values()], default=0.0)
        if at >= now_seconds + LEAST_AHEAD_SECONDS:
            latest[state.instigator_name] = at
            _bring_back(instance, state, now_seconds)
            runs.update(*(_date_back(instance, tick, now_seconds) for tick in ticks))
    ended = list(_end(instance, runs, now_seconds))
    if not latest and not ended:
        return None
    ahead = max(latest.values(), default=now_seconds) - now_seconds
    done = SetBack(now_seconds, ahead, sorted(latest), ended)
    instance.daemon_cursor_storage.set_cursor_values({NOTE: json.dumps(asdict(done))})
    LOG.warning("%s", done)
    return done


def find_last(instance: dg.DagsterInstance) -> SetBack | None:
    """What was done the last time; None if nothing ever was."""
    noted = instance.daemon_cursor_storage.get_cursor_values({NOTE}).get(NOTE)
    return SetBack(**json.loads(noted)) if noted else None


def _times(state: InstigatorState) -> dict[str, float]:
    found = {name: getattr(state.instigator_data, name, None) for name in TIMES}
    return {name: at for name, at in found.items() if at is not None}


def _future_ticks(
    instance: dg.DagsterInstance, state: InstigatorState, now: float
) -> Sequence[InstigatorTick]:
    """Of a sensor those do not matter."""
    if state.instigator_type is not InstigatorType.SCHEDULE:
        return ()
    return instance.get_ticks(state.instigator_origin_id, state.selector_id, after=now)


def _bring_back(instance: dg.DagsterInstance, state: InstigatorState, now: float) -> None:
    late: dict[str, Any] = {name: now for name, at in _times(state).items() if at > now}
    if late and state.instigator_data is not None:
        instance.update_instigator_state(state.with_data(state.instigator_data._replace(**late)))


def _date_back(instance: dg.DagsterInstance, tick: InstigatorTick, now: float) -> list[str]:
    """Its runs, of which none is taken any more for that of a time that comes again."""
    runs = instance.get_runs(dg.RunsFilter(tags={TICK_ID_TAG: str(tick.tick_id)}))
    for run in runs:
        instance.add_run_tags(run.run_id, {SCHEDULED_TAG: _in_words(now)})
    why = tick.skip_reason or (one_line(tick.error.message) if tick.error else "")
    said = f"{WAS_OF} {_in_words(tick.timestamp)}. {why}".strip()
    instance.update_tick(
        tick.with_status(TickStatus.SKIPPED, timestamp=now, skip_reason=said, error=None)
    )
    return [run.run_id for run in runs]


def _in_words(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _end(instance: dg.DagsterInstance, of_future: set[str], now: float) -> Iterator[str]:
    """Of the runs that have not ended: those, and what began in the future."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(IN_FLIGHT))):
        run = record.dagster_run
        began = record.start_time or 0.0
        if run.run_id in of_future or began >= now + LEAST_AHEAD_SECONDS:
            _cancel(instance, run)
            yield run.run_id


def _cancel(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Where its process does not answer, run monitoring says soon that it is canceled."""
    if run.status not in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED):
        instance.report_run_canceled(run, ENDED)
        return
    instance.report_run_canceling(run, ENDED)
    try:
        instance.run_launcher.terminate(run.run_id)
    except Exception as error:  # noqa: BLE001 (launchers raise the errors of their clients)
        LOG.warning("Run %s was not told to end (%s); run monitoring ends it.", run.run_id, error)
