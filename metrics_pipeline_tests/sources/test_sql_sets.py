"""Files of SQL sets: what is read, what is refused and in which words, what the catalogue gets."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from metrics_pipeline.core.catalog import CATALOG, MetricType
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.sources.sql_sets import (
    SHIPPED,
    Choices,
    SqlSet,
    SqlSetFile,
    extend_catalog,
    load_sql_set,
    load_sql_set_file,
    one_query,
    shipped_file,
)

SECRET = "hunter2"
STOCK = """\
version: 1
database: shop
interval_seconds: 30
queries:
  stock:
    measurement: shop_stock
    tags: [warehouse]
    sql: |
      SELECT warehouse, count(*) AS items FROM stock GROUP BY warehouse;
    fields:
      items: {type: integer, help: Items in stock., minimum: 0}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "stock.yaml"
    file.write_text(text)
    return file


def problem(folder: Path, old: str, new: str) -> str:
    """What is said of the set in which `old` is `new`."""
    assert old in STOCK
    with pytest.raises(ConfigurationError) as raised:
        load_sql_set("stock", write(folder, STOCK.replace(old, new, 1)))
    assert str(folder / "stock.yaml") in str(raised.value)
    assert SECRET not in str(raised.value)
    return str(raised.value)


def changed(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(STOCK), **changes}


# --- reading --------------------------------------------------------------------------------------


def test_a_set_of_ones_own_is_one_file(tmp_path: Path) -> None:
    stock = load_sql_set("stock", write(tmp_path, STOCK))
    assert (stock.database, stock.interval_seconds) == ("shop", 30)
    (query,) = stock.queries
    assert query.sql["postgresql"] == query.sql["sqlite"]
    assert query.sql["sqlite"].endswith("GROUP BY warehouse")
    (metric,) = stock.metrics
    assert metric.family.name == "shop_stock_items"
    assert metric.family.labels == ("warehouse",)
    assert metric.measurement.database == "system_metrics"


def test_the_settings_win_over_the_file(tmp_path: Path) -> None:
    choices = Choices(database="other", interval_seconds=2, tags={"site": "north"})
    stock = load_sql_set("stock", write(tmp_path, STOCK), choices)
    assert (stock.database, stock.interval_seconds) == ("other", 2)
    assert stock.metrics[0].measurement.tags == ("site", "warehouse")
    assert stock.queries[0].timeout_seconds == 2


@pytest.mark.parametrize("name", SHIPPED)
def test_the_sets_that_ship_are_read(name: str) -> None:
    loaded = load_sql_set(name)
    assert extend_catalog(CATALOG, [loaded])


def test_the_names_of_the_contract_are_there() -> None:
    catalog = extend_catalog(CATALOG, [load_sql_set(name) for name in SHIPPED])
    families = {metric.family.name: metric.family.labels for metric in catalog}
    contract = {
        "scrape_runs": ("status",),
        "scrape_run_duration_seconds": ("status",),
        "scrape_artifacts": ("http_status",),
        "scrape_artifact_body_bytes": (),
        "price_changes_24h": (),
        "price_average_24h": (),
        "variants_updated_24h": (),
        "review_rate_percent": (),
    }
    assert contract.items() <= families.items()
    fields = {(metric.measurement.name, metric.field) for metric in catalog}
    assert {
        ("postgres_metrics", name) for name in ("connections", "db_size_bytes", "healthy")
    } <= fields
    names = ("devices_online", "devices_stale", "alerts_open", "deliveries_pending")
    assert {("platform_metrics", name) for name in names} <= fields


