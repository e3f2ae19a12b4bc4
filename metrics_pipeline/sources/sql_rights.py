"""What the role of a SQL set may do besides reading; for `check`, as a set needs no more.

Facts: PostgreSQL's manual, "System Information Functions" (`has_table_privilege`: of several rights
in one text any one will do, and a superuser has all) and "Predefined Roles".
"""

from __future__ import annotations

from contextlib import closing

import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_foreign_engine, reading

IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
WRITABLE_TABLES = """
    SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema')
      AND has_schema_privilege(pg_namespace.oid, 'USAGE')
      AND has_table_privilege(pg_class.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"""


def find_excess(settings: DatabaseSettings) -> str:
    """In words what the role could change; nothing where it only reads, or does not get in.

    A SQLite file is opened for reading alone.
    """
    if settings.is_sqlite:
        return ""
    engine = open_foreign_engine(settings)
    try:
        with closing(reading(engine)) as connection:
            return _excess_of(connection)
    except sa.exc.SQLAlchemyError:  # the set itself says why
        return ""
    finally:
        engine.dispose()


def _excess_of(connection: sa.Connection) -> str:
    if connection.scalar(sa.text(IS_SUPERUSER)):
        return "is a superuser"
    tables = connection.scalar(sa.text(WRITABLE_TABLES))
    return f"may write to {tables} tables" if tables else ""
