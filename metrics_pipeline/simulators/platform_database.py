"""A database of a platform and of a scraper, and a process that changes it step by step.

Devices fall silent and come back, alerts are opened and closed, deliveries wait and go out; runs
scrape a roaster's prices, some of which changed, and stock sells out. Any SQLAlchemy engine will
do: SQLite for `make run`, PostgreSQL in the tests. What is older than `KEPT` is deleted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.simulators.platform_tables import (
    DELIVERY_JOBS,
    DEVICE_STATE,
    FLEET_ALERT,
    PLATFORM,
    PRICES,
    SCRAPE_ARTIFACTS,
    SCRAPE_RUNS,
    VARIANTS,
)

LOG = logging.getLogger(__name__)

DEVICES, ROASTERS, VARIANTS_EACH = 40, 4, 12
KEPT = timedelta(days=2)
RUNS_BEFORE = 40
"""Runs of the 20 hours before, so that there is something to see at once."""

RUN_STATUSES = ("success", "success", "success", "failed", "partial")
HTTP_STATUSES = (200, 200, 200, 200, 304, 404, 500, None)
CHANGE_CHANCE, STOCK_CHANCE, REVIEW_CHANCE = 0.2, 0.05, 0.1


def create_platform(engine: sa.Engine, now: datetime, random: Random) -> None:
    """Make the tables, and fill those that are empty. Raises what SQLAlchemy raises."""
    PLATFORM.create_all(engine)
    with engine.begin() as connection:
        if connection.scalar(sa.select(sa.func.count()).select_from(DEVICE_STATE)):
            return
        connection.execute(
            sa.insert(DEVICE_STATE),
            [
                {"device_id": f"simulated-{n:03d}", "status": "ONLINE", "last_seen_at": now}
                for n in range(DEVICES)
            ],
        )
        connection.execute(
            sa.insert(VARIANTS),
            [
                {"roaster_id": 1 + n // VARIANTS_EACH, "in_stock": True}
                for n in range(ROASTERS * VARIANTS_EACH)
            ],
        )
        for number in range(RUNS_BEFORE):
            _scrape(connection, now - timedelta(minutes=30 * (RUNS_BEFORE - number)), random)


def step_platform(engine: sa.Engine, now: datetime, random: Random) -> None:
    """Let some time pass. Raises what SQLAlchemy raises."""
    with engine.begin() as connection:
        _move_devices(connection, now, random)
        _move_queue(connection, FLEET_ALERT, ("OPEN", "CLOSED"), now, random)
        _move_queue(connection, DELIVERY_JOBS, ("PENDING", "DELIVERED"), now, random)
        _scrape(connection, now, random)
        _delete_old(connection, now)


@contextmanager
def serve_platform_database(file: Path, *, step_seconds: float, seed: int) -> Iterator[None]:
    """Keep such a database in the SQLite file `file`, which changes every `step_seconds`.

    Raises OSError or what SQLAlchemy raises when it cannot be made; later failures are logged.
    """
    random = Random(seed)  # noqa: S311  (dice of a simulation, not a key)
    stop = threading.Event()
    engine = open_engine(DatabaseSettings(url=f"sqlite:///{file}"))
    create_platform(engine, datetime.now(UTC), random)
    changing = threading.Thread(
        target=_change, args=(engine, step_seconds, random, stop), name="platform-database"
    )
    changing.start()
    try:
        yield
    finally:
        stop.set()
        changing.join()
        engine.dispose()


def _change(engine: sa.Engine, step_seconds: float, random: Random, stop: threading.Event) -> None:
    while not stop.wait(step_seconds):
        try:
            step_platform(engine, datetime.now(UTC), random)
        except sa.exc.SQLAlchemyError as error:
            LOG.warning("the simulated platform could not be changed: %s", error)


def _move_devices(connection: sa.Connection, now: datetime, random: Random) -> None:
    for number in random.sample(range(DEVICES), 3):
        status = random.choice(("ONLINE", "ONLINE", "STALE", "OFFLINE"))
        device = DEVICE_STATE.c.device_id == f"simulated-{number:03d}"
        changed = {"status": status, "last_seen_at": now}
        connection.execute(sa.update(DEVICE_STATE).where(device).values(changed))


def _move_queue(
    connection: sa.Connection,
    table: sa.Table,
    statuses: Sequence[str],
    now: datetime,
    random: Random,
) -> None:
    """Some come in, and about as many of those that wait are done."""
    waiting, done = statuses
    new = [{"status": waiting, "created_at": now} for _ in range(random.randrange(4))]
    if new:
        connection.execute(sa.insert(table), new)
    ids = connection.scalars(sa.select(table.c.id).where(table.c.status == waiting)).all()
    finished = [id_ for id_ in ids if random.random() < 0.3]  # noqa: PLR2004
    connection.execute(sa.update(table).where(table.c.id.in_(finished)).values(status=done))


def _scrape(connection: sa.Connection, now: datetime, random: Random) -> None:
    """One run of one roaster: artifacts, prices of which some changed, stock."""
    roaster = 1 + random.randrange(ROASTERS)
    began = now - timedelta(seconds=random.uniform(2, 20))
    connection.execute(
        sa.insert(SCRAPE_RUNS).values(
            roaster_id=roaster,
            status=random.choice(RUN_STATUSES),
            started_at=began,
            finished_at=now,
        )
    )
    connection.execute(
        sa.insert(SCRAPE_ARTIFACTS),
        [_artifact(roaster, random) for _ in range(random.randrange(1, 8))],
    )
    of_roaster = VARIANTS.c.roaster_id == roaster
    variants = connection.scalars(sa.select(VARIANTS.c.id).where(of_roaster)).all()
    prices = [_price(connection, variant, now, random) for variant in variants]
    connection.execute(sa.insert(PRICES), prices)
    turned = [variant for variant in variants if random.random() < STOCK_CHANCE]
    changed = sa.update(VARIANTS).where(VARIANTS.c.id.in_(turned))
    connection.execute(changed.values(in_stock=sa.not_(VARIANTS.c.in_stock)))


def _artifact(roaster: int, random: Random) -> dict[str, object]:
    http_status = random.choice(HTTP_STATUSES)
    has_body = http_status == 200  # noqa: PLR2004
    return {
        "roaster_id": roaster,
        "http_status": http_status,
        "body_len": random.randrange(5_000, 300_000) if has_body else None,
        "needs_review": has_body and random.random() < REVIEW_CHANCE,
    }


def _price(
    connection: sa.Connection, variant: int, now: datetime, random: Random
) -> dict[str, object]:
    newest = (
        sa.select(PRICES.c.price)
        .where(PRICES.c.variant_id == variant)
        .order_by(PRICES.c.scraped_at.desc())
        .limit(1)
    )
    price = connection.scalar(newest) or random.randrange(800, 3000) / 100
    if random.random() < CHANGE_CHANCE:
        price = round(price * random.uniform(0.9, 1.1), 2)
    return {"variant_id": variant, "price": price, "scraped_at": now}


def _delete_old(connection: sa.Connection, now: datetime) -> None:
    oldest = now - KEPT
    connection.execute(sa.delete(PRICES).where(PRICES.c.scraped_at < oldest))
    connection.execute(sa.delete(SCRAPE_RUNS).where(SCRAPE_RUNS.c.finished_at < oldest))
    for table in (FLEET_ALERT, DELIVERY_JOBS):
        connection.execute(sa.delete(table).where(table.c.created_at < oldest))
    newest = connection.scalar(sa.select(sa.func.max(SCRAPE_ARTIFACTS.c.id))) or 0
    most = 100_000  # no column says how old an artifact is
    connection.execute(sa.delete(SCRAPE_ARTIFACTS).where(SCRAPE_ARTIFACTS.c.id <= newest - most))
