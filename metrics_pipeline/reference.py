"""The generated pages of docs/: every metric from the catalogue, every key from the settings.

`make docs` writes them; a test compares them with what is committed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metrics_pipeline.core.catalog import (
    CATALOG,
    SELF_FAMILIES,
    Family,
    Measurement,
    Metric,
    OpenFields,
    StoredMetric,
)
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import (
    COLLECTION_INTERVAL,
    HEALTH_URLS,
    INFLUXDB_TOKEN,
    INFLUXDB_URL,
)
from metrics_pipeline.sources.sql_sets import SHIPPED, load_sql_set

GENERATED = "<!-- Made by `make docs`; changes belong into the code. -->"
ANY_NAME = "NAME"


def metrics_page() -> str:
    """docs/metrics.md: what is stored, and what Prometheus sees."""
    return "\n".join(
        [
            GENERATED,
            "# Metrics",
            "",
            "## Collected",
            "",
            "Each is stored as a field of its measurement, and shown by the exporter as a family.",
            "",
            "| Prometheus | type | unit | measurement.field | value | tags | meaning |",
            "|---|---|---|---|---|---|---|",
            *(_metric_row(metric) for metric in CATALOG),
            "",
            "## From the SQL sets that ship",
            "",
            "Where the settings use them (`sql.sets`). Yours may have any others: sql-metrics.md.",
            "",
            "| Prometheus | type | unit | measurement.field | value | tags | meaning |",
            "|---|---|---|---|---|---|---|",
            *(_metric_row(each) for name in SHIPPED for each in load_sql_set(name).metrics),
            "",
            "## Stored only",
            "",
            "Not shown by the exporter: 10,000 devices with 48 ports are a million series. Those",
            "with a `metric_name` are collected where `polling.details` asks for them. Of fields",
            "that end in `…` the messages choose names and types. Where two devices choose",
            "different types for one name, the store has a field for each: `…_text`, `…_number`,",
            "`…_flag`.",
            "",
            "| metric_name | unit | measurement.field | value | tags | meaning |",
            "|---|---|---|---|---|---|",
            *(_stored_row(metric) for metric in CATALOG.stored_only),
            *(_open_row(fields) for fields in CATALOG.open_fields),
            "",
            "## About the pipeline itself",
            "",
            "| Prometheus | type | labels | meaning |",
            "|---|---|---|---|",
            *(_family_row(family) for family in SELF_FAMILIES),
            "",
        ]
    )


def configuration_page() -> str:
    """docs/configuration.md: every key of the settings file."""
    schema = Settings.model_json_schema()
    lines = [
        GENERATED,
        "# Configuration",
        "",
        "One YAML file; `metrics_pipeline/default_settings.yaml` is a commented example.",
        "Paths are relative to the state directory. A secret is never written into the file: name",
        "where it is, `{env: NAME}` or `{file: PATH}`. `metrics-pipeline check` tries everything.",
        "",
        "Each process reads it once, when it starts: after a change restart the code server, whose",
        "settings its runs have, and the exporter and gateway. Secrets are read at each use.",
        "",
        f"A part of a key that is `{ANY_NAME}` is yours to choose. `[word]` is no part of the key:",
        "of several sections that may stand there it tells which, by its `kind` or a key that only",
        "it has.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for key, part in _keys(schema, schema, ""):
        meaning = _cell(part.get("description", ""))
        lines.append(f"| `{key}` | {_type(part, schema)} | {_default(part)} | {meaning} |")
    return "\n".join([*lines, "", *_environment(), ""])


def write(folder: Path) -> None:
    """Write both pages into `folder`."""
    (folder / "metrics.md").write_text(metrics_page(), encoding="utf-8")
    (folder / "configuration.md").write_text(configuration_page(), encoding="utf-8")


def _environment() -> list[str]:
    return [
        "## Environment",
        "",
        "| variable | meaning |",
        "|---|---|",
        "| `METRICS_PIPELINE_SETTINGS` | the settings file; without it the one that ships |",
        "| `METRICS_PIPELINE_STATE_DIR` | the state directory; without it `.state` |",
        "| `PG_HOST` | with it, `PG_PORT`, `PG_DB`, `PG_USER` and `PG_PASS` (the password) |",
        "| | they win over parts of `sql.databases.postgres.url`; the set `postgres` is made |",
        f"| `{INFLUXDB_URL}` | wins over `store.url`, where the store is InfluxDB |",
        f"| `{INFLUXDB_TOKEN}` | its API token, which wins over `store.token` |",
        *_health_urls(),
        f"| `{COLLECTION_INTERVAL}` | wins over `platform.sample_every_seconds` |",
        "| `DAGSTER_HOME` | Dagster's folder, with `dagster.yaml` in it; `run` sets it |",
        "| `DAGSTER_POSTGRES_URL` | keeps Dagster's runs and events in PostgreSQL, not in SQLite |",
        "| `DAGSTER_POSTGRES_URL_FILE` | the same, as the path of a file that holds the URL |",
    ]


def _health_urls() -> Iterator[str]:
    for variable, name in HEALTH_URLS.items():
        wins = f"wins over `platform.services.{name}.url`, which then need not be there"
        yield f"| `{variable}` | {wins} |"


def _metric_row(metric: Metric) -> str:
    measurement = metric.measurement
    return (
        f"| `{metric.family.name}` | {metric.family.type} | {metric.unit} "
        f"| `{measurement.name}.{metric.field}` | {metric.value_type} "
        f"| {_tags(measurement)} | {_cell(metric.help)} |"
    )


def _stored_row(metric: StoredMetric) -> str:
    measurement = metric.measurement
    return (
        f"| {f'`{metric.selected_by}`' if metric.selected_by else ''} | {metric.unit} "
        f"| `{measurement.name}.{metric.field}` | {metric.value_type} "
        f"| {_tags(measurement)} | {_cell(metric.help)} |"
    )


def _open_row(fields: OpenFields) -> str:
    measurement = fields.measurement
    return (
        f"|  |  | `{measurement.name}.{fields.prefix}…` | float, boolean or string "
        f"| {_tags(measurement)} | {_cell(fields.help)} |"
    )


def _tags(measurement: Measurement) -> str:
    optional = [f"(`{tag}`)" for tag in measurement.optional_tags]
    return ", ".join([*(f"`{tag}`" for tag in measurement.tags), *optional])


def _family_row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.type} | {labels} | {_cell(family.help)} |"


def _keys(
    part: Mapping[str, Any], schema: Mapping[str, Any], prefix: str, above: tuple[str, ...] = ()
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every key of the section `part`; a section that is `above` itself is not told once more."""
    for name, child in part.get("properties", {}).items():
        key = f"{prefix}{name}"
        yield key, child
        for place, section in _sections(child, schema, key):
            if place.startswith(f"{key}."):
                yield place, section
            if section["title"] not in above:
                yield from _keys(section, schema, f"{place}.", (*above, section["title"]))


