"""Sets of SQL queries whose columns are metrics: read from YAML, checked, made metrics of.

A set is one file and no code; three ship with the package (`metrics_pipeline/sql_sets/`). It names
a database of the settings, an interval, and queries, of which each column is a tag or a field. What
is wrong with a file is a ConfigurationError that names the file, the line, the query and the key,
and says what was expected. `sql_metrics.py` runs them; docs/sql-metrics.md says how to write one.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from metrics_pipeline.access.plain_yaml import parse
from metrics_pipeline.access.yaml_mistakes import Schema, describe
from metrics_pipeline.core.catalog import (
    SELF_FAMILIES,
    Catalog,
    Family,
    Measurement,
    Metric,
    MetricType,
    ValueType,
)
from metrics_pipeline.core.errors import ConfigurationError

SHIPPED = ("postgres", "platform", "scrape_pipeline")
DEFAULT_BUCKET = "system_metrics"
MAX_FILE_BYTES = 1_000_000

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Help = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
Dialect = Literal["postgresql", "sqlite"]
DIALECTS: tuple[Dialect, ...] = ("postgresql", "sqlite")

RESERVED = frozenset({"time"})
"""Names that InfluxDB keeps for itself."""

_NOT_CODE = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \$(\w*)\$.*?\$\1\$ | --[^\n]* | /\*.*?\*/""",
    re.DOTALL | re.VERBOSE,
)
_FIRST_WORD = re.compile(r"[\s(]*(select|with|values)\b", re.IGNORECASE)


class SqlField(BaseModel, frozen=True, extra="forbid"):
    """A column that is a number: a field of the points, and a metric of the exporter's page."""

    type: Literal["integer", "float", "boolean"]
    unit: str = Field(default="1", max_length=20)
    help: Help
    metric: Name | None = None
    """What Prometheus calls it; without it, measurement and column. A counter ends in `_total`."""
    minimum: float | None = None
    maximum: float | None = None
    null_is: float | None = None
    """What a NULL means. Without it there is no value then, rather than a zero."""


class SqlHealth(BaseModel, frozen=True, extra="forbid"):
    """A field that is 1 when the database answered, and 0 when it did not."""

    measurement: Name
    field: Name = "healthy"
    metric: Name
    help: Help


class SqlQuery(BaseModel, frozen=True, extra="forbid"):
    """One statement. Without tags its result is one row."""

    measurement: Name
    sql: dict[Dialect, str] = Field(min_length=1)
    tags: tuple[Name, ...] = ()
    fields: dict[Name, SqlField] = Field(min_length=1)
    timeout_seconds: float | None = Field(default=None, gt=0, le=600)
    max_rows: int | None = Field(default=None, ge=1, le=100_000)

    @field_validator("sql", mode="before")
    @classmethod
    def _for_all_dialects(cls, given: Any) -> Any:
        return dict.fromkeys(DIALECTS, given) if isinstance(given, str) else given

    @field_validator("sql")
    @classmethod
    def _check_sql(cls, given: dict[Dialect, str]) -> dict[Dialect, str]:
        return {dialect: one_query(text) for dialect, text in given.items()}

    @model_validator(mode="after")
    def _check_columns(self) -> SqlQuery:
        columns = [*self.tags, *self.fields]
        for name, times in Counter(columns).items():
            if times > 1:
                raise ValueError(f"tags: {name} is there twice; a column is one tag or one field")
            if name in RESERVED:
                raise ValueError(f"{name} cannot be the name of a column; write `AS` another")
        return self


class SqlSetFile(BaseModel, frozen=True, extra="forbid"):
    """A whole file."""

    version: Literal[1]
    database: Name
    """One of `sql.databases` in the settings, which may name another for this set."""
    interval_seconds: int = Field(ge=1, le=86_400)
    timeout_seconds: float = Field(default=3, gt=0, le=600)
    """What one statement may take."""
    max_rows: int = Field(default=1000, ge=1, le=100_000)
    """What one statement may give; more is a failure, and nothing of it is stored."""
    bucket: Name = DEFAULT_BUCKET
    """The bucket (InfluxDB 2) or database (3) of the points."""
    healthy: SqlHealth | None = None
    queries: dict[Name, SqlQuery] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> SqlSetFile:
        self._check_times()
        self._check_tags()
        seen: dict[tuple[str, str], str] = {}
        for key, name in self._fields():
            if key in seen:
                problem = f"{'.'.join(key)} is a field of the query {seen[key]} already"
                raise ValueError(f"queries.{name}.fields: {problem}")
            seen[key] = name
        return self

    def _check_times(self) -> None:
        longest = max(query.timeout_seconds or 0 for query in self.queries.values())
        if max(longest, self.timeout_seconds) > self.interval_seconds:
            raise ValueError("timeout_seconds: expected at most interval_seconds")

    def _check_tags(self) -> None:
        tags = {} if self.healthy is None else {self.healthy.measurement: ()}
        for name, query in self.queries.items():
            others = tags.setdefault(query.measurement, query.tags)  # type: ignore[arg-type]
            if set(others) != set(query.tags):
                problem = f"all points of {query.measurement} have the same tags, here and before"
                raise ValueError(f"queries.{name}.tags: expected {list(others)}: {problem}")

    def _fields(self) -> Iterator[tuple[tuple[str, str], str]]:
        if self.healthy is not None:
            yield (self.healthy.measurement, self.healthy.field), "healthy"
        for name, query in self.queries.items():
            for column in query.fields:
                yield (query.measurement, column), name


