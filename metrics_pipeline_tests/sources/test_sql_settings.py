"""The section `sql` of the settings, and the variables that win over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.sources.sql_sets import shipped_file

SECRET = "hunter2"
POSTGRESQL = {"url": "postgresql://metrics@db.example.net/shop"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("METRICS_PIPELINE_STATE_DIR", str(tmp_path))
    for name in ("PG_HOST", "PG_PORT", "PG_DB", "PG_USER", "PG_PASS"):
        monkeypatch.delenv(name, raising=False)


def load(folder: Path, **sql: Any) -> Settings:
    file = folder / "settings.yaml"
    file.write_text(json.dumps({"version": 1, "sources": {}, "sql": sql}))
    return load_settings(file)


def refused(folder: Path, **sql: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(folder, **sql)
    return str(raised.value)


def test_sets_extend_the_catalogue(tmp_path: Path) -> None:
    settings = load(tmp_path, databases={"postgres": POSTGRESQL}, sets={"postgres": {}})
    assert settings.sql is not None
    (sql_set,) = settings.sql.loaded
    assert settings.sql.database_of(sql_set).url == POSTGRESQL["url"]
    assert "postgres_metrics" in settings.catalog().measurements
    assert "postgres_metrics" not in CATALOG.measurements


def test_without_the_section_there_is_nothing_more(tmp_path: Path) -> None:
    settings = Settings.model_validate({"version": 1, "sources": {}})
    assert settings.sql is None
    assert settings.catalog().measurements == CATALOG.measurements


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ({"shop": {}}, "sql.sets.shop: the SQL set shop: no set of that name ships"),
        ({"platform": {}}, "it reads 'platform'; expected one of sql.databases: postgres"),
        (
            {"postgres": {"intervall": 5}},
            "(did you mean 'interval_seconds'?)",
        ),
        ({"postgres": {"interval_seconds": 0}}, "sql.sets.postgres.interval_seconds: expected"),
        ({"postgres": {"file": "none.yaml"}}, "none.yaml: cannot be read"),
        ({"postgres": {}, "twin": {"file": "copy.yaml"}}, "Give each of them different `tags`"),
    ],
)
def test_a_mistake_names_the_set(tmp_path: Path, sets: Any, says: str) -> None:
    (tmp_path / "copy.yaml").write_text(shipped_file("postgres").read_text())
    said = refused(tmp_path, databases={"postgres": POSTGRESQL}, sets=sets)
    assert says in said


def test_a_set_that_has_no_query_for_such_a_database_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, databases={"postgres": {"url": "sqlite:///x"}}, sets={"postgres": {}})
    assert "no query that is written for sqlite" in said


def test_variables_win_over_the_database_postgres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"HOST": "pg", "PORT": "5433", "DB": "shop", "USER": "reader", "PASS": SECRET}
    for name, value in variables.items():
        monkeypatch.setenv(f"PG_{name}", value)
    settings = load(tmp_path, sets={"postgres": {}})
    assert settings.sql is not None
    database = settings.sql.databases["postgres"]
    assert database.url == "postgresql://reader@pg:5433/shop"
    assert database.password is not None
    assert database.password.read() == SECRET
    assert SECRET not in repr(settings)


@pytest.mark.parametrize("port", ["many", "0", "65536", "5432/shop"])
def test_a_wrong_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setenv("PG_HOST", "pg")
    monkeypatch.setenv("PG_PORT", port)
    assert "environment variable PG_PORT" in refused(tmp_path, sets={"postgres": {}})


def test_the_url_of_another_database_is_not_blamed_on_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_HOST", "pg")
    said = refused(tmp_path, databases={"shop": {"url": f"mysql://{SECRET}@db/shop"}}, sets={})
    assert "line 1: sql.databases.shop.url: expected sqlite:///file or" in said
    assert "PG_HOST" not in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "postgresql://metrics@new:6432/fleet?sslmode=verify-full"),
        ({"PORT": "5433"}, "postgresql://metrics@new:5433/fleet?sslmode=verify-full"),
        ({"DB": "shop"}, "postgresql://metrics@new:6432/shop?sslmode=verify-full"),
        ({"USER": "a@b"}, "postgresql://a%40b@new:6432/fleet?sslmode=verify-full"),
        ({"HOST": "::1"}, "postgresql://metrics@[::1]:6432/fleet?sslmode=verify-full"),
    ],
)
def test_what_no_variable_gives_stays_as_the_url_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str
) -> None:
    for name, value in {"HOST": "new", **variables}.items():
        monkeypatch.setenv(f"PG_{name}", value)
    old = "postgresql://metrics@old:6432/fleet?sslmode=verify-full&hostaddr=192.0.2.1"
    settings = load(tmp_path, databases={"postgres": {"url": old}}, sets={"postgres": {}})
    assert settings.sql is not None
    assert settings.sql.databases["postgres"].url == url


@pytest.mark.parametrize("sql", [{}, {"sql": None}, {"sql": {"sets": {}}}])
def test_a_host_alone_makes_the_database_and_its_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: dict[str, Any]
) -> None:
    monkeypatch.setenv("PG_HOST", "pg")
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({"version": 1, "sources": {}, **sql}))
    settings = load_settings(file)
    assert settings.sql is not None
    assert [each.name for each in settings.sql.loaded] == ["postgres"]
    assert settings.sql.databases["postgres"].url == "postgresql://postgres@pg:5432/postgres"


def test_without_a_host_the_variables_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_DB", "elsewhere")
    settings = load(tmp_path, databases={"postgres": POSTGRESQL}, sets={"postgres": {}})
    assert settings.sql is not None
    assert settings.sql.databases["postgres"].url == POSTGRESQL["url"]
