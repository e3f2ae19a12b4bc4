"""The health score of a scraper's real tables: what it is, and when there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE
from metrics_pipeline.core.catalog import HEALTH_COMPONENTS, PIPELINE_HEALTH, SCORE
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading, SampledSource
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.exporter.serve import build_refresher
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.simulators.platform_tables import PLATFORM, SCRAPE_ARTIFACTS, SCRAPE_RUNS
from metrics_pipeline.sources.pipeline_health_settings import FIGURES
from metrics_pipeline.sources.sql_metrics import ASK_AGAIN_SECONDS
from metrics_pipeline.sources.sql_sets import shipped_file
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline_tests.postgresql import PostgresqlDatabase

NAME = "scrape_pipeline"
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS {} FROM n"
)
NO_NUMBER = "SELECT 'much' AS {}"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """The database, with the tables; empty."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/scraper.sqlite")
    PLATFORM.create_all(engine)
    yield engine
    engine.dispose()


def load(folder: Path, url: str = "sqlite:///scraper.sqlite", **sections: Any) -> Settings:
    """Settings that read the set; `sections` win."""
    sql = {"databases": {"d": {"url": url}}, "sets": {NAME: {"database": "d"}}}
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "sources": {}, "sql": sql, **sections}))
    return load_settings(file)


def changed_set(folder: Path, **queries: str) -> dict[str, Any]:
    """The section `sql` with the shipped set, but for the statements of some queries."""
    content = yaml.safe_load(shipped_file(NAME).read_text())
    for name, sql in queries.items():
        fields = content["queries"][name]["fields"]
        (field,) = fields.keys() & set(FIGURES) or fields
        content["queries"][name]["fields"] = {field: fields[field]}
        content["queries"][name] |= {"sql": sql.format(field), "timeout_seconds": 0.2}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    databases = {"d": {"url": "sqlite:///scraper.sqlite"}}
    return {"databases": databases, "sets": {NAME: {"database": "d", "file": "mine.yaml"}}}


def opened(settings: Settings) -> SampledSource:
    (sampled,) = find_sampled(settings)
    return sampled.build()


def read(settings: Settings) -> Reading:
    with closing(opened(settings)) as source:
        return source.read(time.time_ns())


def health(reading: Reading) -> dict[str, float]:
    """Score and components."""
    return {
        point.tags["component"]: float(point.fields["value"])
        for point in reading.points
        if point.measurement == PIPELINE_HEALTH.name
    }


def add_runs(engine: sa.Engine, *runs: tuple[str, float]) -> None:
    """Of each the status, and how many hours ago it ended."""
    now = datetime.now(UTC)
    rows = [
        {"status": status, "finished_at": now - timedelta(hours=hours), "roaster_id": 1}
        for status, hours in runs
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(SCRAPE_RUNS), rows)


def add_artifacts(engine: sa.Engine, *artifacts: tuple[int | None, int | None, bool]) -> None:
    """Of each its status, the size of its body, and whether somebody has to look at it."""
    rows = [
        {"http_status": status, "body_len": size, "needs_review": review, "roaster_id": 1}
        for status, size, review in artifacts
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(SCRAPE_ARTIFACTS), rows)


def fill(engine: sa.Engine) -> None:
    """Of the last day's runs three in four, of artifacts half are good, one in four is looked at.

    A run succeeded in this hour. What is older than a day, or not ended, does not count.
    """
    add_runs(engine, *[("success", 0.1), ("success", 2), ("success", 3), ("partial", 1)])
    add_runs(engine, *[("failed", 25)] * 5)
    with engine.begin() as connection:
        connection.execute(sa.insert(SCRAPE_RUNS).values(status="running"))
    add_artifacts(engine, (200, 10, True), (304, None, False), (200, 0, False), (500, 9, False))


FILLED = {"run_success": 75, "artifact_quality": 50, "freshness": 100, "review": 75}


def weighted(components: Mapping[str, float], *weights: float) -> float:
    """The formula of the documents, written once more."""
    given = dict(zip(HEALTH_COMPONENTS, weights or (40, 30, 20, 10), strict=True))
    total = sum(given[name] for name in components)
    return sum(given[name] * value for name, value in components.items()) / total


def test_the_score_is_of_what_the_tables_say(engine: sa.Engine, tmp_path: Path) -> None:
    fill(engine)
    reading = read(load(tmp_path))
    assert reading.failures == ()
    assert health(reading) == pytest.approx({SCORE: weighted(FILLED), **FILLED})


