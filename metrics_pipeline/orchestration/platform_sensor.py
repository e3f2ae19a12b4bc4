"""Keeps the sampling going while it is switched on, and reports to Dagster what was sampled.

A tick waits for nothing: it holds the sampling (`sampling/`), which is in this process and goes
on for four ticks, and takes what was sampled since the last report. So no slot is missed where the
daemon's loop drifts, and where the sensor is switched off sampling ends.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import dagster as dg

from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.platform_assets import SENSOR
from metrics_pipeline.orchestration.platform_report import evaluation, event, in_words
from metrics_pipeline.sampling import Sampled, Sampling, Summary
from metrics_pipeline.settings import PlatformSettings

MINIMUM_INTERVAL_SECONDS = 2
"""As of the sensor of telemetry: with it there is a tick on every look of the daemon, 5 s apart."""

Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


@dataclass(frozen=True, slots=True)
class Reported:
    """The last report of a source: when, in seconds since the epoch, and whether it passed."""

    at_seconds: float
    passed: bool | None


Cursor = Mapping[str, Reported]
NEVER = Reported(0.0, None)


class SampleReports:
    """What is to be told to Dagster, source by source; at most so often.

    What was given once and is not in the cursor of the next tick did not arrive (the daemon died,
    or somebody tried a tick in the UI), and is given again. May be shared between threads.
    """

    def __init__(
        self,
        sampling: Sampling,
        platform: PlatformSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sampling = sampling
        self._platform = platform
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, Summary] = {}
        self._given: dict[str, tuple[float, Summary]] = {}

    def take(self, cursor: Cursor) -> tuple[Sequence[Event], Cursor]:
        """The events that are due, and the cursor that says that they have arrived."""
        now = self._clock()
        events: list[Event] = []
        after = dict(cursor)
        with self._lock:
            for sampled in self._sampling.sampled:
                before = cursor.get(sampled.name, NEVER)
                summary = self._collect(sampled.name, before)
                waited = now - before.at_seconds
                # A report of the future is one from before the clock was set back.
                if summary.outcomes and not 0 <= waited < self._platform.report_every_seconds:
                    told, after[sampled.name] = self._tell(sampled, summary, before, now)
                    events += told
        return events, after

    def waiting(self) -> Mapping[str, Summary]:
        """What is not reported yet."""
        with self._lock:
            return {name: summary for name, summary in self._kept.items() if summary.outcomes}

    def _collect(self, name: str, before: Reported) -> Summary:
        summary = self._kept.setdefault(name, Summary())
        at_seconds, given = self._given.pop(name, (before.at_seconds, Summary()))
        if at_seconds != before.at_seconds:
            given.merge(summary)
            summary = self._kept[name] = given
        summary.merge(self._sampling.ledger.take(name))
        return summary

    def _tell(
        self, sampled: Sampled, summary: Summary, before: Reported, now: float
    ) -> tuple[Sequence[Event], Reported]:
        self._given[sampled.name] = (now, summary)
        self._kept[sampled.name] = Summary()
        checked = evaluation(sampled, summary, self._platform.warn_missed_share)
        # An event more, so only where it says something new.
        news = [checked] if checked.passed is not before.passed else []
        return [event(sampled, summary), *news], Reported(now, checked.passed)


def to_cursor(cursor: Cursor) -> str:
    """For the daemon to keep."""
    return json.dumps({name: asdict(reported) for name, reported in cursor.items()})


def from_cursor(text: str | None) -> Cursor:
    """What `to_cursor` was given; nothing of a text that is not such a one."""
    try:
        rows = json.loads(text or "{}")
        return {
            name: Reported(float(row["at_seconds"]), row["passed"]) for name, row in rows.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def build_platform_sensor(sampling: Sampling, platform: PlatformSettings) -> dg.SensorDefinition:
    """`platform_samples`: on by default. `sampling` lives as long as the process."""
    reports = SampleReports(sampling, platform)

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=MINIMUM_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="While it is on, the platform is sampled. Each asset has a materialization, or "
        "an observation where nothing came, "
        f"every {platform.report_every_seconds} s at most, which says how many slots were sampled.",
    )
    def platform_samples(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        said = _hold(sampling)
        events, cursor = reports.take(from_cursor(context.cursor))
        waiting = in_words(reports.waiting()) or "nothing"
        reason = f"{said} {len(events)} events reported; not reported yet: {waiting}."
        return dg.SensorResult(asset_events=events, cursor=to_cursor(cursor), skip_reason=reason)

    return platform_samples


def _hold(sampling: Sampling) -> str:
    try:
        other = sampling.hold()
    except StoreError as error:
        # Not a failed tick, nor a log of its own: there would be one every 5 s while it lasts.
        return f"Whether this process may sample was not found out: {error}."
    return f"Another process samples: {other}." if other else "Sampling goes on."
