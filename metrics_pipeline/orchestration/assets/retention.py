"""Once an hour what is old is deleted: of Dagster, of the embedded store, of the dead letters."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from metrics_pipeline.access.one_line import first_line
from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.maintenance_assets import GROUP, JOB, RETENTION
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.orchestration.dagster_rows import event_log_of, measure
from metrics_pipeline.orchestration.retention import (
    LEAP_SECONDS,
    SECONDS_PER_DAY,
    Pace,
    Purged,
    is_believed,
    purge_dagster,
    work_off,
)
from metrics_pipeline.orchestration.tables import Metadata
from metrics_pipeline.run_counting import count_runs
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage.dead_letters import delete_before
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase

KEY = dg.AssetKey.from_user_string(RETENTION)
KEEPS_UP = "retention_keeps_up"

CADENCE = timedelta(hours=1)

DATABASE_ENDED_IT = "Dagster's database did not let it go on, the next purge does"
UNKNOWN_TABLES = (
    "This Dagster's event log is not one that was tried: of events and outcomes of no run, and of "
    "details, nothing is deleted, and ticks all at once. Use the pinned Dagster, on SQLite or "
    "PostgreSQL."
)
POINTS, LETTERS, GIVEN_BACK = "points", "dead_letters", "store_bytes_given_back"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one purge; `problems` are what kept it from deleting."""

    purged: Sequence[Purged]
    problems: Sequence[str]
    sizes: Mapping[str, int]

    @property
    def behind(self) -> list[str]:
        """What is old and still there."""
        return [each.what for each in self.purged if not each.is_done]


def build_retention_asset(settings: Settings) -> dg.AssetsDefinition:
    """`maintenance/retention`: how much was deleted."""

    @dg.asset(
        key=KEY,
        description="Deletes what is older than the settings' `retention` says: runs and their "
        "events, events of no run, outcomes of checks and ticks of Dagster, points of the embedded "
        "store, dead letters. What is newest of each stays.",
        group_name=GROUP,
        kinds={"dagster"},
        owners=["team:platform-operations"],
        check_specs=[
            dg.AssetCheckSpec(
                KEEPS_UP,
                asset=KEY,
                description="All that is old was deleted, and nothing kept it from being deleted.",
            )
        ],
        pool=JOB,
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=4 * CADENCE, warn_window=2 * CADENCE
        ),
    )
    def retention(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        report = purge(context.instance, settings)
        for problem in report.problems:
            context.log.warning(problem)
        # With the result it would be stored with the output as well.
        context.add_asset_metadata(describe(report))
        yield dg.MaterializeResult(check_results=[_judge(report)])

    return retention


def purge(
    instance: dg.DagsterInstance,
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    make_pace: Callable[[], Pace] | None = None,
) -> Report:
    """Delete what is old by `clock`, in seconds since the epoch."""
    now = clock()
    pace = make_pace or (lambda: Pace(settings.retention.budget_seconds))
    if not is_believed(now, _last(instance)):
        leapt = (
            f"The clock has gone on by more than {LEAP_SECONDS / 3600:g} hours since the last "
            "purge: nothing is deleted this time. If the clock is right (the product was off), the "
            "next purge deletes; if not, set it right before."
        )
        return Report([], [leapt], _sizes(instance, settings))
    purged: list[Purged] = []
    problems = [] if event_log_of(instance) else [UNKNOWN_TABLES]
    for part in (_of_dagster, _of_store, _of_dead_letters):
        try:
            purged += part(instance, settings, now, pace)
        except StoreError as error:
            problems.append(str(error))
        except SQLAlchemyError as error:
            problems.append(f"{DATABASE_ENDED_IT}: {first_line(error)}")
    return Report(purged, problems, _sizes(instance, settings))


def describe(report: Report) -> Metadata:
    """The metadata: what went, what is behind, how large things are now."""
    return {
        **{f"deleted_{each.what}": dg.MetadataValue.int(each.deleted) for each in report.purged},
        "behind": dg.MetadataValue.text(", ".join(report.behind) or "nothing"),
        **{name: dg.MetadataValue.int(number) for name, number in report.sizes.items()},
        **(
            {"problems": dg.MetadataValue.text("; ".join(report.problems))}
            if report.problems
            else {}
        ),
    }


def _judge(report: Report) -> dg.AssetCheckResult:
    behind = f"still to be deleted: {', '.join(report.behind)}" if report.behind else ""
    said = "; ".join(text for text in (behind, *report.problems) if text)
    return dg.AssetCheckResult(
        check_name=KEEPS_UP,
        passed=not said,
        severity=dg.AssetCheckSeverity.WARN,
        description=said or "nothing old is left",
    )


def _last(instance: dg.DagsterInstance) -> float | None:
    """When the last purge was, in seconds since the epoch."""
    event = instance.get_latest_materialization_event(KEY)
    return None if event is None else event.timestamp


def _of_dagster(
    instance: dg.DagsterInstance, settings: Settings, now: float, pace: Callable[[], Pace]
) -> Iterator[Purged]:
    with closing(OperationalDatabase(settings.operational_database)) as database:
        # Those that are deleted below have ended long ago, and are counted now.
        count_runs(instance, database)
    yield from purge_dagster(instance, settings.retention, now, pace)


def _of_store(
    _instance: dg.DagsterInstance, settings: Settings, now: float, pace: Callable[[], Pace]
) -> Iterator[Purged]:
    days = settings.retention.points_days
    if days is None or not isinstance(settings.store, EmbeddedStoreSettings):
        return
    with closing(EmbeddedStore(settings.store)) as store:
        yield work_off(POINTS, store.delete_before(_before_ns(now, days)), pace())
        yield work_off(GIVEN_BACK, store.give_back(), pace())


def _of_dead_letters(
    _instance: dg.DagsterInstance, settings: Settings, now: float, pace: Callable[[], Pace]
) -> Iterator[Purged]:
    days = settings.retention.dead_letters_days
    if days is None:
        return
    with closing(OperationalDatabase(settings.operational_database)) as database:
        before_ns = _before_ns(now, days)
        batches = iter(lambda: delete_before(database, before_ns), 0)
        yield work_off(LETTERS, batches, pace())


def _before_ns(now: float, days: float) -> int:
    return int((now - days * SECONDS_PER_DAY) * NS_PER_SECOND)


def _sizes(instance: dg.DagsterInstance, settings: Settings) -> dict[str, int]:
    sizes = {"runs_kept": instance.get_runs_count()}
    if event_log := event_log_of(instance):
        size = measure(event_log)
        sizes["event_log_bytes"] = size.total_bytes
        if size.free_bytes is not None:
            sizes["event_log_free_bytes"] = size.free_bytes
    if isinstance(settings.store, EmbeddedStoreSettings):
        try:
            with closing(EmbeddedStore(settings.store)) as store:
                file = store.file_size()
        except StoreError:
            return sizes  # the purge of the store has said why
        sizes |= {"store_bytes": file.total_bytes, "store_free_bytes": file.free_bytes}
    return sizes