@pytest.fixture
def server(
    postgresql: PostgresqlDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[sa.Engine, Settings]]:
    """PostgreSQL with the tables, empty, and settings that read it."""
    monkeypatch.setenv("SCRAPER_PASSWORD", postgresql.password)
    engine = sa.create_engine(postgresql.url)
    PLATFORM.create_all(engine)
    database = {"url": postgresql.plain_url, "password": {"env": "SCRAPER_PASSWORD"}}
    sql = {"databases": {"d": database}, "sets": {NAME: {"database": "d"}}}
    yield engine, load(tmp_path, sql=sql)
    engine.dispose()


def test_postgresql_gives_the_same_score(server: tuple[sa.Engine, Settings]) -> None:
    engine, settings = server
    fill(engine)
    reading = read(settings)
    assert reading.failures == ()
    assert health(reading) == pytest.approx({SCORE: weighted(FILLED), **FILLED})


def test_weights_and_ages_are_those_of_the_settings(engine: sa.Engine, tmp_path: Path) -> None:
    fill(engine)
    weights = {"run_success": 1, "artifact_quality": 2, "freshness": 0, "review": 5}
    section = {"weights": weights, "fresh_seconds": 0, "stale_seconds": 720}
    found = health(read(load(tmp_path, health=section)))
    assert found["freshness"] == pytest.approx(50, abs=2)  # 6 minutes of 12
    assert found[SCORE] == pytest.approx(weighted({**FILLED, "freshness": 50}, 1, 2, 0, 5))


def test_empty_tables_have_the_score_0_and_say_why(engine: sa.Engine, tmp_path: Path) -> None:
    assert health(read(load(tmp_path))) == {SCORE: 0, "freshness": 0}


@pytest.mark.parametrize("status", ["success", "failed"])
def test_a_pipeline_that_stands_still_is_no_better_than_one_that_fails(
    engine: sa.Engine, server: tuple[sa.Engine, Settings], tmp_path: Path, status: str
) -> None:
    for each, settings in ((engine, load(tmp_path)), server):
        add_artifacts(each, (200, 10, False))
        add_runs(each, (status, 30))
        stands = health(read(settings))
        add_runs(each, ("failed", 1))
        assert stands == health(read(settings))
        rest = {"run_success": 0, "artifact_quality": 100, "freshness": 0, "review": 100}
        assert stands == {SCORE: 40, **rest}


def test_a_column_that_is_not_there_costs_its_component(engine: sa.Engine, tmp_path: Path) -> None:
    fill(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE scrape_artifacts DROP COLUMN needs_review")
    rest = {name: value for name, value in FILLED.items() if name != "review"}
    with closing(opened(load(tmp_path))) as source:
        now_ns = time.time_ns()
        asked_again = ASK_AGAIN_SECONDS * NS_PER_SECOND
        for at_ns in (now_ns, now_ns + NS_PER_SECOND, now_ns + asked_again):
            assert health(source.read(at_ns)) == pytest.approx({SCORE: weighted(rest), **rest})


def test_without_the_table_of_runs_there_is_no_score(engine: sa.Engine, tmp_path: Path) -> None:
    fill(engine)
    SCRAPE_RUNS.drop(engine)
    with closing(opened(load(tmp_path))) as source:
        readings = [source.read(time.time_ns()) for _ in range(2)]
    assert [health(reading) for reading in readings] == [{}, {}]


@pytest.mark.parametrize("query", ["run_success", "last_success", "artifact_quality", "reviews"])
@pytest.mark.parametrize("sql", [ENDLESS, NO_NUMBER], ids=["too slow", "no number"])
def test_a_query_that_gives_no_answer_now_costs_the_score_of_this_reading(
    engine: sa.Engine, tmp_path: Path, query: str, sql: str
) -> None:
    fill(engine)
    reading = read(load(tmp_path, sql=changed_set(tmp_path, **{query: sql})))
    assert [failure.target for failure in reading.failures] == [query]
    assert health(reading) == {}


def test_a_query_that_is_no_part_of_the_score_costs_it_nothing(
    engine: sa.Engine, tmp_path: Path
) -> None:
    fill(engine)
    reading = read(load(tmp_path, sql=changed_set(tmp_path, price_changes=ENDLESS)))
    assert health(reading)[SCORE] == pytest.approx(weighted(FILLED))


def test_a_database_that_does_not_answer_gives_no_score(tmp_path: Path) -> None:
    reading = read(load(tmp_path, url="sqlite:///gone/scraper.sqlite"))
    assert len(reading.failures) == 1
    assert reading.points == ()


# --- stored and shown -----------------------------------------------------------------------------


def stored(settings: Settings) -> Sequence[Point]:
    assert isinstance(settings.store, EmbeddedStoreSettings)
    with closing(EmbeddedStore(settings.store)) as store:
        return store.read(PIPELINE_HEALTH.name, 0, 2**63 - 1)


def page(settings: Settings) -> dict[str, str]:
    with closing(build_refresher(settings)) as refresher:
        refresher.refresh()
        lines = refresher.page.text.plain.decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Settings], None]:
    """A reading of the set into the stores, as a slot of it is."""

    def write_one(settings: Settings) -> None:
        (sampled,) = find_sampled(settings)
        writer = open_writer(settings.store, settings.operational_database, settings.catalog())
        with closing(writer), closing(sampled.build()) as source:
            report = writer.write(sampled.asset, source.read(time.time_ns()))
        assert report.rejected == {}

    return write_one


