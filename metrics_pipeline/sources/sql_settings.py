"""The settings of SQL metrics: which databases there are, and which sets read them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import BaseModel, Field, StringConstraints, model_validator

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.sources.sql_sets import Choices, Name, SqlSet, extend_catalog, load_sql_set

POSTGRES = "postgres"
"""The database that the variables are about, and the set that reads it."""

VARIABLES = ("PG_HOST", "PG_PORT", "PG_DB", "PG_USER", "PG_PASS")

LARGEST_PORT = 65_535

TagValue = Annotated[str, StringConstraints(pattern=r"^[\w.:/-]{1,100}$")]


class SqlSetSettings(BaseModel, frozen=True, extra="forbid"):
    """One set of queries. What is not here is as its file says."""

    file: StatePath | None = Field(
        default=None,
        description="A YAML file of yours; without it, the one of this name that ships: postgres, "
        "platform or scrape_pipeline. docs/sql-metrics.md says how to write one.",
    )
    database: Name | None = Field(
        default=None, description="Which of sql.databases it reads, if not the one its file names."
    )
    interval_seconds: int | None = Field(
        default=None, ge=1, le=86_400, description="Seconds between two readings, on a fixed grid."
    )
    tags: dict[Name, TagValue] = Field(
        default={},
        description="Tags that all its points have: `{server: db-1}`. They tell two sets apart "
        "that are read from one file.",
    )


class SqlSettings(BaseModel, frozen=True, extra="forbid"):
    """Metrics that are defined in SQL."""

    databases: dict[Name, DatabaseSettings] = Field(
        default={},
        description="The databases that sets read, by a name of your choice. "
        "They are only read; give a user that may do no more.",
    )
    sets: dict[Name, SqlSetSettings] = Field(
        default={}, description="The sets of queries, by name: `{postgres: {}, platform: {}}`."
    )

    @functools.cached_property
    def loaded(self) -> tuple[SqlSet, ...]:
        """The sets, read from their files once, when the settings are."""
        return tuple(self._load_set(name, each) for name, each in self.sets.items())

    def database_of(self, sql_set: SqlSet) -> DatabaseSettings:
        """The database that `sql_set` reads."""
        return self.databases[sql_set.database]

    @model_validator(mode="after")
    def _load(self) -> SqlSettings:
        loaded = self.loaded
        try:
            extend_catalog(CATALOG, loaded)
        except ConfigurationError as error:
            raise ValueError(f"sets: {error}") from None
        return self

    def _load_set(self, name: str, given: SqlSetSettings) -> SqlSet:
        try:
            choices = Choices(given.database, given.interval_seconds, given.tags)
            loaded = load_sql_set(name, given.file, choices)
        except ConfigurationError as error:
            raise ValueError(f"sets.{name}: {error}") from None
        if loaded.database not in self.databases:
            known = ", ".join(self.databases) or "none"
            raise ValueError(
                f"sets.{name}: it reads {loaded.database!r}; expected one of sql.databases: {known}"
            )
        dialect = sa.engine.make_url(self.databases[loaded.database].url).get_backend_name()
        if dialect not in loaded.dialects():
            raise ValueError(f"sets.{name}: it has no query that is written for {dialect}")
        return loaded


def apply_postgresql_variables(
    content: dict[str, Any], environment: Mapping[str, str]
) -> Mapping[tuple[str | int, ...], str]:
    """Make the variables PG_… win over `sql.databases.postgres`; the keys and what they are from.

    What they do not give stays as the URL there has it. The set `postgres` is made where there is
    none. Nothing where PG_HOST is not given. Raises ConfigurationError if PG_PORT is no port.
    """
    given = {name: environment[name] for name in VARIABLES if environment.get(name)}
    database = _section(content, "sql", "databases", POSTGRES) if "PG_HOST" in given else None
    if database is None or _section(content, "sql", "sets", POSTGRES) is None:
        return {}
    database["url"] = _url(database.get("url"), given)
    if "PG_PASS" in given:
        database["password"] = {"env": "PG_PASS"}
    return {("sql", "databases", POSTGRES, "url"): "PG_HOST"}


def _section(content: dict[str, Any], *keys: str) -> dict[str, Any] | None:
    """The section at `keys`, made where there is none; None if something else stands there."""
    here: Any = content
    for key in keys:
        if here.get(key) is None:
            here[key] = {}
        here = here[key]
        if not isinstance(here, dict):
            return None
    section: dict[str, Any] = here
    return section


def _url(old: object, given: Mapping[str, str]) -> str:
    """`old` with each part that is given."""
    url = _postgresql_url(old).set(host=given["PG_HOST"])
    url = url.set(
        username=given.get("PG_USER"), database=given.get("PG_DB")
    )  # None changes nothing
    if "PG_PORT" in given:
        url = url.set(port=_port(given["PG_PORT"]))
    return url.render_as_string()


def _port(given: str) -> int:
    if re.fullmatch("[0-9]{1,5}", given) is None or not 0 < int(given) <= LARGEST_PORT:
        problem = f"expected a port, from 1 to {LARGEST_PORT}"
        raise ConfigurationError("environment variable PG_PORT", problem, "Correct it.")
    return int(given)


def _postgresql_url(old: object) -> sa.URL:
    """`old` less what else says where the server is; the usual one if it is none of PostgreSQL."""
    usual = sa.URL.create("postgresql", "postgres", port=5432, database="postgres")
    try:
        url = sa.engine.make_url(old) if isinstance(old, str) else usual
    except (sa.exc.ArgumentError, ValueError):
        return usual
    if url.get_backend_name() != "postgresql":
        return usual
    return url.difference_update_query(("host", "hostaddr", "port"))
