"""What PostgreSQL and SQLite mean when they refuse a query, and what to do about it.

Codes of PostgreSQL: appendix A of its manual. SQLite has words alone. Neither repeats a password,
but PostgreSQL repeats a value that it cannot read or convert, which may be anybody's: of that only
the kind is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import sqlalchemy as sa

from metrics_pipeline.access.database import cause_of
from metrics_pipeline.core.errors import (
    CredentialRefused,
    SourceError,
    SourceRefused,
    SourceUnreachable,
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code of PostgreSQL, or the words of one that has no code, say.

    `is_lasting`: it stays so until somebody changes the database or the set. `concerns_all`: no
    other query can be answered either.
    """

    codes: str
    words: str
    kind: type[SourceError]
    fix: str
    is_lasting: bool = False
    concerns_all: bool = False


MEANINGS = (
    Meaning(
        "42P01|3F000",
        "no such table",
        SourceRefused,
        "Create the table, or leave the query out of the set.",
        is_lasting=True,
    ),
    Meaning(
        "42703",
        "no such column",
        SourceRefused,
        "Create the column, or write the name it has here in a set of your own.",
        is_lasting=True,
    ),
    Meaning(
        "42501",
        "^permission denied",
        SourceRefused,
        "GRANT SELECT on it to this user; for statistics of PostgreSQL, GRANT pg_monitor.",
        is_lasting=True,
    ),
    Meaning(
        "25...",
        "readonly database|not authorized",
        SourceRefused,
        "A set only reads: leave out what writes.",
        is_lasting=True,
    ),
    Meaning(
        "57014",
        "interrupted",
        SourceUnreachable,
        "Give it an index (docs/sql-metrics.md), or a longer timeout_seconds.",
    ),
    Meaning(
        "55P03",
        "database (table )?is locked",
        SourceUnreachable,
        "Somebody holds a lock on what it reads; it is asked again.",
    ),
    Meaning(
        "53300",
        "too many clients|too many connections|remaining connection slots",
        SourceUnreachable,
        "Raise max_connections, or end what holds them.",
        concerns_all=True,
    ),
    Meaning(
        "28[0-9A-Z]{3}",
        "password authentication|no password|role .* does not exist|pg_hba|not permitted to log in",
        CredentialRefused,
        "Check user and password.",
        concerns_all=True,
    ),
    Meaning(
        "3D000",
        "database .* does not exist",
        SourceRefused,
        "Create the database, or name the right one.",
        concerns_all=True,
    ),
    Meaning(
        "57P0.|08...",
        "server closed the connection|connection .*failed|could not connect|SSL|unable to open"
        "|not a database|connection already closed",
        SourceUnreachable,
        "Check that the database is up and can be reached.",
        concerns_all=True,
    ),
    Meaning(
        "42...|0A...",
        "syntax error|no such function|misuse of|ambiguous|incomplete input|unrecognized token",
        SourceRefused,
        "Correct the SQL of the query, for this kind of database.",
        is_lasting=True,
    ),
    Meaning("22...", "overflow|malformed", SourceRefused, "Correct the SQL of the query."),
)
"""The first that fits. One that lasts is asked again only after a while."""

DATA_EXCEPTION = "22"
"""The class of the codes of a value that is wrong."""

_WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z])")

OTHERWISE = Meaning("", "", SourceUnreachable, "Check that the database is up and not locked.")


def explain(error: sa.exc.SQLAlchemyError) -> tuple[Meaning, str]:
    """What `error` means, and what the database itself says, on one line, without a value of it."""
    code = getattr(getattr(error, "orig", None), "pgcode", None)
    said = _kind_of(error, code) if code and code.startswith(DATA_EXCEPTION) else cause_of(error)
    for meaning in MEANINGS:
        # Not both: a port number is among the words, and may look like a code.
        if re.fullmatch(meaning.codes, code) if code else re.search(meaning.words, said):
            return meaning, said
    return OTHERWISE, said


def _kind_of(error: sa.exc.SQLAlchemyError, code: str) -> str:
    """`invalid text representation (SQLSTATE 22P02)`: the driver's class is called like that."""
    name = type(getattr(error, "orig", error)).__name__
    return f"{_WORD_BEGINS.sub(' ', name).lower()} (SQLSTATE {code})"
