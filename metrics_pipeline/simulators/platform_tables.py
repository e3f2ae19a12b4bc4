"""The tables that the sets `platform` and `scrape_pipeline` read, as a platform would have them.

Names and states are those of the product's contract; `needs_review` and the keys are ours. SQLite
keeps times as text in UTC, `2026-01-31 12:00:00.000000`, as SQLAlchemy writes them. The indexes are
those that docs/sql-metrics.md advises.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

PLATFORM = sa.MetaData()


def _time(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True))


DEVICE_STATE = sa.Table(
    "device_state",
    PLATFORM,
    sa.Column("device_id", sa.String, primary_key=True),
    sa.Column("status", sa.String, nullable=False),
    _time("last_seen_at"),
    sa.Index("device_state_status", "status"),
)

FLEET_ALERT = sa.Table(
    "fleet_alert",
    PLATFORM,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("status", sa.String, nullable=False),
    _time("created_at"),
    sa.Index("fleet_alert_status", "status"),
)

DELIVERY_JOBS = sa.Table(
    "delivery_jobs",
    PLATFORM,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("status", sa.String, nullable=False),
    _time("created_at"),
    sa.Index("delivery_jobs_status", "status"),
)

SCRAPE_RUNS = sa.Table(
    "scrape_runs",
    PLATFORM,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("roaster_id", sa.Integer),
    sa.Column("status", sa.String),
    _time("started_at"),
    _time("finished_at"),
    sa.Index("scrape_runs_status", "roaster_id", "status", "finished_at"),
    sa.Index("scrape_runs_finished", "finished_at"),
)
_SUCCEEDED = SCRAPE_RUNS.c.status == "success"
sa.Index(
    "scrape_runs_succeeded",
    SCRAPE_RUNS.c.finished_at,
    postgresql_where=_SUCCEEDED,
    sqlite_where=_SUCCEEDED,
)

SCRAPE_ARTIFACTS = sa.Table(
    "scrape_artifacts",
    PLATFORM,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("roaster_id", sa.Integer),
    sa.Column("http_status", sa.Integer),
    sa.Column("body_len", sa.BigInteger),
    sa.Column("needs_review", sa.Boolean),
    sa.Index("scrape_artifacts_status", "http_status", "roaster_id"),
)

VARIANTS = sa.Table(
    "variants",
    PLATFORM,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("roaster_id", sa.Integer),
    sa.Column("in_stock", sa.Boolean),
)

PRICES = sa.Table(
    "prices",
    PLATFORM,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("variant_id", sa.Integer),
    sa.Column("price", sa.Numeric(10, 2, asdecimal=False)),
    _time("scraped_at"),
    sa.Index("prices_variant", "variant_id", "scraped_at", "price"),
    sa.Index("prices_scraped", "scraped_at", "variant_id", "price"),
)