def test_score_and_components_are_stored_and_shown_with_the_formula(
    engine: sa.Engine, tmp_path: Path, write: Callable[[Settings], None]
) -> None:
    fill(engine)
    settings = load(tmp_path)
    write(settings)
    assert {p.tags["component"]: p.fields["value"] for p in stored(settings)} == pytest.approx(
        {SCORE: weighted(FILLED), **FILLED}
    )
    shown = page(settings)
    assert float(shown["pipeline_health_score"]) == pytest.approx(weighted(FILLED))
    for name, value in FILLED.items():
        assert float(shown[f'pipeline_health_component{{component="{name}"}}']) == value
    (help_line,) = (line for line in shown if line.startswith("# HELP pipeline_health_score "))
    assert "sum(weight * pipeline_health_component) / sum(weight)" in help_line


def test_the_page_keeps_the_last_score_while_the_next_is_not_known(
    engine: sa.Engine, tmp_path: Path, write: Callable[[Settings], None]
) -> None:
    fill(engine)
    write(load(tmp_path))
    before = page(load(tmp_path))["pipeline_health_score"]
    add_runs(engine, *[("failed", 0.1)] * 20)
    slow = load(tmp_path, sql=changed_set(tmp_path, run_success=ENDLESS))
    write(slow)
    assert page(slow)["pipeline_health_score"] == before
    assert len(stored(slow)) == 1 + len(FILLED)
    write(load(tmp_path))
    assert float(page(slow)["pipeline_health_score"]) < float(before)


def test_while_a_query_fails_the_page_has_of_the_others_what_there_is_and_no_more(
    engine: sa.Engine, tmp_path: Path, write: Callable[[Settings], None]
) -> None:
    fill(engine)
    write(load(tmp_path))
    before = page(load(tmp_path))
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM scrape_artifacts")
    slow = load(tmp_path, sql=changed_set(tmp_path, price_changes=ENDLESS))
    write(slow)
    gone = before.keys() - page(slow).keys()
    assert 'pipeline_health_component{component="artifact_quality"}' in gone
    assert [name for name in page(slow) if name.startswith("scrape_artifacts{")] == []
    # Of the one that fails it has what was there last.
    assert page(slow)["price_changes_24h"] == before["price_changes_24h"]


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"weights": {"review": -1}}, "health.weights.review: expected"),
        ({"weights": {"reviews": 1}}, "health.weights.reviews"),
        ({"weights": {"review": float("nan")}}, "health.weights.review: expected"),
        (
            {"weights": dict.fromkeys(HEALTH_COMPONENTS, 0)},
            "health.weights: expected at least one weight above 0",
        ),
        (
            {"fresh_seconds": 60, "stale_seconds": 60},
            "stale_seconds: expected more than fresh_seconds (60), got 60",
        ),
        ({"sql_set": "shop"}, "health.sql_set: expected one of sql.sets (scrape_pipeline), got"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(
    tmp_path: Path, section: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, health=section)
    assert says in str(raised.value)


def test_a_set_that_does_not_say_when_a_run_succeeded_cannot_be_judged(tmp_path: Path) -> None:
    sql = {
        "databases": {"d": {"url": "sqlite:///scraper.sqlite"}},
        "sets": {"platform": {"database": "d"}},
    }
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, sql=sql, health={"sql_set": "platform"})
    assert "has the measurement scrape_pipeline, no tags and the field" in str(raised.value)
    assert load(tmp_path, sql=sql).judged_set() is None  # nobody asked for a score
