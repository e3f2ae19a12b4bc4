"""What is wrong with Dagster's instance, for `metrics-pipeline doctor`; only looks.

Daemons, schedules and sensors, runs that wait or hang, the version of the tables, and how large the
event log is. Bounds of time are in seconds.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickStatus
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG
from dagster._time import get_current_datetime
from dagster._utils.schedules import cron_string_iterator

from metrics_pipeline.access.environment import postgres_url
from metrics_pipeline.access.one_line import first_line
from metrics_pipeline.access.server_clock import postgresql_skew
from metrics_pipeline.core.clock_skew import judge_skew
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.findings import Finding, span_in_words, unknown, warning, well, wrong
from metrics_pipeline.core.redaction import without_secrets
from metrics_pipeline.orchestration.instance_storage import bounded_url
from metrics_pipeline.orchestration.set_back_clock import find_last

LATE_HEARTBEAT_SECONDS = 90.0
"""A daemon's thread says every 30 s that it lives; three of them are missing."""

LONG_QUEUED_SECONDS, FAR_TOO_LONG_QUEUED_SECONDS = 60.0, 600.0
OVERDUE_SECONDS = 60.0
"""So long after its time a run should have been ended by run monitoring, which looks every 5 s and
gives it 30 s to end."""

TICKS_LOOKED_AT = 20
LONG_TICK_SECONDS = 300.0
"""A tick is given a minute by Dagster."""
MISSED_TICKS = 3
LEAST_SILENCE_SECONDS = 60.0
SET_BACK_TOLD_SECONDS = 86_400.0
LARGE_EVENT_LOG_BYTES = 500_000_000
"""What docs/retention.md promises to stay below."""

RUNBOOKS = "docs/runbooks/alerts"
DAEMON_RUNBOOK = f"{RUNBOOKS}/DaemonHeartbeatLost.md"
NEVER_SEEN_RUNBOOK = f"{RUNBOOKS}/DaemonNeverSeen.md"
RUNS_RUNBOOK = f"{RUNBOOKS}/RunFailuresFast.md"
RETENTION_PAGE = "docs/retention.md"
UPGRADE_PAGE = "docs/production.md"

