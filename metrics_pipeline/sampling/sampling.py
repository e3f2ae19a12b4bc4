"""Sampling that goes on for as long as somebody holds it, in one process of several."""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence

from metrics_pipeline.sampling.ledger import Ledger
from metrics_pipeline.sampling.pace import USUAL, Pace
from metrics_pipeline.sampling.session import Session
from metrics_pipeline.sampling.slot import Sampled
from metrics_pipeline.storage import sampling_lease
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.sampling_lease import Lease
from metrics_pipeline.storage.writer import Writer


class Sampling:
    """Samples while it is held: `hold` it more often than every `pace.hold_seconds`.

    `open_stores` opens writer and operational database at the first hold. May be shared between
    threads. After the end a source that hangs leaves its thread behind, which ends with the source.
    """

    def __init__(
        self,
        sampled: Sequence[Sampled],
        open_stores: Callable[[], tuple[Writer, OperationalDatabase]],
        clock_ns: Callable[[], int] = time.time_ns,
        pace: Pace = USUAL,
    ) -> None:
        self.sampled = tuple(sampled)
        self.ledger = Ledger()
        self.owner = f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"
        self._open_stores = open_stores
        self._clock_ns = clock_ns
        self._pace = pace
        self._lock = threading.Lock()
        self._stores: tuple[Writer, OperationalDatabase] | None = None
        self._session: Session | None = None
        self._other: tuple[Lease, float] | None = None

    def hold(self) -> str:
        """Sample for `pace.hold_seconds` from now. Gives who else samples, or nothing if it is us.

        Raises StoreError where the operational database does not say who may.
        """
        with self._lock:
            if self._session is not None and self._session.is_ending:
                self._session.end()
                self._session = None
            if self._session is not None:
                self._session.hold()
                return ""
            return self._begin()

    def close(self) -> None:
        """End sampling, and give back connections; who holds it again begins anew."""
        with self._lock:
            if self._session is not None:
                self._session.end()
                self._session = None
            atexit.unregister(self.close)
            if self._stores is not None:
                for store in self._stores:
                    store.close()
                self._stores = None

    def _begin(self) -> str:
        if self._stores is None:
            self._stores = self._open_stores()
            atexit.register(self.close)  # so that who comes next need not wait for the lease to end
        database = self._stores[1]
        with database.writing() as connection:
            now_ns = self._clock_ns()
            lease = sampling_lease.take(
                connection, self.owner, now_ns, self._pace.lease_ns, self._dead()
            )
            last_slots = sampling_lease.last_slots(connection)
        if lease.owner != self.owner:
            if self._other is None or self._other[0] != lease:
                self._other = (lease, time.monotonic())
            return lease.owner
        self._other = None
        session = Session(
            self.sampled,
            self._stores,
            self.ledger,
            owner=self.owner,
            last_slots=last_slots,
            clock_ns=self._clock_ns,
            pace=self._pace,
        )
        session.start()
        self._session = session
        return ""

    def _dead(self) -> Lease | None:
        """The lease of another that has not been renewed for as long as we have looked."""
        if self._other is None:
            return None
        lease, since = self._other
        return lease if time.monotonic() - since > self._pace.lease_seconds else None
