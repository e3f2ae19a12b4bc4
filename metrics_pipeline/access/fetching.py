"""Reads a source and measures what that took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from metrics_pipeline.core.fetches import Fetch
from metrics_pipeline.core.ports import Reading


def measured(
    source: str,
    read: Callable[[], Reading],
    query_type: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> Reading:
    """What `read` gives, with one fetch: its points came, and its failures did not.

    `query_type` says what the queries are for where `source` is a database; `clock` gives seconds.
    """
    began = clock()
    reading = read()
    came, failed = len(reading.points), len(reading.failures)
    fetch = Fetch(source, clock() - began, came, failed, query_type)
    return replace(reading, fetches=(*reading.fetches, fetch))