INSTANCE = "Dagster instance"
BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the definitions have the daemon evaluate: by name, how often in seconds, at least."""

    schedules: Mapping[str, float]
    sensors: Mapping[str, float]

    @property
    def every_seconds(self) -> Mapping[str, float]:
        """Of both."""
        return {**self.schedules, **self.sensors}


def what_is_evaluated(definitions: dg.Definitions) -> Evaluated:
    """The schedules and sensors that are on by default."""
    schedules = [each for each in definitions.schedules or () if _is_on(each)]
    sensors = [each for each in definitions.sensors or () if _is_on(each)]
    return Evaluated(
        {each.name: _period_seconds(each) for each in schedules},
        {each.name: float(each.minimum_interval_seconds or 30) for each in sensors},
    )


def _is_on(each: object) -> bool:
    on = (dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING)
    return getattr(each, "default_status", None) in on


def _period_seconds(schedule: object) -> float:
    assert isinstance(schedule, dg.ScheduleDefinition)
    now = get_current_datetime().timestamp()
    times = cron_string_iterator(now, str(schedule.cron_schedule), "UTC")
    first, second = next(times), next(times)
    return (second - first).total_seconds()


def examine_instance(
    home: Path,
    evaluated: Evaluated | None,
    where_daemon_is: Callable[[], str],
    clock: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """All findings. `where_daemon_is` says of a daemon that is not heard where one runs, if any.

    `home` has to be the DAGSTER_HOME of this process. Makes neither files nor tables.
    """
    try:
        missing = _find_missing(home)
    except PermissionError as error:
        fix = "Ask again as the user of the daemon, or let this user read it."
        missing = wrong("DAGSTER_HOME", str(home), f"it cannot be read ({error.strerror})", fix)
    if missing is not None:
        yield missing
        return
    try:
        instance = dg.DagsterInstance.get()
    except ConfigurationError as error:
        yield wrong(INSTANCE, error.where, error.problem, error.fix)
        return
    except Exception as error:  # noqa: BLE001 (Dagster's storages raise their drivers' errors)
        yield _unreadable(_place(home), error)
        return
    with instance:
        for look in _looks(instance, evaluated, where_daemon_is, clock):
            try:
                yield from look()
            except Exception as error:  # noqa: BLE001 (as above)
                yield _unreadable(_place(home), error)
                return


def _looks(
    instance: dg.DagsterInstance,
    evaluated: Evaluated | None,
    where_daemon_is: Callable[[], str],
    clock: Callable[[], float],
) -> Sequence[Callable[[], Iterator[Finding]]]:
    now = clock()
    return (
        lambda: _schema(instance),
        lambda: _monitoring(instance),
        lambda: _daemons(instance, where_daemon_is, now),
        lambda: _instigators(instance, evaluated, now),
        lambda: _queue(instance, now),
        lambda: _overdue(instance, now),
        lambda: _last_runs(instance),
        lambda: _event_log(instance),
        lambda: _clock(instance, clock),
        lambda: _set_back(instance, now),
    )


def _find_missing(home: Path) -> Finding | None:
    """Where there is nothing to open: opening it would make it."""
    if not (home / "dagster.yaml").is_file():
        fix = (
            "Set DAGSTER_HOME to the folder of the daemon, or give the --state-dir with which "
            "`metrics-pipeline run` was started."
        )
        return wrong("DAGSTER_HOME", str(home), "there is no dagster.yaml in it", fix)
    try:
        url = postgres_url(os.environ)
    except ConfigurationError as error:
        return wrong(INSTANCE, error.where, error.problem, error.fix)
    fix = "Start the daemon, or the stack: its first process makes them."
    if url is not None:
        return _missing_tables(url, fix)
    if not _has_databases(home / "history"):
        return wrong(INSTANCE, str(home / "history"), "nothing was ever stored there", fix)
    return None


def _has_databases(folder: Path) -> bool:
    """Raises PermissionError, which a pattern of pathlib's would not."""
    try:
        return any(file.suffix == ".db" for file in folder.iterdir())
    except FileNotFoundError:
        return False


def _missing_tables(url: str, fix: str) -> Finding | None:
    place = "DAGSTER_POSTGRES_URL"
    try:
        engine = sa.create_engine(bounded_url(url), poolclass=sa.NullPool)
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("runs"):
                return wrong(INSTANCE, place, "the database has no tables of Dagster", fix)
    except ConfigurationError as error:
        return wrong(INSTANCE, error.where, error.problem, error.fix)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        return _unreadable(place, error)
    return None


def _place(home: Path) -> str:
    return "DAGSTER_POSTGRES_URL" if postgres_url(os.environ) is not None else str(home)


def _unreadable(place: str, error: BaseException) -> Finding:
    fix = (
        "Check DAGSTER_POSTGRES_URL (address, password, rights), or the folder DAGSTER_HOME and "
        "its disk."
    )
    return wrong(INSTANCE, place, f"it cannot be read ({first_line(error)})", fix)


def _schema(instance: dg.DagsterInstance) -> Iterator[Finding]:
    storages = {
        "runs": instance.run_storage,
        "events": instance.event_log_storage,
        "schedules": instance.schedule_storage,
    }
    versions = {
        name: storage.alembic_version() for name, storage in storages.items() if storage is not None
    }
    behind = [name for name, version in versions.items() if version and version[0] != version[1]]
    if not behind:
        yield well("Dagster's tables", ", ".join(versions), "of this release's version")
        return
    yield wrong(
        "Dagster's tables",
        ", ".join(versions),
        f"those of {', '.join(behind)} are not of this release's version",
        "End the daemon, back up, run `dagster instance migrate` once, and start it again; or go "
        "back to the release that made them.",
        UPGRADE_PAGE,
    )