def test_counters_end_in_total_and_pages_of_them_can_be_parsed() -> None:
    catalog = extend_catalog(CATALOG, [load_sql_set(name) for name in SHIPPED])
    for metric in catalog:
        family = metric.family
        assert (family.type is MetricType.COUNTER) == family.name.endswith("_total")
        head = f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.type}\n"
        page = f"{head}{family.name} 1\n"
        (parsed,) = text_string_to_metric_families(page)
        assert parsed.documentation == family.help


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("version: 1", "version: 2", "line 1: version: expected 1, got 2"),
        ("database: shop\n", "", "the key 'database' is missing"),
        ("interval_seconds: 30", "interval_seconds: 0", "line 3: interval_seconds: expected"),
        ("interval_seconds: 30", "intervall: 30", "did you mean 'interval_seconds'"),
        ("type: integer", "type: number", "queries.stock.fields.items.type: expected 'integer'"),
        ("help: Items in stock.", 'help: ""', "queries.stock.fields.items.help: expected"),
        ("minimum: 0", "minimun: 0", "did you mean 'minimum'"),
        ("minimum: 0", "minimum: hunter2", "queries.stock.fields.items.minimum: expected a valid"),
        ("tags: [warehouse]", "tags: [items]", "items is there twice"),
        ("tags: [warehouse]", "tags: [time]", "time cannot be the name of a column"),
        ("tags: [warehouse]", 'tags: ["A b"]', "queries.stock.tags.0: expected"),
        (
            "SELECT warehouse",
            "DELETE FROM hunter2; SELECT",
            "line 8: queries.stock.sql: expec",
        ),
        ("SELECT warehouse", "UPDATE hunter2 SET", "begins with SELECT, WITH or VALUES"),
        ("    sql: |", "    sql:\n     mysql: |", "queries.stock.sql.mysql"),
        ("queries:\n", "queries: &hunter2\n", "anchors"),
        ("interval_seconds: 30", "interval_seconds: 1", "timeout_seconds: expected at most"),
    ],
)
def test_a_mistake_is_told_with_file_query_key_and_what_was_expected(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert says in problem(tmp_path, old, new)


def test_two_queries_cannot_give_one_field(tmp_path: Path) -> None:
    content = changed()
    content["queries"]["again"] = content["queries"]["stock"]
    with pytest.raises(ConfigurationError, match=r"queries.again.fields: shop_stock.items is a"):
        load_sql_set_file(write(tmp_path, json.dumps(content)))


def test_all_points_of_a_measurement_have_the_same_tags(tmp_path: Path) -> None:
    content = changed()
    content["queries"]["again"] = {**content["queries"]["stock"], "tags": []}
    with pytest.raises(ConfigurationError, match=r"queries.again.tags: expected \['warehouse'\]"):
        load_sql_set_file(write(tmp_path, json.dumps(content)))


def test_a_tag_of_the_settings_cannot_be_a_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="warehouse is a column of the query stock"):
        load_sql_set("s", write(tmp_path, STOCK), Choices(tags={"warehouse": "x"}))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 1_000_001, b"- 1", b"a: [", b""])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "set.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"set\.yaml"):
        load_sql_set_file(file)


def test_a_file_that_is_not_there_and_a_name_that_does_not_ship_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_sql_set("s", tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="one of those that ship: postgres, platform"):
        load_sql_set("s")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ';' AS a",
        'SELECT 1 AS ";" -- one; two',
        "/* a; */ WITH x AS (SELECT $tag$;$tag$) SELECT 1",
        "(SELECT 1) ;\n",
        "values (1)",
    ],
)
def test_a_semicolon_in_a_text_or_a_comment_is_none(sql: str) -> None:
    assert one_query(sql)


# --- the catalogue --------------------------------------------------------------------------------


def test_two_databases_are_read_by_one_file_and_told_apart_by_a_tag() -> None:
    sets = [load_sql_set("postgres", None, Choices(tags={"server": name})) for name in ("a", "b")]
    first, second = named(sets[0], "one"), named(sets[1], "two")
    catalog = extend_catalog(CATALOG, [first, second])
    assert len(list(catalog)) == len(list(CATALOG)) + len(first.metrics)
    with pytest.raises(ConfigurationError, match="different `tags`"):
        extend_catalog(CATALOG, [first, named(sets[0], "two")])


def named(sql_set: SqlSet, name: str) -> SqlSet:
    return replace(sql_set, name=name, file=shipped_file("postgres"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("shop_stock", "device_status", "measurement device_status is one of the product's own"),
        (
            "type: integer,",
            "type: integer, metric: device_up,",
            "device_up is one of the prod",
        ),
        ("type: integer,", "type: integer, metric: scrape_runs,", "scrape_runs is there twice"),
        ("shop_stock", "platform_metrics", "platform_metrics have other tags in another set"),
    ],
)
def test_a_name_that_is_taken_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    stock = load_sql_set(
        "stock", write(tmp_path, STOCK.replace(old, new)), Choices(tags={"a": "b"})
    )
    sets = [load_sql_set("platform"), load_sql_set("scrape_pipeline"), stock]
    with pytest.raises(ConfigurationError, match=says):
        extend_catalog(CATALOG, sets)


# --- anything -------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
OFTEN = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
PATHS = st.sampled_from(
    [
        ("version",),
        ("interval_seconds",),
        ("timeout_seconds",),
        ("queries",),
        ("queries", "stock"),
        ("queries", "stock", "sql"),
        ("queries", "stock", "tags"),
        ("queries", "stock", "fields"),
        ("queries", "stock", "fields", "items"),
        ("queries", "stock", "fields", "items", "help"),
        ("healthy",),
    ]
)


@given(path=PATHS, value=ANYTHING)
@OFTEN
def test_any_value_anywhere_is_read_or_refused_in_words(
    tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    content = changed()
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = write(tmp_path, yaml.safe_dump(content))
    with suppress(ConfigurationError):  # and nothing else
        assert isinstance(load_sql_set_file(file), SqlSetFile)


@given(st.text(max_size=200))
@OFTEN
def test_any_text_is_no_set_and_says_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ConfigurationError):
        load_sql_set_file(file)
