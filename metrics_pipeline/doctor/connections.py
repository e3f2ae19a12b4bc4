"""Whether a PostgreSQL server lets in as many connections as runs at the same time may want."""

from __future__ import annotations

import sqlalchemy as sa

from metrics_pipeline.core.device_assets import METRICS_JOB, STATUS_JOB
from metrics_pipeline.core.findings import Finding, warning, well
from metrics_pipeline.settings import Settings

NAME = "connections"

PER_RUN = 2
"""To Dagster's tables and to ours, while a run starts, stores or ends; docs/sizing.md."""
OF_PROCESSES = 20
"""Of daemon, code server, webserver, exporter and gateway: more than was seen, and no bound."""

ROOM = sa.text(
    "SELECT current_setting('max_connections')::integer "
    "- current_setting('superuser_reserved_connections')::integer "
    "- coalesce(current_setting('reserved_connections', true), '0')::integer"
)


def judge_room(connection: sa.Connection, settings: Settings) -> Finding:
    """Of the server that `connection` leads to; others may use it, too."""
    room = int(connection.execute(ROOM).scalar_one())
    runs = most_runs(settings)
    wanted = OF_PROCESSES + PER_RUN * runs
    said = f"{room} are let in, {runs} runs at once and the rest may want {wanted}"
    if room >= wanted:
        return well(NAME, "PostgreSQL's max_connections", said)
    return warning(
        NAME,
        "PostgreSQL's max_connections",
        said,
        f"Raise max_connections by {wanted - room} (it needs a restart), or take fewer shards. Who "
        "is turned away waits, and fails if there is no room for minutes.",
        "docs/sizing.md",
    )


def most_runs(settings: Settings) -> int:
    """At the same time: of each job one, of those that poll one a shard."""
    shards = max(1, settings.sweeps.shards)
    return sum(shards if job in (STATUS_JOB, METRICS_JOB) else 1 for job in settings.jobs())