def _monitoring(instance: dg.DagsterInstance) -> Iterator[Finding]:
    if not instance.run_monitoring_enabled:
        yield warning(
            "run monitoring",
            "dagster.yaml",
            "it is off: a run that dies with its machine blocks its schedule for ever",
            "Take run_monitoring over from the dagster.yaml that ships.",
        )


def _daemons(
    instance: dg.DagsterInstance, where_daemon_is: Callable[[], str], now: float
) -> Iterator[Finding]:
    heartbeats = instance.get_daemon_heartbeats()
    required = sorted(instance.get_required_daemon_types())
    missing = [name for name in required if name not in heartbeats]
    ages = {n: now - heartbeats[n].timestamp for n in required if n in heartbeats}
    late = {name: age for name, age in ages.items() if age > LATE_HEARTBEAT_SECONDS}
    ahead = {name: -age for name, age in ages.items() if age < -LATE_HEARTBEAT_SECONDS}
    if not (missing or late or ahead):
        yield well("daemon", ", ".join(required), "each said within 90 s that it lives")
        return
    fix = f"Start the daemon, or look into its log. {where_daemon_is()}".strip()
    if missing:
        said = f"never heard of: {', '.join(missing)}"
        yield wrong("daemon", "heartbeats", said, fix, NEVER_SEEN_RUNBOOK)
    if late:
        yield wrong("daemon", "heartbeats", f"silent: {_ages(late)}", fix, DAEMON_RUNBOOK)
    if ahead:
        said = f"of the future: {_ages(ahead)}"
        fix = "The clock of this machine or of the daemon's is wrong, or was: set it (NTP)."
        yield wrong("daemon", "heartbeats", said, fix, DAEMON_RUNBOOK)


def _ages(ages: Mapping[str, float]) -> str:
    return ", ".join(f"{name} for {span_in_words(age)}" for name, age in sorted(ages.items()))


def _instigators(
    instance: dg.DagsterInstance, evaluated: Evaluated | None, now: float
) -> Iterator[Finding]:
    if evaluated is None:
        said = "not looked at: what is to be evaluated follows from the settings"
        yield unknown("schedules", "the definitions", said)
        return
    states: dict[str, list[InstigatorState]] = {}
    for state in instance.all_instigator_state():
        states.setdefault(state.instigator_name, []).append(state)
    findings: list[Finding] = []
    for name, every_seconds in evaluated.every_seconds.items():
        findings += _instigator(instance, name, states.get(name, []), every_seconds, now)
    yield from findings
    if not findings:
        said = "each is on, its last tick is of its time and did not fail"
        yield well("schedules", ", ".join(evaluated.every_seconds), said)


def _instigator(
    instance: dg.DagsterInstance,
    name: str,
    states: Sequence[InstigatorState],
    every_seconds: float,
    now: float,
) -> Iterator[Finding]:
    if not states:
        fix = "It is, once the daemon runs and has loaded the code server's definitions."
        yield warning(name, "its state in the instance", "it was never evaluated", fix)
        return
    if not any(state.is_running for state in states):
        fix = "Switch it on: Dagster UI, Automation."
        yield wrong(name, "its state in the instance", "it was switched off", fix)
        return
    running = [state for state in states if state.is_running]
    ticks = [
        tick
        for state in running
        for tick in instance.get_ticks(
            state.instigator_origin_id, state.selector_id, limit=TICKS_LOOKED_AT
        )
    ]
    ticks.sort(key=lambda tick: tick.timestamp, reverse=True)
    began = max(map(_began, running))
    yield from _judge_ticks(name, ticks, began, every_seconds, now)


def _began(state: InstigatorState) -> float:
    """Since when ticks are to come, where that is known."""
    data = state.instigator_data
    known = (getattr(data, name, None) for name in ("start_timestamp", "last_iteration_timestamp"))
    return max(float(each or 0.0) for each in known)


