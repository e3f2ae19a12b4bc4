"""Looks at the operational database and the instance every few seconds, and keeps the page.

Each of the two is read by itself: one that fails leaves its part as it was last seen, is counted,
and does not keep the other from being shown. So the page never empties; ages grow instead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from metrics_pipeline import __version__
from metrics_pipeline.core import telemetry_assets
from metrics_pipeline.core.catalog import Catalog
from metrics_pipeline.core.lorawan_devices import DEVICES_KEPT_DAYS
from metrics_pipeline.core.validation import NS_PER_DAY
from metrics_pipeline.exporter.device_lines import DeviceLines
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.exporter.lorawan_lines import LorawanLines
from metrics_pipeline.exporter.page import Page, render
from metrics_pipeline.exporter.samples import Asked, Seen, collect, only_asked
from metrics_pipeline.storage import device_labels, snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.snapshots import Snapshot

LOG = logging.getLogger(__name__)


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
        device_assets: Collection[str] = (),
        device_families: Collection[str] = (),
        lorawan_kept_days: float = DEVICES_KEPT_DAYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._operational = operational
        self._instance = instance
        self._catalog = catalog
        self._assets = assets
        self._device_assets = device_assets
        self._device_states: dict[str, device_labels.State] = {}
        self._device_lines = DeviceLines(catalog, device_families, max_series)
        kept_ns = int(lorawan_kept_days * NS_PER_DAY)
        self._lorawan_lines = LorawanLines(device_families, max_series, kept_ns)
        self._max_series = max_series
        self._clock = clock
        self._seen = Seen({}, {}, None, None, 0, __version__)
        self.problems: tuple[str, ...] = ("the first look is not finished",)
        self.page = self._render()

    @property
    def is_ready(self) -> bool:
        """Whether there has been a look at which everything answered."""
        return self._seen.refreshed_at_seconds is not None

    def refresh(self) -> None:
        """Look at both, and render. Never raises for what the outside does."""
        problem_of_values = self._attempt("operational database", self._look_at_values)
        # Shown before the instance is asked, which may take long to say that it is locked.
        problem_of_page = self._attempt("page", self._show)
        problem_of_instance = self._attempt("Dagster instance", self._look_at_instance)
        found = (problem_of_values, problem_of_page, problem_of_instance)
        problems = tuple(problem for problem in found if problem)
        if problems:
            self._seen = replace(self._seen, refresh_failures=self._seen.refresh_failures + 1)
        else:
            self._seen = replace(self._seen, refreshed_at_seconds=self._clock())
        self._log_change(problems)
        self.problems = problems
        self._attempt("page", self._show)

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
            return f"{what}: {type(error).__name__}: {first_line}"
        return None

    def _look_at_values(self) -> None:
        known = {name: snapshot.revision for name, snapshot in self._seen.snapshots.items()}
        with self._operational.reading() as connection:
            changed = snapshots.find_changed(connection, self._assets, known)
            listed = (*self._device_assets, telemetry_assets.DEVICES)
            rows = device_labels.find_changed(connection, listed, self._device_states)
            totals = tallies.totals(connection)
        fresh = {new.asset: only_asked(new, self._assets[new.asset]) for new in changed}
        polled = [new for new in rows if new.asset != telemetry_assets.DEVICES]
        fresh |= {new.asset: _without_points(new) for new in polled}
        self._device_lines.update(polled)
        self._lorawan_lines.update(new for new in rows if new.asset == telemetry_assets.DEVICES)
        self._device_states |= {new.asset: new.state for new in rows}
        merged = {**self._seen.snapshots, **fresh}
        # What a new, empty database does not have yet stays as well.
        self._seen = replace(self._seen, snapshots=merged, totals={**self._seen.totals, **totals})

    def _look_at_instance(self) -> None:
        self._seen = replace(self._seen, instance=self._instance.read())

    def _show(self) -> None:
        self.page = self._render()

    def _render(self) -> Page:
        blocks = (*self._device_lines.blocks, *self._lorawan_lines.blocks)
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
