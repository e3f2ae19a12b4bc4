"""`metrics-pipeline check`: tries everything the settings name, and says what to do about it.

Reads every source that is used, asks the store, takes the write lock of the operational database,
and opens the Dagster instance. Stores no point.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from metrics_pipeline.access.environment import settings_file
from metrics_pipeline.core.catalog import CATALOG, Metric
from metrics_pipeline.core.errors import CredentialRefused, MetricsPipelineError, SourceError
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.exporter.instance_reader import InstanceReader
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.registry import SOURCES
from metrics_pipeline.sources.spec import SourceSpec
from metrics_pipeline.storage.open import open_store
from metrics_pipeline.storage.operational import OperationalDatabase

TEXT_COLUMNS = 76
NAME_COLUMNS = 22
INSTANCE_FIX = "Check the folder DAGSTER_HOME, or DAGSTER_POSTGRES_URL, if Dagster uses PostgreSQL."


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
        *_check_simulator(settings),
        *(finding for spec in used for finding in _check_source(spec, settings)),
        _attempt("time-series store", lambda: _check_store(settings)),
        _attempt("operational database", lambda: _check_operational(settings)),
        _attempt("Dagster instance", _check_instance, INSTANCE_FIX),
        _check_exposure(settings),
    ]


def render(findings: Iterable[Finding]) -> str:
    """The findings as a table."""
    return "\n".join(_render_one(finding) for finding in findings)


def _render_one(finding: Finding) -> str:
    lines = [line for paragraph in finding.says.splitlines() for line in _wrap(paragraph)]
    head = f"{'ok' if finding.is_well else 'FAIL':<5} {finding.name:<{NAME_COLUMNS}} "
    return head + f"\n{' ' * len(head)}".join(lines)


def _wrap(paragraph: str) -> list[str]:
    """Between words only: a path stays whole, to be copied."""
    return textwrap.wrap(paragraph, TEXT_COLUMNS, break_long_words=False, break_on_hyphens=False)


def _check_simulator(settings: Settings) -> list[Finding]:
    """Nothing unless these are settings for the simulator, and it was never started here."""
    simulator = settings.simulator
    if simulator is None or not settings.reads_simulator():
        return []
    if simulator.connection_string_file.exists():
        return []
    says = "not running, so there is nothing to count yet. Start `make run` first, or name your own"
    return [Finding("simulated IoT Hub", False, f"{says} hub and leave `simulator` out.")]


def _check_source(spec: SourceSpec, settings: Settings) -> list[Finding]:
    try:
        reading = _read(spec, settings)
    except MetricsPipelineError as error:
        return [Finding(spec.name, False, str(error))]
    values = [f"{k} {v}" for point in reading.points for k, v in point.fields.items()]
    well = [Finding(spec.name, True, ", ".join(values))] if values else []
    wrong = "\n".join(_tell(reading.failures))
    return [*well, Finding(spec.name, False, wrong)] if wrong else well


def _tell(failures: Iterable[SourceError]) -> Iterator[str]:
    """Each cause once, with all that it kept from being read."""
    by_cause: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        by_cause.setdefault((failure.problem, failure.fix), []).append(failure.target)
    for (problem, fix), targets in by_cause.items():
        yield f"reading {', '.join(targets)}: {problem}. {fix}"


def _read(spec: SourceSpec, settings: Settings) -> Reading:
    source = spec.build(settings.source(spec.name))
    first, *others = _metrics_used(spec, settings) or spec.answers
    try:
        reading = source.read([first], time.time_ns())
        if not others or any(_concerns_everything(failure) for failure in reading.failures):
            return reading
        return reading + source.read(others, time.time_ns())
    finally:
        source.close()


def _concerns_everything(failure: SourceError) -> bool:
    """Whether asking for more would only take longer: nobody answers, or lets us in."""
    return failure.retry_helps or isinstance(failure, CredentialRefused)


def _metrics_used(spec: SourceSpec, settings: Settings) -> Sequence[Metric]:
    return [m for asset in settings.fleet_assets() for m in asset.asked.get(spec.name, ())]


def _attempt(name: str, check: Callable[[], str], fix: str = "") -> Finding:
    try:
        return Finding(name, True, check())
    except MetricsPipelineError as error:
        return Finding(name, False, str(error))
    except Exception as error:  # noqa: BLE001 (Dagster's storages raise their drivers' errors)
        return Finding(name, False, f"{_first_line(error)}. {fix}")


def _first_line(error: BaseException) -> str:
    """Of the error that began it: SQL, parameters and traces come on the lines below."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(" .")


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