def _judge_ticks(
    name: str, ticks: Sequence[InstigatorTick], began: float, every_seconds: float, now: float
) -> Iterator[Finding]:
    last = ticks[0].timestamp if ticks else began
    limit = max(LEAST_SILENCE_SECONDS, MISSED_TICKS * every_seconds)
    if last > now + limit:
        yield wrong(
            name,
            "its last tick",
            f"it is {span_in_words(last - now)} in the future, so the clock was set back: the next "
            "comes after that",
            "Start the daemon again, by `metrics-pipeline daemon`, which brings it back; keep the "
            "clock by NTP.",
        )
    elif now - last > limit:
        yield wrong(
            name,
            "its last tick",
            f"it was {span_in_words(now - last)} ago, and should be every "
            f"{span_in_words(every_seconds)}"
            if last
            else "there is none",
            "Look into the log of the daemon, and whether the code server answers.",
            DAEMON_RUNBOOK,
        )
    yield from _judge_outcomes(name, ticks, now)


def _judge_outcomes(name: str, ticks: Sequence[InstigatorTick], now: float) -> Iterator[Finding]:
    """`ticks` are newest first."""
    ended = [tick for tick in ticks if tick.status is not TickStatus.STARTED]
    place = f"its last {len(ticks)} ticks"
    yield from _judge_unfinished(name, place, ticks, ended, now)
    failed = 0
    while failed < len(ended) and ended[failed].status is TickStatus.FAILURE:
        failed += 1
    if failed:
        error = ended[0].error
        lines = without_secrets(error.message).strip().splitlines() if error else []
        yield wrong(
            name,
            place,
            f"the last {failed} failed: {lines[0] if lines else 'without a reason'}",
            "Dagster UI, Automation, the tick says all of it.",
        )


def _judge_unfinished(
    name: str,
    place: str,
    ticks: Sequence[InstigatorTick],
    ended: Sequence[InstigatorTick],
    now: float,
) -> Iterator[Finding]:
    """Ticks come one after the other, so one that a later one has overtaken is not worked on."""
    begun = [tick for tick in ticks if tick.status is TickStatus.STARTED]
    last_end = ended[0].timestamp if ended else -math.inf
    overtaken = [tick for tick in begun if tick.timestamp < last_end]
    long_ago = now - LONG_TICK_SECONDS
    hanging = [tick for tick in begun if last_end <= tick.timestamp < long_ago]
    if hanging:
        longest = span_in_words(now - hanging[-1].timestamp)
        yield wrong(
            name,
            place,
            f"{len(hanging)} have begun and not ended, the longest {longest} ago",
            "The code server hangs or is away: restart it, then the daemon.",
            f"{RUNBOOKS}/CodeServerSilent.md",
        )
    if overtaken:
        last = span_in_words(now - overtaken[0].timestamp)
        yield warning(
            name,
            place,
            f"{len(overtaken)} never ended, the last of {last} ago; later ones did",
            "The daemon was killed within it, and was away until the next was due. If no run of "
            "that time is there (Dagster UI, Runs), what it would have collected is missing.",
            DAEMON_RUNBOOK,
        )


def _queue(instance: dg.DagsterInstance, now: float) -> Iterator[Finding]:
    queued = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), ascending=True
    )
    waits = [(now - each.create_timestamp.timestamp(), each.dagster_run) for each in queued]
    longest = max((seconds for seconds, _ in waits), default=0.0)
    if longest <= LONG_QUEUED_SECONDS:
        yield well("queue", "runs that wait", f"{len(queued)}, none for longer than a minute")
        return
    run = max(waits, key=itemgetter(0))[1]
    kind = wrong if longest > FAR_TOO_LONG_QUEUED_SECONDS else warning
    yield kind(
        "queue",
        "runs that wait",
        f"{len(queued)}, the longest for {span_in_words(longest)}: {run.run_id} of {run.job_name}",
        "Look whether the daemon lives (queued run coordinator), and which run holds its pool: "
        "Dagster UI, Deployment, Concurrency.",
        DAEMON_RUNBOOK,
    )


