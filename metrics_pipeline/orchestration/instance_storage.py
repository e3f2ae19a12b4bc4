"""Where Dagster keeps runs and events: PostgreSQL where the environment names one, else SQLite.

The one switch between development and production. `dagster.yaml` names `StorageByEnvironment`.
"""

import atexit
import gc
import os
from pathlib import Path

from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, SqliteStorageConfig
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from metrics_pipeline.access.environment import DAGSTER_POSTGRES_VARIABLE, postgres_url
from metrics_pipeline.access.file_lock import hold_in_turn
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.orchestration.run_launcher import end_with_code_server
from metrics_pipeline.orchestration.sqlite_storage import ConsolidatedSqliteStorage

# Each process of Dagster loads this: code server, webserver, daemon, and every run, which is one of
# its own. At the end of one Python goes through its 150,000 objects several times to find what can
# be freed, a second of a core, though the system takes all of it back at once.
atexit.register(gc.freeze)
end_with_code_server()

POSTGRES_LIMITS = {"connect_timeout": "10", "tcp_user_timeout": "30000"}
"""Seconds to connect in, and milliseconds after which a silent server is given up."""


class StorageByEnvironment(DagsterSqliteStorage):
    """What `dagster.yaml` names; becomes one of the two storages when it is configured."""

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: SqliteStorageConfig
    ) -> DagsterStorage:
        """The storage; ConfigurationError for a file that cannot be read, or no address."""
        url = postgres_url(os.environ)
        if url is not None:
            return _open_postgres(url, inst_data)
        base_dir = config_value["base_dir"]
        # Two processes that make the same database at once leave it with two version rows.
        with hold_in_turn(Path(base_dir) / ".creation_lock"):
            return ConsolidatedSqliteStorage.from_local(base_dir, inst_data)


def bounded_url(url: str) -> str:
    """`url` with time-outs, and in UTC: Dagster writes local times and reads them as UTC.

    What the URL itself says wins over a time-out, never over the time zone. ConfigurationError if
    it is none of PostgreSQL.
    """
    parsed = _parse(url)
    options = f"{parsed.query.get('options', '')} -c timezone=UTC".strip()
    query = {**POSTGRES_LIMITS, **parsed.query, "options": options}
    return parsed.set(query=query).render_as_string(hide_password=False)


def _parse(url: str) -> URL:
    """What it says. What is behind an @ in a password would be looked up as a host, and shown."""
    parsed: URL | None
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # which may show a part of it
        parsed = None
    if parsed is None or parsed.get_backend_name() != "postgresql" or "@" in (parsed.host or ""):
        raise ConfigurationError(
            DAGSTER_POSTGRES_VARIABLE,
            "it is no address of PostgreSQL: expected postgresql://user:password@host:5432/name; "
            "it is not shown here, as it may hold a password",
            "Correct it; in the password @ is written %40, and % as %25.",
        )
    return parsed


def _open_postgres(url: str, inst_data: ConfigurableClassData | None) -> DagsterStorage:
    from metrics_pipeline.orchestration.postgres_storage import (  # noqa: PLC0415 (slow)
        PostgresStorage,
    )

    return PostgresStorage(bounded_url(url), inst_data)
