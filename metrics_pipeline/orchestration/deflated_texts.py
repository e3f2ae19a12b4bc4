"""Long texts of Dagster's event log lie deflated in SQLite; whoever asks reads them as they were.

What an asset said of itself is ten kilobytes of JSON, of which most is said in every line.
PostgreSQL deflates what is longer than 2 kB by itself, SQLite does not.
"""

import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

LONG = 500
"""Characters; of shorter texts little is saved."""

SERIALIZED = '{"__class__": '
"""How Dagster's texts begin, and no key of anything."""

READ_BY_SQL = ('"dagster_event": null', '"event_type_value": "ENGINE_EVENT"')
"""What is in texts whose level `dagster_rows` looks for, with SQL."""


def deflate_in(engine: sa.Engine) -> None:
    """From now on, over the connections of `engine`; texts of before are read as they are."""
    sa.event.listen(engine, "before_cursor_execute", _deflated_statement, retval=True)
    sa.event.listen(engine, "connect", _inflate_rows)


def _deflated_statement(
    _connection: object,
    _cursor: object,
    statement: str,
    parameters: Any,
    _context: object,
    is_many: bool,
) -> tuple[str, Any]:
    if is_many:
        return statement, [_deflated(each) for each in parameters]
    return statement, _deflated(parameters)


def _inflate_rows(connection: sqlite3.Connection, _record: object) -> None:
    connection.row_factory = _inflated


def _deflated(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        zlib.compress(value.encode()) if isinstance(value, str) and _is_long(value) else value
        for value in values
    )


def _is_long(text: str) -> bool:
    return (
        len(text) > LONG
        and text.startswith(SERIALIZED)
        and not any(mark in text for mark in READ_BY_SQL)
    )


def _inflated(_cursor: object, row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        zlib.decompress(value).decode() if isinstance(value, bytes) else value for value in row
    )