def _overdue(instance: dg.DagsterInstance, now: float) -> Iterator[Finding]:
    """Runs that run monitoring should have ended."""
    started = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
    starting = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED)
    records = instance.get_run_records(dg.RunsFilter(statuses=[*started, *starting]))
    overdue: list[tuple[float, dg.DagsterRun]] = []
    for record in records:
        run = record.dagster_run
        if run.status in starting:
            limit: float = instance.run_monitoring_start_timeout_seconds
            began = record.create_timestamp.timestamp()
        else:
            limit = _max_runtime(instance, run)
            began = record.start_time or record.create_timestamp.timestamp()
        if limit and now - began > limit + OVERDUE_SECONDS:
            overdue.append((now - began, run))
    if not overdue:
        yield well("runs in flight", "their age", f"{len(records)}, none beyond its time")
        return
    age, run = max(overdue, key=itemgetter(0))
    yield wrong(
        "runs in flight",
        "their age",
        f"{len(overdue)} of {len(records)} are beyond their time, the oldest for "
        f"{span_in_words(age)}: {run.run_id} of {run.job_name}, {run.status.value}",
        "The daemon ends them (run_monitoring): look whether it lives. Or end it by hand: Dagster "
        "UI, Runs, Terminate, mark as canceled immediately.",
        RUNS_RUNBOOK,
    )


def _max_runtime(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float:
    """0 for a run that may take as long as it wants."""
    told = run.tags.get(MAX_RUNTIME_SECONDS_TAG, "")
    try:
        return float(told)
    except ValueError:
        return float(instance.run_monitoring_max_runtime_seconds)


def _last_runs(instance: dg.DagsterInstance) -> Iterator[Finding]:
    """Of each job the run that ended last among the newest."""
    ended = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    records = instance.get_run_records(dg.RunsFilter(statuses=list(ended)), limit=200)
    last: dict[str, dg.DagsterRun] = {}
    for record in records:
        last.setdefault(record.dagster_run.job_name, record.dagster_run)
    failed = {n: r for n, r in last.items() if r.status is not dg.DagsterRunStatus.SUCCESS}
    if not failed:
        yield well("last runs", ", ".join(sorted(last)) or "none", "each job's last run succeeded")
        return
    said = ", ".join(f"{n} ({r.run_id}, {r.status.value})" for n, r in sorted(failed.items()))
    fix = "Dagster UI, Runs: the failed step says what was asked, what came back, what to do."
    yield warning(
        "last runs", ", ".join(sorted(last)), f"did not succeed: {said}", fix, RUNS_RUNBOOK
    )


def _event_log(instance: dg.DagsterInstance) -> Iterator[Finding]:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as connection:
        if connection.dialect.name == "postgresql":
            query = sa.text("SELECT pg_total_relation_size('event_logs')")
            size = int(connection.execute(query).scalar_one())
        else:
            size = _size_of_file(connection)
    said = f"{size / BYTES_PER_MB:.0f} MB"
    if size <= LARGE_EVENT_LOG_BYTES:
        yield well("event log", "its size", said)
        return
    yield warning(
        "event log",
        "its size",
        f"{said}, more than {LARGE_EVENT_LOG_BYTES / BYTES_PER_MB:.0f} MB",
        "Look whether the asset maintenance/retention keeps up, and for how many days `retention` "
        "keeps runs.",
        RETENTION_PAGE,
    )


def _size_of_file(connection: sa.Connection) -> int:
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())


def _clock(instance: dg.DagsterInstance, clock: Callable[[], float]) -> Iterator[Finding]:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as connection:
        if connection.dialect.name == "postgresql":
            yield judge_skew("Dagster's PostgreSQL", *postgresql_skew(connection, clock))


def _set_back(instance: dg.DagsterInstance, now: float) -> Iterator[Finding]:
    done = find_last(instance)
    if done is not None and abs(now - done.at_seconds) < SET_BACK_TOLD_SECONDS:
        said = f"{span_in_words(abs(now - done.at_seconds))} ago {done}"
        yield warning("clock", "the daemon's", said, "Keep it by NTP, which slews it.")
