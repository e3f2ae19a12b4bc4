"""What is wrong with where numbers are kept: time-series store, spool, operational database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from metrics_pipeline.access.database import cause_of, open_foreign_engine, reading
from metrics_pipeline.access.environment import state_dir
from metrics_pipeline.access.server_clock import postgresql_skew
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.clock_skew import judge_skew
from metrics_pipeline.core.errors import ConfigurationError, StoreError, StoreUnavailable
from metrics_pipeline.core.findings import Finding, span_in_words, unknown, warning, well, wrong
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.doctor.connections import judge_room
from metrics_pipeline.exporter.status import SHORTEST_STALE_SECONDS, STALE_INTERVALS
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage.dead_letters import DeadLetterSettings
from metrics_pipeline.storage.embedded import (
    UPGRADE_COMMAND,
    EmbeddedStoreSettings,
    primary_code,
)
from metrics_pipeline.storage.embedded_schema import APPLICATION_ID, SCHEMA_VERSION
from metrics_pipeline.storage.influx import NOT_THERE
from metrics_pipeline.storage.open import open_store
from metrics_pipeline.storage.operational import (
    DEAD_LETTER_SIZE,
    DEAD_LETTERS,
    SNAPSHOTS,
    TABLES,
)
from metrics_pipeline.storage.operational_schema import UPGRADES, VERSIONS
from metrics_pipeline.storage.spool import SpoolSettings, read_position, segments
from metrics_pipeline.storage.spool_records import FORMAT, Damage, decode
from metrics_pipeline.storage.spool_state import SpoolState, SpoolWatch

STORE, SPOOL, OPERATIONAL = "time-series store", "spool", "operational database"
DEAD, STALE = "dead letters", "what is collected"

LONG_SPOOLED_SECONDS = 300.0
"""As the alert SpoolGrowing: a restart of the store is over by then."""
NEARLY_FULL = 0.8
"""As the alert SpoolNearlyFull."""
DECODED_BYTES = 64_000_000
"""So much of the spool is looked at whole, the oldest first: the rest is as it was written."""

AS_WHO_WRITES = "Ask again as the user of the pipeline's processes, or let this user read it."
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

NO_TABLES = "it has no tables yet: whoever opens it first makes them"

LATELY_NS = 3600 * NS_PER_SECOND
MANY_DEAD = 5
"""As the alert DeadLetters: so many in an hour."""

RUNBOOKS = "docs/runbooks/alerts"
SHOWN = 5


def examine_store(settings: Settings) -> Iterator[Finding]:
    """Whether it answers, lets us in, and knows this release's schema."""
    if isinstance(settings.store, EmbeddedStoreSettings):
        yield _examine_embedded(settings.store)
        return
    try:
        store = open_store(settings.store, settings.catalog())
        with closing(store):
            said = store.check()
    except StoreUnavailable as error:
        fix = "What is written waits in the spool meanwhile, where there is one."
        yield wrong(STORE, settings.store.url, str(error), fix, f"{RUNBOOKS}/SpoolGrowing.md")
    except (StoreError, ConfigurationError) as error:
        fix = "It does not pass by itself, and no write is kept meanwhile."
        yield wrong(STORE, settings.store.url, str(error), fix, f"{RUNBOOKS}/RunFailuresFast.md")
    else:
        yield _judge_databases(settings.store.url, said)


def _judge_databases(url: str, said: str) -> Finding:
    if NOT_THERE not in said:
        return well(STORE, url, said)
    fix = "Make it, or let the token of store.token see and write it."
    return warning(STORE, url, said, fix, f"{RUNBOOKS}/RunFailuresFast.md")


