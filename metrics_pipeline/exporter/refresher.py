"""Looks at the operational database, the spool and the instance every few seconds for the page.

Each of the three is read by itself: one that fails leaves its part as it was last seen, is counted,
and does not keep the other from being shown. So the page never empties; ages grow instead.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from metrics_pipeline import __version__
from metrics_pipeline.core import robots, telemetry_assets
from metrics_pipeline.core.catalog import (
    LORAWAN_DEVICE_METRICS,
    ROBOT_LAST_MESSAGE,
    ROBOT_METRIC_LIST,
    Catalog,
)
from metrics_pipeline.core.lorawan_devices import DEVICES_KEPT_DAYS
from metrics_pipeline.core.platform_assets import GROUP
from metrics_pipeline.core.redaction import without_secrets
from metrics_pipeline.core.validation import NS_PER_DAY
from metrics_pipeline.exporter.device_lines import DeviceLines, Reachability
from metrics_pipeline.exporter.host_resources import HostReader
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.exporter.page import Body, Page, asks_for_openmetrics, render
from metrics_pipeline.exporter.row_lines import RowLines
from metrics_pipeline.exporter.samples import NOTHING, Asked, Seen, collect, only_asked, only_of
from metrics_pipeline.storage import device_labels, sampling_lease, snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline.storage.spool_state import SpoolWatch

LOG = logging.getLogger(__name__)

ASKED_SECONDS = 300.0
"""So long after a scrape in OpenMetrics pages are rendered in it before the next one asks."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the refresher knows: what was seen last, and what fails at present.

    `failing` has the texts of what could not be looked at, without secrets; when all was looked at
    last, `seen` says. `reachability` is None as long as no sweep has said which device answers.
    """

    seen: Seen
    failing: tuple[str, ...]
    reachability: Reachability | None


class Refresher:
    """Holds the newest page; `refresh` makes the next one."""

    def __init__(
        self,
        *,
        operational: OperationalDatabase,
        instance: InstanceReader,
        catalog: Catalog,
        assets: Mapping[str, Collection[Asked]],
        max_series: int,
        sources: Collection[str] = (),
        device_assets: Collection[str] = (),
        device_families: Collection[str] = (),
        lorawan_kept_days: float = DEVICES_KEPT_DAYS,
        robots_kept_days: float = 0,
        host: HostReader | None = None,
        spool: SpoolWatch | None = None,
        every_seconds: Mapping[str, float] = NOTHING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._operational = operational
        self._instance = instance
        self._catalog = catalog
        self._assets = assets
        self._sources = frozenset(sources)
        self._device_assets = device_assets
        self._device_states: dict[str, device_labels.State] = {}
        self._device_lines = DeviceLines(catalog, device_families, max_series)
        self._row_lines = {
            telemetry_assets.DEVICES: RowLines(
                LORAWAN_DEVICE_METRICS,
                "device_eui",
                shown=device_families,
                max_series=max_series,
                kept_ns=int(lorawan_kept_days * NS_PER_DAY),
            ),
            robots.LATEST: RowLines(
                (*ROBOT_METRIC_LIST, ROBOT_LAST_MESSAGE),
                "robot_id",
                shown=device_families,
                max_series=max_series,
                kept_ns=int(robots_kept_days * NS_PER_DAY),
            ),
        }
        self._max_series = max_series
        self._host, self._spool = host, spool
        self._clock = clock
        self._samples = any(asset.startswith(f"{GROUP}/") for asset in every_seconds)
        self._seen = Seen({}, {}, None, None, 0, __version__, every_seconds=every_seconds)
        self.problems: tuple[str, ...] = ("the first look is not finished",)
        self._has_new_values, self._openmetrics_asked_at = True, -math.inf
        self.page = self._render()

    def body(self, accept: str) -> Body:
        """What a scrape with this `Accept` header gets; while it is asked for, it is ready."""
        if asks_for_openmetrics(accept):
            self._openmetrics_asked_at = time.monotonic()
            return self.page.openmetrics
        return self.page.text

    @property
    def is_ready(self) -> bool:
        """Whether there has been a look at which everything answered."""
        return self._seen.refreshed_at_seconds is not None

    @property
    def known(self) -> Known:
        """What there is to tell people; made of what is there already."""
        return Known(self._seen, self.problems, self._device_lines.reachability)

    def refresh(self) -> None:
        """Look at all, and render. Never raises for what the outside does."""
        problem_of_values = self._attempt("operational database", self._look_at_values)
        problem_of_spool = self._attempt("spool", self._look_at_spool)
        if self._has_new_values:
            # Before the instance is asked, which may take long to say that it is locked.
            self._attempt("page", self._show)
        problem_of_instance = self._attempt("Dagster instance", self._look_at_instance)
        problem_of_host = self._attempt("this machine", self._look_at_host)
        found = (problem_of_values, problem_of_spool, problem_of_instance, problem_of_host)
        problems = tuple(problem for problem in found if problem)
        failed = replace(self._seen, refresh_failures=self._seen.refresh_failures + 1)
        if problems:
            self._seen = failed
        else:
            self._seen = replace(self._seen, refreshed_at_seconds=self._clock())
        if problem_of_page := self._attempt("page", self._show):
            self._seen, problems = failed, (*problems, problem_of_page)
        self._log_change(problems)
        self.problems = problems

    def run(self, every_seconds: float, stop: threading.Event) -> None:
        """Refresh until `stop` is set; the body of the exporter's background thread."""
        while not stop.is_set():
            self.refresh()
            stop.wait(every_seconds)

    def close(self) -> None:
        """Give back the connections."""
        self._instance.close()
        self._operational.close()

    def _attempt(self, what: str, look: Callable[[], None]) -> str | None:
        try:
            look()
        except Exception as error:  # noqa: BLE001 (Dagster's storages raise their drivers' errors)
            first_line = (str(error).splitlines() or ["no message"])[0]
            return without_secrets(f"{what}: {type(error).__name__}: {first_line}")
        return None

    def _look_at_values(self) -> None:
        known = {name: snapshot.revision for name, snapshot in self._seen.snapshots.items()}
        with self._operational.reading() as connection:
            changed = snapshots.find_changed(connection, self._assets, known)
            listed = (*self._device_assets, *self._row_lines)
            rows = device_labels.find_changed(connection, listed, self._device_states)
            totals = only_of(tallies.totals(connection), self._sources)
            lease_end_ns = sampling_lease.find_end_ns(connection) if self._samples else None
        self._has_new_values |= bool(changed or rows)
        fresh = {new.asset: only_asked(new, self._assets[new.asset]) for new in changed}
        polled = [new for new in rows if new.asset not in self._row_lines]
        fresh |= {new.asset: _without_points(new) for new in polled}
        self._device_lines.update(polled)
        for asset, lines in self._row_lines.items():
            lines.update(new for new in rows if new.asset == asset)
        self._device_states |= {new.asset: new.state for new in rows}
        merged = {**self._seen.snapshots, **fresh}
        # What a new, empty database does not have yet stays as well.
        self._seen = replace(
            self._seen,
            snapshots=merged,
            totals={**self._seen.totals, **totals},
            lease_end_ns=lease_end_ns,
        )

    def _look_at_spool(self) -> None:
        if self._spool is not None:
            spool = self._spool.look()
            self._has_new_values |= spool != self._seen.spool
            self._seen = replace(self._seen, spool=spool)

    def _look_at_instance(self) -> None:
        self._seen = replace(self._seen, instance=self._instance.read())

    def _look_at_host(self) -> None:
        if self._host is not None:
            self._seen = replace(self._seen, host=self._host.read())

    def _show(self) -> None:
        page = self._render()
        if time.monotonic() - self._openmetrics_asked_at < ASKED_SECONDS:
            _ = page.openmetrics  # not by the scrape
        self.page, self._has_new_values = page, False

    def _render(self) -> Page:
        of_rows = (block for lines in self._row_lines.values() for block in lines.blocks)
        blocks = (*self._device_lines.blocks, *of_rows)
        dropped = {block.family.name: block.dropped for block in blocks if block.dropped}
        return render(collect(self._seen, self._catalog, self._max_series, dropped), blocks)

    def _log_change(self, problems: tuple[str, ...]) -> None:
        if problems and problems != self.problems:
            LOG.warning("refresh failed, the page keeps its last values: %s", "; ".join(problems))
        elif self.problems and not problems:
            LOG.info("refresh works")


def _without_points(polled: device_labels.LabelledSnapshot) -> Snapshot:
    """When it was complete; its points are lines already."""
    revision, _ = polled.state
    return Snapshot(polled.asset, revision, polled.updated_at_ns, polled.complete_at_ns, ())
