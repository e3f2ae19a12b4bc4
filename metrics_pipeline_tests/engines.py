"""Engines of databases that tests look into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings, open_engine


@contextmanager
def engine_of(settings: DatabaseSettings) -> Iterator[sa.Engine]:
    """That of the product, disposed of afterwards."""
    engine = open_engine(settings)
    try:
        yield engine
    finally:
        engine.dispose()