def _examine_embedded(settings: EmbeddedStoreSettings) -> Finding:
    path = settings.path.absolute()
    try:
        if not path.exists():
            return unknown(STORE, str(path), "nothing was stored yet: the first write makes it")
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        with closing(connection):
            (ours,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(
                "SELECT name FROM measurement LIMIT 1" if version > 1 else "SELECT 1"
            )
    except OSError as error:
        return wrong(STORE, str(path), f"it cannot be read ({error.strerror})", AS_WHO_WRITES)
    except sqlite3.Error as error:
        return wrong(STORE, str(path), f"SQLite answers: {error}", _fix_of(error))
    if ours != APPLICATION_ID:
        fix = "Name another file under store.path."
        return wrong(STORE, str(path), "this SQLite file was not made by metrics_pipeline", fix)
    return _judge_version(
        STORE,
        str(path),
        version,
        SCHEMA_VERSION,
        f"Run `{UPGRADE_COMMAND}` once while nothing else runs: it changes the file.",
    )


def _fix_of(error: sqlite3.Error) -> str:
    """Only of what is damaged that it be moved away: it may be another's, or locked for a while."""
    if primary_code(error) in DAMAGED:
        return "Restore it from a back-up, or move it away: an empty one is begun then."
    return f"It need not be damaged: it may be locked by who changes it. {AS_WHO_WRITES}"


def _judge_version(name: str, place: str, there: int, known: int, upgrade: str) -> Finding:
    said = f"of schema {there}, and this release knows {known}"
    if there > known:
        return wrong(name, place, said, "Start the release that made it, or a later one.")
    if there < known:
        return warning(name, place, said, upgrade, "docs/production.md")
    return well(name, place, f"of schema {there}")


def examine_spool(
    settings: SpoolSettings | None, clock: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """What waits, since when, how much room is left, and whether it is whole.

    Also what was left in the usual place before the settings named another one, or none.
    """
    yield from _examine_left_behind(settings)
    if settings is None:
        said = "off: while the store is down, runs fail and samples are missed"
        yield unknown(SPOOL, "the settings", said)
        return
    place = str(settings.directory)
    try:
        state = SpoolWatch(settings).look()
        damaged = _count_damage(settings)
    except OSError as error:
        fix = "Make it readable for this user, or mount it."
        yield wrong(SPOOL, place, f"cannot be read ({error.strerror})", fix)
        return
    findings = [*_judge_spool(state, place, clock()), *_judge_damage(state, damaged, place)]
    yield from findings
    if not findings:
        said = f"{state.points} points wait, {state.size_bytes} of {state.limit_bytes} bytes taken"
        yield well(SPOOL, place, said)


def _examine_left_behind(settings: SpoolSettings | None) -> Iterator[Finding]:
    usual = SpoolSettings.model_validate({}, context={STATE_DIR_KEY: state_dir()})
    if settings is not None and settings.directory == usual.directory:
        return
    with suppress(OSError):  # what is not to be seen from here is not ours
        if points := SpoolWatch(usual).look().points:
            yield warning(
                SPOOL,
                str(usual.directory),
                f"{points} points wait here, where the settings no longer look: nobody stores them",
                "Name it as spool.directory again until it is empty.",
                f"{RUNBOOKS}/SpoolGrowing.md",
            )


def _judge_spool(state: SpoolState, place: str, now: float) -> Iterator[Finding]:
    if state.is_nearly_full:
        kind = wrong if state.taken_share >= 1 else warning
        yield kind(
            SPOOL,
            place,
            f"{state.size_bytes} of {state.limit_bytes} bytes are taken, "
            f"{state.taken_share:.0%}; beyond it runs fail",
            "Bring the time-series store back, or raise spool.max_bytes.",
            f"{RUNBOOKS}/SpoolNearlyFull.md",
        )
    age = 0.0 if state.oldest_ns is None else now - state.oldest_ns / NS_PER_SECOND
    if age > LONG_SPOOLED_SECONDS:
        yield warning(
            SPOOL,
            place,
            f"{state.points} points wait, the oldest for {span_in_words(age)}",
            "Bring the time-series store back; whoever writes next stores them.",
            f"{RUNBOOKS}/SpoolGrowing.md",
        )


def _judge_damage(state: SpoolState, damaged: int, place: str) -> Iterator[Finding]:
    if damaged:
        yield wrong(
            SPOOL,
            place,
            f"{damaged} pieces of what waits are no whole records",
            "The replay sets them aside and goes on with the rest. Look at the disk (dmesg).",
            f"{RUNBOOKS}/SpoolDamaged.md",
        )
    if state.damaged:
        yield warning(
            SPOOL,
            place,
            f"{state.damaged} damaged pieces were set aside (*.damaged)",
            "Have those that the store takes by now stored, and move the others away: they count "
            "as taken.",
            f"{RUNBOOKS}/SpoolDamaged.md",
        )


def _count_damage(settings: SpoolSettings) -> int:
    """Pieces that are no records, with what is not of this format; but for the newest segment,
    whose last record may be being written."""
    stored_in, stored = read_position(settings.directory)
    damaged = looked_at = 0
    for segment in segments(settings.directory):
        try:
            data = segment.read_bytes()
        except FileNotFoundError:  # replayed and gone meanwhile
            continue
        if not data.startswith(FORMAT):
            damaged += 1
            continue
        begin = stored if segment.name == stored_in else len(FORMAT)
        pieces = [each for each in decode(data, begin) if isinstance(each, Damage)]
        damaged += sum(
            each.end < len(data) or not _may_grow(segment.name, settings) for each in pieces
        )
        looked_at += len(data)
        if looked_at > DECODED_BYTES:
            break
    return damaged


def _may_grow(name: str, settings: SpoolSettings) -> bool:
    there = segments(settings.directory)
    return bool(there) and there[-1].name == name


@contextmanager
def _connected(settings: Settings) -> Iterator[sa.Connection]:
    """Read only; makes nothing. Raises what SQLAlchemy raises, OSError and ConfigurationError."""
    engine = open_foreign_engine(settings.operational_database)
    try:
        with reading(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def examine_operational(
    settings: Settings, every_seconds: Mapping[str, float], clock: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """Its schema, how old each asset is against `every_seconds`, dead letters, clock and room."""
    database = settings.operational_database
    place = database.url
    try:
        if database.is_sqlite and not Path(sa.engine.make_url(place).database or "").exists():
            yield unknown(OPERATIONAL, place, NO_TABLES)
            return
        with _connected(settings) as connection:
            yield from _examine_tables(connection, place)
            there = set(sa.inspect(connection).get_table_names())
            if SNAPSHOTS.name in there:
                yield _examine_ages(connection, every_seconds, clock())
            if {DEAD_LETTERS.name, DEAD_LETTER_SIZE.name} <= there and settings.telemetry:
                yield from _examine_dead(connection, settings.telemetry.dead_letters, clock())
            if connection.dialect.name == "postgresql":
                yield judge_skew("the operational PostgreSQL", *postgresql_skew(connection, clock))
                yield judge_room(connection, settings)
    except ConfigurationError as error:
        yield wrong(OPERATIONAL, place, f"{error.where}: {error.problem}", error.fix)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        fix = "Check operational_database in the settings: address, password, rights, disk."
        yield wrong(OPERATIONAL, place, f"it cannot be read ({cause_of(error)})", fix)


def _examine_tables(connection: sa.Connection, place: str) -> Iterator[Finding]:
    there = set(sa.inspect(connection).get_table_names())
    missing = sorted(set(TABLES.tables) - there)
    if VERSIONS.name not in there and len(missing) == len(TABLES.tables):
        yield unknown(OPERATIONAL, place, NO_TABLES)
        return
    applied = 0
    if VERSIONS.name in there:
        applied = connection.execute(sa.select(sa.func.max(VERSIONS.c.version))).scalar_one() or 0
    fix = "The next run or exporter of this release changes them."
    if missing and applied == len(UPGRADES):
        said = f"there is no table {', '.join(missing)}"
        yield warning(OPERATIONAL, place, said, fix, "docs/production.md")
    else:
        yield _judge_version(OPERATIONAL, place, applied, len(UPGRADES), fix)


def _examine_ages(
    connection: sa.Connection, every_seconds: Mapping[str, float], now: float
) -> Finding:
    rows = connection.execute(sa.select(SNAPSHOTS.c.asset, SNAPSHOTS.c.complete_at_ns))
    complete = {row.asset: row.complete_at_ns for row in rows}
    late: dict[str, float] = {}
    for asset, every in every_seconds.items():
        at_ns = complete.get(asset)
        age = float("inf") if at_ns is None else now - at_ns / NS_PER_SECOND
        if age > max(SHORTEST_STALE_SECONDS, STALE_INTERVALS * every):
            late[asset] = age
    if not late:
        said = f"all {len(every_seconds)} are as new as they should be"
        return well(STALE, "the age of each asset", said)
    worst = sorted(late, key=lambda asset: -late[asset])
    told = [f"{asset} ({_age_in_words(late[asset])})" for asset in worst[:SHOWN]]
    more = f" and {len(worst) - SHOWN} more" if len(worst) > SHOWN else ""
    return wrong(
        STALE,
        "the age of each asset",
        f"{len(late)} of {len(every_seconds)} are older than three of their intervals: "
        f"{', '.join(told)}{more}",
        "What else is wrong here, or the last run of the job, says why.",
        f"{RUNBOOKS}/AssetNeverCollected.md",
    )


def _age_in_words(age: float) -> str:
    return "never complete" if age == float("inf") else f"{span_in_words(age)} old"


def _examine_dead(
    connection: sa.Connection, settings: DeadLetterSettings, now: float
) -> Iterator[Finding]:
    size = connection.execute(sa.select(DEAD_LETTER_SIZE)).one_or_none()
    rows, taken = (0, 0) if size is None else (size.row_count, size.size_bytes)
    since = round(now * NS_PER_SECOND) - LATELY_NS
    by_reason = (
        sa.select(DEAD_LETTERS.c.reason, sa.func.count())
        .where(DEAD_LETTERS.c.kept_at_ns >= since)
        .group_by(DEAD_LETTERS.c.reason)
    )
    lately = {str(reason): int(count) for reason, count in connection.execute(by_reason)}
    fix = (
        "`metrics-pipeline telemetry dead-letters` shows them; after a correction "
        "`metrics-pipeline telemetry replay --dead-letters`."
    )
    share = max(rows / settings.max_rows, taken / settings.max_bytes)
    findings: list[Finding] = []
    if sum(lately.values()) >= MANY_DEAD:
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(lately.items()))
        said = f"{sum(lately.values())} in the last hour: {told}"
        findings.append(warning(DEAD, "their table", said, fix, f"{RUNBOOKS}/DeadLetters.md"))
    if share >= NEARLY_FULL:
        said = f"the table is {share:.0%} full; then the oldest are dropped"
        findings.append(warning(DEAD, "their table", said, fix, f"{RUNBOOKS}/DeadLetters.md"))
    yield from findings or [well(DEAD, "their table", f"{rows}, {sum(lately.values())} in an hour")]
