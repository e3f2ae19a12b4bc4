"""All findings of a deployment in one list, and how they are shown."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from metrics_pipeline.access.environment import settings_file, state_dir
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.findings import Finding, Severity, well, wrong
from metrics_pipeline.doctor.exposure import examine_exposure
from metrics_pipeline.doctor.machine import examine_disks, where_daemons_are
from metrics_pipeline.doctor.servers import examine_servers
from metrics_pipeline.doctor.stores import examine_operational, examine_spool, examine_store
from metrics_pipeline.exporter.serve import database_files, intervals
from metrics_pipeline.orchestration.code_server import examine_code_servers
from metrics_pipeline.orchestration.instance_findings import Evaluated, examine_instance
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.settings import Settings

TEXT_COLUMNS = 88
INDENT = " " * 10


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where things are that the settings do not say: Dagster's folder, its workspace, servers."""

    home: Path
    workspace: Path
    exporter_url: str | None = None
    gateway_url: str | None = None


def find_home() -> Path:
    """The folder that DAGSTER_HOME names, else the one below the state directory."""
    named = os.environ.get("DAGSTER_HOME")
    return Path(named).absolute() if named else state_dir() / "dagster"


def examine(
    settings: Settings | ConfigurationError, evaluated: Evaluated | None, where: Whereabouts
) -> list[Finding]:
    """All of it. Of settings that cannot be read, what can be looked at without them."""
    if isinstance(settings, ConfigurationError):
        return [
            wrong("settings", settings.where, settings.problem, settings.fix),
            *examine_disks([state_dir(), where.home]),
            *_examine_dagster(where, None),
        ]
    return [
        well("settings", str(settings_file()), "can be read"),
        *examine_disks(_folders(settings, where.home)),
        *examine_exposure(settings),
        *_examine_dagster(where, evaluated),
        *examine_store(settings),
        *examine_spool(settings.spool),
        *examine_operational(settings, intervals(settings, find_sampled(settings))),
        *examine_servers(settings, where.exporter_url, where.gateway_url),
    ]


def _examine_dagster(where: Whereabouts, evaluated: Evaluated | None) -> Iterator[Finding]:
    yield from examine_instance(where.home, evaluated, lambda: where_daemons_are(where.home))
    yield from examine_code_servers(where.workspace)


def _folders(settings: Settings, home: Path) -> Iterator[Path]:
    """Where state is written."""
    yield from (state_dir(), home)
    if settings.spool is not None:
        yield settings.spool.directory
    yield from (file.parent for file in database_files(settings).values())
    inventory = getattr(settings.source("inventory"), "database", None)
    if inventory is not None and inventory.is_sqlite:
        yield Path(sa.engine.make_url(inventory.url).database or "").parent


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong; there may be warnings."""
    return not any(finding.severity is Severity.WRONG for finding in findings)


def render(findings: Iterable[Finding]) -> str:
    """For people: the worst first, each with what to do."""
    ranked = sorted(findings, key=lambda each: list(Severity)[::-1].index(each.severity))
    return "\n".join([*map(_render_one, ranked), _summary(ranked)])


def render_json(findings: Sequence[Finding]) -> str:
    """For programs: `findings`, each with severity, name, looked_at, found, fix and runbook."""
    document = {
        "is_well": is_well(findings),
        "findings": [each.to_json() for each in findings],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _render_one(finding: Finding) -> str:
    lines = [f"{finding.name}: {finding.found} ({finding.looked_at})"]
    lines += [f"→ {finding.fix}"] if finding.fix else []
    lines += [f"→ {finding.runbook}"] if finding.runbook else []
    wrapped = [part for line in lines for text in line.splitlines() for part in _wrap(text)]
    return f"{finding.severity.value.upper():<{len(INDENT)}}" + f"\n{INDENT}".join(wrapped)


def _wrap(text: str) -> list[str]:
    """Between words only: a path stays whole, to be copied."""
    return textwrap.wrap(text, TEXT_COLUMNS, break_long_words=False, break_on_hyphens=False)


def _summary(findings: Sequence[Finding]) -> str:
    counts = {s: sum(each.severity is s for each in findings) for s in Severity}
    told = ", ".join(f"{count} {severity.value}" for severity, count in counts.items() if count)
    return f"{len(findings)} things were looked at: {told}."
