"""Looks for events that are not stored yet, every few seconds, and launches a run that stores them.

Asking costs one question to the hub over a connection that is kept, and one to the operational
database. What was seen is left there for the exporter: so the lag is shown, and grows, whatever
becomes of the runs. An idle hub launches none.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack

import dagster as dg

from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.telemetry_assets import JOB, SENSOR, UPLINKS
from metrics_pipeline.core.telemetry_backlog import (
    MOVE_IT,
    Backlog,
    ahead_in_words,
    from_cursor,
    in_words,
    lag_points,
    look,
    to_cursor,
)
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.orchestration.in_flight import find_in_flight
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.telemetry_connections import TelemetryConnections, open_telemetry

MINIMUM_INTERVAL_SECONDS = 2
"""The daemon looks at its sensors every 5 s; one that may tick as often ticks at every second
look."""

LEAD_SECONDS = 20.0
"""So long before a run's window ends the next one is launched: a tick, the queue and the start of a
process take 5 to 10 s, on a busy machine 20."""

IN_TIME_SECONDS = 30.0
"""While nothing waits longer than this, all there is counts as stored (DESIGN, cadence)."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 60.0
FAILURES_COUNTED = 4

ASSET = dg.AssetKey.from_user_string(UPLINKS)


class BacklogWatch:
    """Asks how far the hub is and how far the store; opens what it needs at the first look.

    May be shared between threads: beside the daemon somebody may try a tick in the UI.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._opened = ExitStack()
        self._telemetry: TelemetryConnections | None = None

    @property
    def window_seconds(self) -> float:
        """Of a run."""
        assert self._settings.telemetry is not None
        return self._settings.telemetry.window_seconds

    def look(self, before: Backlog) -> tuple[Backlog, int]:
        """How far both are, and when that was, in ns since the epoch; left for the exporter too.

        Raises SourceError, StoreError and ConfigurationError; the next look opens anew.
        """
        with self._lock:
            try:
                telemetry = self._open()
                stream = telemetry.stream
                hub = (stream.namespace, stream.hub, stream.consumer_group)
                states, stored = stream.partitions(), telemetry.checkpoints.find_all(*hub)
                backlog, now_ns = look(states, stored, before), time.time_ns()
                _publish(telemetry.database, backlog, now_ns)
            except MetricsPipelineError:
                self._forget()
                raise
            return backlog, now_ns

    def close(self) -> None:
        """Give back the connections."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._telemetry = None
        self._opened.close()

    def _open(self) -> TelemetryConnections:
        if self._telemetry is None:
            self._telemetry = self._opened.enter_context(open_telemetry(self._settings, SENSOR))
        return self._telemetry


def _publish(database: OperationalDatabase, backlog: Backlog, now_ns: int) -> None:
    points = tuple(lag_points(backlog, now_ns))
    is_in_time = all(
        each.lag_seconds(now_ns) <= IN_TIME_SECONDS and not each.is_ahead
        for each in backlog.values()
    )
    keep = snapshots.replace if is_in_time else snapshots.merge
    with database.writing() as connection:
        keep(connection, UPLINKS, points, now_ns)


def build_telemetry_sensor(watch: BacklogWatch) -> dg.SensorDefinition:
    """`telemetry_backlog`: on by default. `watch` stays open for as long as the process lives."""

    @dg.sensor(
        name=SENSOR,
        job_name=JOB,
        minimum_interval_seconds=MINIMUM_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches a run when the hub has events that are not stored, and none is in "
        "flight or the window of the one that is ends soon. Its cursor is, by partition, the "
        "newest event of the hub and the last that is stored.",
    )
    def telemetry_backlog(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            backlog, now_ns = watch.look(from_cursor(context.cursor))
        except MetricsPipelineError as error:
            # Not a failed tick, nor a log of its own: there would be one every 5 s while it lasts.
            return dg.SensorResult(skip_reason=f"How far the hub is was not found out: {error}")
        return _decide(context.instance, backlog, now_ns, watch.window_seconds)

    return telemetry_backlog


def _decide(
    instance: dg.DagsterInstance, backlog: Backlog, now_ns: int, window_seconds: float
) -> dg.SensorResult:
    seen, cursor = _tell(backlog, now_ns), to_cursor(backlog)
    if not any(each.lag_events and not each.is_ahead for each in backlog.values()):
        is_ahead = any(each.is_ahead for each in backlog.values())
        said = "A run would find nothing" if is_ahead else "Nothing to do"
        return dg.SensorResult(skip_reason=f"{said}: {seen}.", cursor=cursor)
    in_flight = find_in_flight(instance, JOB, [ASSET])
    if in_flight and not _ends_soon(in_flight, window_seconds, now_ns / NS_PER_SECOND):
        run = in_flight[0].dagster_run
        reason = f"Run {run.run_id} is still {run.status.value.lower()}: {seen}."
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    last = instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=FAILURES_COUNTED)
    pause = pause_seconds(last, now_ns / NS_PER_SECOND)
    if pause > 0:
        reason = f"The last run failed, the next one comes in {pause:.0f} s: {seen}."
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    # The same answer for whoever asks twice, such as a second daemon, before there is a run.
    key = f"after {last[0].dagster_run.run_id}" if last else "first"
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=key)], cursor=cursor)


def _ends_soon(
    in_flight: Sequence[dg.RunRecord], window_seconds: float, now_seconds: float
) -> bool:
    """Whether the one run there is should be followed by the next, which takes over from it.

    The next one claims the partitions with a higher epoch once it has started: until then this one
    goes on, and then it ends. So nobody waits for a process to start.
    """
    started = in_flight[0].start_time if len(in_flight) == 1 else None
    lead = min(LEAD_SECONDS, window_seconds / 2)
    return started is not None and now_seconds >= started + window_seconds - lead


def pause_seconds(last: Sequence[dg.RunRecord], now_seconds: float) -> float:
    """How long to wait still, given the last runs, the newest first: longer, the more failed.

    From the start of the last one: if that served some partitions until its window ended, they are
    not to wait for the one that failed.
    """
    failed = 0
    for record in last:
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
        failed += 1
    if not failed:
        return 0.0
    started: float | None = last[0].start_time or last[0].end_time
    # One that started far in the future did so before the clock was set back.
    if started is None or started > now_seconds + LONGEST_PAUSE_SECONDS:
        return 0.0
    pause = min(FIRST_PAUSE_SECONDS * (1 << failed - 1), LONGEST_PAUSE_SECONDS)
    return max(0.0, min(started, now_seconds) + pause - now_seconds)


def _tell(backlog: Backlog, now_ns: int) -> str:
    """What was seen, and what a person should know of it."""
    parts = [in_words(backlog, now_ns)]
    lost = sum(each.lost_events for each in backlog.values())
    if lost:
        parts.append(f"{lost} events were gone before they were read: the hub keeps none so long")
    ahead = ahead_in_words(backlog)
    if ahead:
        parts.append(f"{ahead}: {MOVE_IT}")
    return "; ".join(parts)