def _sections(
    part: Mapping[str, Any], schema: Mapping[str, Any], key: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The sections that may stand at `key`, or at a name of one's choice below it, and where."""
    targets = _targets(part, schema)
    sections = [target for target in targets if "properties" in target]
    for target in sections:
        if target["title"] != "SecretReference":
            yield (key if len(sections) == 1 else f"{key}[{_kind(target)}]"), target
    for target in targets:
        # The latter where the names have to have a form.
        some = [target.get("additionalProperties"), *target.get("patternProperties", {}).values()]
        for values in some:
            if isinstance(values, dict):
                yield from _sections(values, schema, f"{key}.{ANY_NAME}")


def _kind(target: Mapping[str, Any]) -> str:
    """What tells a section from the others that may stand there: its kind, or its first own key."""
    kind = target["properties"].get("kind")
    return str(kind["const"] if kind else target["required"][0])


def _targets(part: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "$ref" in part:
        return [schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]]
    choices = [*part.get("anyOf", []), *part.get("oneOf", [])]
    return [target for choice in choices for target in _targets(choice, schema)] or [part]


def _type(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    names = [_type_name(target) for target in _targets(part, schema)]
    return " or ".join(dict.fromkeys(name for name in names if name != "null"))


def _type_name(target: Mapping[str, Any]) -> str:
    if target.get("title") == "SecretReference":
        return "secret"
    if "const" in target:
        return f"`{target['const']}`"
    if "enum" in target:
        return ", ".join(f"`{value}`" for value in target["enum"])
    if target.get("type") == "object":
        return "section"
    return str(target.get("format", target.get("type", "")))


def _default(part: Mapping[str, Any]) -> str:
    if "default" not in part:
        return ""
    value = part["default"]
    return "absent" if value is None else f"`{value}`" if not isinstance(value, dict) else ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
