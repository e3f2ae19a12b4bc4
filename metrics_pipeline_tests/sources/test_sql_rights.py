"""The role that docs/sql-metrics.md has one make reads all that ships, and changes nothing."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.simulators.platform_tables import PLATFORM
from metrics_pipeline.sources.sql_rights import find_excess
from metrics_pipeline.sources.sql_sets import SHIPPED, load_sql_set
from metrics_pipeline_tests.postgresql import PostgresqlDatabase, PostgresqlServer
from metrics_pipeline_tests.sources.test_sql_metrics import (
    execute,
    execute_raw,
    on_postgresql,
    on_sqlite,
    read,
)

PAGE = (Path(__file__).parents[2] / "docs/sql-metrics.md").read_text()
STATEMENTS = re.findall(r"^    ((?:CREATE|ALTER) ROLE .*?;|GRANT .*?;)", PAGE, re.MULTILINE)


@pytest.fixture
def owner(postgresql: PostgresqlDatabase, tmp_path: Path) -> DatabaseSettings:
    """Of a database with the tables of the sets; a superuser."""
    settings = on_postgresql(postgresql, tmp_path)
    engine = open_engine(settings)
    PLATFORM.create_all(engine)
    engine.dispose()
    return settings


@pytest.fixture
def role(
    owner: DatabaseSettings,
    postgresql: PostgresqlDatabase,
    postgresql_server: PostgresqlServer,
    tmp_path: Path,
) -> Iterator[DatabaseSettings]:
    """The page's, by another name."""
    name, password = f"metrics_{secrets.token_hex(4)}", secrets.token_hex()
    assert len(STATEMENTS) == 5
    for statement in STATEMENTS:
        execute(owner, statement.replace("metrics_reader", name).replace("…", password))
    # A connection that was closed still counts until its process has ended.
    execute(owner, f"ALTER ROLE {name} CONNECTION LIMIT -1")
    # So that it is its rights that keep it from writing, and not what is asked of it.
    execute(owner, f"ALTER ROLE {name} SET default_transaction_read_only = off")
    url = sa.engine.make_url(owner.url).set(username=name).render_as_string()
    (tmp_path / "role").mkdir()
    yield on_postgresql(postgresql, tmp_path / "role", url=url, given_password=password)
    execute_raw(postgresql, f"DROP OWNED BY {name} CASCADE")
    postgresql_server.execute(f"DROP ROLE {name}")


def test_the_role_of_the_page_reads_every_set_that_ships(role: DatabaseSettings) -> None:
    for name in SHIPPED:
        reading = read(load_sql_set(name), role)
        assert reading.points, name
        assert reading.failures == (), name
    assert find_excess(role) == ""


def test_the_role_of_the_page_writes_nothing_even_if_it_is_let(role: DatabaseSettings) -> None:
    """`open_engine` asks for no read-only transaction."""
    for statement in (
        "INSERT INTO device_state (device_id, status) VALUES ('a', 'ONLINE')",
        "UPDATE prices SET price = 0",
        "DELETE FROM scrape_runs",
        "TRUNCATE fleet_alert",
        "DROP TABLE variants",
        "CREATE TABLE mine (number INTEGER)",
    ):
        with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"):
            execute(role, statement)


def test_a_role_that_may_write_is_told_of(owner: DatabaseSettings, role: DatabaseSettings) -> None:
    name = sa.engine.make_url(role.url).username
    for right in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
        execute(owner, f"GRANT {right} ON prices TO {name}")
        assert find_excess(role) == "may write to 1 tables"
        execute(owner, f"REVOKE {right} ON prices FROM {name}")


def test_a_superuser_is_told_of(owner: DatabaseSettings) -> None:
    assert find_excess(owner) == "is a superuser"


def test_a_file_is_only_read_and_who_does_not_get_in_has_no_rights(
    owner: DatabaseSettings, tmp_path: Path
) -> None:
    assert find_excess(on_sqlite(tmp_path)) == ""
    nobody = sa.engine.make_url(owner.url).set(username="nobody_at_all").render_as_string()
    assert find_excess(owner.model_copy(update={"url": nobody})) == ""
