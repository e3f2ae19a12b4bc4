"""`metrics-pipeline check`: tries everything the settings name, and says what to do about it.

Reads every source that is used, asks the store, takes the write lock of the operational database,
and opens the Dagster instance. Stores no point.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from metrics_pipeline.access.environment import settings_file
from metrics_pipeline.core.catalog import CATALOG, Metric
from metrics_pipeline.core.errors import MetricsPipelineError
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.registry import SOURCES
from metrics_pipeline.sources.spec import SourceSpec
from metrics_pipeline.storage.open import open_store
from metrics_pipeline.storage.operational import OperationalDatabase

TEXT_COLUMNS = 76
NAME_COLUMNS = 22


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `says` is what came back; of a failure, also what to do."""

    name: str
    is_well: bool
    says: str


def check_everything(settings: Settings) -> list[Finding]:
    """Try everything, one after the other; a failure does not keep the rest from being tried."""
    used = [spec for spec in SOURCES.values() if settings.source(spec.name) is not None]
    return [
        Finding("settings", True, str(settings_file())),
        *(finding for spec in used for finding in _check_source(spec, settings)),
        _attempt("time-series store", lambda: _check_store(settings)),
        _attempt("operational database", lambda: _check_operational(settings)),
        _attempt("Dagster instance", _check_instance),
        _check_exposure(settings),
    ]


def render(findings: Iterable[Finding]) -> str:
    """The findings as a table."""
    return "\n".join(_render_one(finding) for finding in findings)


def _render_one(finding: Finding) -> str:
    lines = [
        line
        for paragraph in finding.says.splitlines()
        for line in textwrap.wrap(paragraph, TEXT_COLUMNS, break_long_words=False)
    ]
    head = f"{'ok' if finding.is_well else 'FAIL':<5} {finding.name:<{NAME_COLUMNS}} "
    return head + f"\n{' ' * len(head)}".join(lines)


def _check_source(spec: SourceSpec, settings: Settings) -> list[Finding]:
    try:
        reading = _read(spec, settings)
    except MetricsPipelineError as error:
        return [Finding(spec.name, False, str(error))]
    values = [f"{k} {v}" for point in reading.points for k, v in point.fields.items()]
    well = [Finding(spec.name, True, ", ".join(values))] if values else []
    return [*well, *(Finding(spec.name, False, str(error)) for error in reading.failures)]


def _read(spec: SourceSpec, settings: Settings) -> Reading:
    source = spec.build(settings.source(spec.name))
    try:
        return source.read(_metrics_used(spec, settings) or spec.answers, time.time_ns())
    finally:
        source.close()


def _metrics_used(spec: SourceSpec, settings: Settings) -> Sequence[Metric]:
    return [m for asset in settings.fleet_assets() for m in asset.asked.get(spec.name, ())]


def _attempt(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:  # noqa: BLE001 (Dagster's storages raise their drivers' errors)
        return Finding(name, False, str(error) or type(error).__name__)


def _check_store(settings: Settings) -> str:
    store = open_store(settings.store, CATALOG)
    try:
        return store.check()
    finally:
        store.close()


def _check_operational(settings: Settings) -> str:
    database = OperationalDatabase(settings.operational_database)
    try:
        with database.writing():
            return f"{database.name} can be written"
    finally:
        database.close()


def _check_instance() -> str:
    reader = InstanceReader([])
    try:
        state = reader.read()
        return f"{reader.where}; {len(state.heartbeats)} daemons known, {state.queue_length} queued"
    finally:
        reader.close()


def _check_exposure(settings: Settings) -> Finding:
    exporter = settings.exporter
    address = f"{exporter.host}:{exporter.port}"
    if exporter.is_public and (exporter.tls is None or exporter.basic_auth is None):
        return Finding(
            "exporter",
            True,
            f"{address} can be read by everybody who reaches this machine; "
            "set exporter.tls and exporter.basic_auth, or keep it behind a firewall",
        )
    return Finding("exporter", True, f"will listen on {address}")