def one_query(text: str) -> str:
    """`text` without a semicolon at its end; ValueError unless it looks like one that reads.

    This tells a mistake early. What keeps a set from writing is how `sql_metrics.py` runs it: no
    regular expression reads quotes and comments as every version of every database does.
    """
    stripped = text.strip().removesuffix(";").rstrip()
    code = _NOT_CODE.sub(" ", stripped)
    if ";" in code:
        raise ValueError("expected one statement, without a `;` in it")
    if _FIRST_WORD.match(code) is None:
        raise ValueError("expected a statement that begins with SELECT, WITH or VALUES")
    return stripped


@dataclass(frozen=True, slots=True)
class Query:
    """One statement of a set, ready to run: what its columns are, and what bounds it."""

    name: str
    sql: Mapping[Dialect, str]
    measurement: Measurement
    tags: tuple[str, ...]
    """Columns that are tags; the measurement may have others, which are the same for all points."""
    metrics: Mapping[str, Metric]
    nulls: Mapping[str, float]
    timeout_seconds: float
    max_rows: int


@dataclass(frozen=True, slots=True)
class SqlSet:
    """A set as the settings use it. `tags` are on all its points; `file` is where it is from."""

    name: str
    file: Path
    database: str
    interval_seconds: int
    queries: tuple[Query, ...]
    healthy: Metric | None
    tags: Mapping[str, str]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it adds to the catalogue."""
        own = () if self.healthy is None else (self.healthy,)
        return (*own, *(metric for query in self.queries for metric in query.metrics.values()))

    def dialects(self) -> frozenset[Dialect]:
        """The kinds of databases that at least one of its queries is written for."""
        return frozenset(dialect for query in self.queries for dialect in query.sql)


def shipped_file(name: str) -> Path:
    """Where the set `name` that ships with the package is."""
    return Path(str(resources.files("metrics_pipeline") / "sql_sets" / f"{name}.yaml"))


@dataclass(frozen=True, slots=True)
class Choices:
    """What the settings say of a set; what they do not say is as its file has it."""

    database: str | None = None
    interval_seconds: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def tag_names(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(sorted(self.tags))


def load_sql_set(name: str, file: Path | None = None, choices: Choices | None = None) -> SqlSet:
    """The set in `file`, else the shipped one called `name`; `choices` win over what it says.

    Raises ConfigurationError with every mistake of the file.
    """
    if file is None and name not in SHIPPED:
        fix = f"Name its file, or one of those that ship: {', '.join(SHIPPED)}."
        raise ConfigurationError(f"the SQL set {name}", "no set of that name ships", fix)
    path = file or shipped_file(name)
    return _resolve(name, path, load_sql_set_file(path), choices or Choices())


def load_sql_set_file(path: Path) -> SqlSetFile:
    """What `path` says, checked; ConfigurationError with every mistake."""
    document, content = parse(_read(path), path, "version: 1")
    try:
        return SqlSetFile.model_validate(content)
    except pydantic.ValidationError as error:
        problems = describe(error, document, _schema())
        fix = "docs/sql-metrics.md lists every key."
        raise ConfigurationError(str(path), problems, fix) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigurationError(
                str(path), "is larger than 1 MB", "Name a file that holds a set of queries."
            )
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            str(path), f"cannot be read ({error})", "Name the file of the set."
        ) from error


@functools.cache
def _schema() -> Schema:
    return SqlSetFile.model_json_schema()


def _resolve(name: str, path: Path, content: SqlSetFile, choices: Choices) -> SqlSet:
    _check_own_tags(path, content, choices.tags)
    interval = choices.interval_seconds or content.interval_seconds
    return SqlSet(
        name=name,
        file=path,
        database=choices.database or content.database,
        interval_seconds=interval,
        queries=tuple(
            _query(each, query, content, interval, choices.tag_names)
            for each, query in content.queries.items()
        ),
        healthy=_health_metric(content, choices.tag_names),
        tags=choices.tags,
    )


def _check_own_tags(path: Path, content: SqlSetFile, tags: Mapping[str, str]) -> None:
    for name, query in content.queries.items():
        for taken in sorted(tags.keys() & {*query.tags, *query.fields}):
            raise ConfigurationError(
                str(path), f"{taken} is a column of the query {name}", "Name the tag differently."
            )


def _query(
    name: str, query: SqlQuery, content: SqlSetFile, interval: int, own_tags: tuple[str, ...]
) -> Query:
    tags = tuple(sorted((*query.tags, *own_tags)))
    measurement = Measurement(query.measurement, content.bucket, tags)
    wanted = query.timeout_seconds or content.timeout_seconds
    return Query(
        name=name,
        sql=query.sql,
        measurement=measurement,
        tags=query.tags,
        metrics={column: _metric(measurement, column, f) for column, f in query.fields.items()},
        nulls={c: f.null_is for c, f in query.fields.items() if f.null_is is not None},
        timeout_seconds=min(wanted, interval),
        max_rows=query.max_rows or content.max_rows,
    )


def _metric(measurement: Measurement, column: str, given: SqlField) -> Metric:
    name = given.metric or f"{measurement.name}_{column}"
    kind = MetricType.COUNTER if name.endswith("_total") else MetricType.GAUGE
    family = Family(name, kind, " ".join(given.help.split()), measurement.tags)
    value_type = ValueType(given.type)
    return Metric(measurement, column, value_type, given.unit, family, given.minimum, given.maximum)


def _health_metric(content: SqlSetFile, tags: tuple[str, ...]) -> Metric | None:
    health = content.healthy
    if health is None:
        return None
    measurement = Measurement(health.measurement, content.bucket, tags)
    family = Family(health.metric, MetricType.GAUGE, " ".join(health.help.split()), tags)
    return Metric(measurement, health.field, ValueType.INTEGER, "1", family, 0, 1)


def extend_catalog(catalog: Catalog, sets: Sequence[SqlSet]) -> Catalog:
    """`catalog` and what `sets` add to it; ConfigurationError where two mean different things.

    Two sets may share a file, for two databases, if a tag of the settings tells them apart.
    """
    added: dict[tuple[str, str], Metric] = {}
    for sql_set in sets:
        _check_apart(sql_set, sets)
        for metric in sql_set.metrics:
            _check_against(catalog, sql_set, metric, added.values())
            added[metric.measurement.name, metric.field] = metric
    return catalog.extended(added.values())


def _check_apart(sql_set: SqlSet, sets: Iterable[SqlSet]) -> None:
    measurements = {metric.measurement.name for metric in sql_set.metrics}
    for other in sets:
        shared = measurements & {metric.measurement.name for metric in other.metrics}
        if other.name < sql_set.name and shared and dict(other.tags) == dict(sql_set.tags):
            raise ConfigurationError(
                f"the SQL sets {other.name} and {sql_set.name}",
                f"both write {', '.join(sorted(shared))}, and nothing tells their points apart",
                "Give each of them different `tags` in the settings.",
            )


def _check_against(
    catalog: Catalog, sql_set: SqlSet, metric: Metric, others: Iterable[Metric]
) -> None:
    measurement, family = metric.measurement, metric.family
    where = f"{sql_set.file}, set {sql_set.name}"
    if measurement.name in catalog.measurements:
        problem = f"the measurement {measurement.name} is one of the product's own"
        raise ConfigurationError(where, problem, "Name another.")
    own = {each.name for each in (*SELF_FAMILIES, *(each.family for each in catalog))}
    if family.name in own:
        problem = f"the metric {family.name} is one of the product's own"
        raise ConfigurationError(where, problem, "Give the field another `metric`.")
    for other in others:
        if other.measurement.name == measurement.name and other.measurement != measurement:
            problem = f"the points of {measurement.name} have other tags in another set"
            raise ConfigurationError(where, problem, "Name another measurement, or the same tags.")
        is_same = (other.measurement, other.field) == (measurement, metric.field)
        if (other.family.name == family.name or is_same) and other != metric:
            problem = f"the metric {family.name} is there twice, and means different things"
            raise ConfigurationError(where, problem, "Give one of the fields another `metric`.")
