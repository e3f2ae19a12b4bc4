"""Stores what was sampled, and counts slots in the same transaction; no source waits for it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping

import sqlalchemy as sa

from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.fetches import Totals, add_up
from metrics_pipeline.core.platform_assets import sampled_asset
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.sampling.ledger import Ledger
from metrics_pipeline.sampling.pace import Pace
from metrics_pipeline.sampling.slot import Slot
from metrics_pipeline.storage import sampling_lease, tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.writer import Writer

LOG = logging.getLogger(__name__)


class Keeper:
    """Stores and counts slots in the order in which they come; the body of one thread."""

    def __init__(
        self,
        writer: Writer,
        database: OperationalDatabase,
        ledger: Ledger,
        *,
        owner: str,
        pace: Pace,
    ) -> None:
        self._writer = writer
        self._owner = owner
        self._database = database
        self._ledger = ledger
        self._pace = pace
        self._changed = threading.Condition()
        self._waiting: deque[Slot] = deque()
        self._given_up: Totals = {}
        self._is_ill = False
        self._is_abandoned = False

    def hand_in(self, slot: Slot) -> None:
        """Take one more; never waits for the store."""
        with self._changed:
            if self._is_abandoned:
                return
            self._waiting.append(slot)
            if len(self._waiting) > self._pace.most_waiting:
                oldest = self._waiting.popleft().not_stored()
                self._given_up = add_up(self._given_up, oldest.totals)
                self._ledger.add(oldest, {})
            self._changed.notify()

    def abandon(self) -> None:
        """Forget what waits: who samples next counts it as missed, so it must not be kept too."""
        with self._changed:
            self._waiting.clear()
            self._is_abandoned = True

    def run(self, stop: threading.Event) -> None:
        """Keep what comes until `stop` is set, and then what is left, unless the store is ill."""
        while not stop.is_set():
            with self._changed:
                if not self._waiting:
                    self._changed.wait(self._pace.look_seconds)
            if not self._keep_waiting():
                stop.wait(self._pace.try_again_seconds)
        self._keep_waiting()

    def _keep_waiting(self) -> bool:
        """Whether all that waited is kept, or is no longer ours to keep."""
        if self._is_ill and not self._is_database_back():
            return False
        while (slot := self._next()) is not None:
            try:
                self._ledger.add(slot, self._store(slot))
            except StoreError as error:
                self._say(error)
                # Where trying again does not help, that the slot is lost is to be counted still.
                rest = slot if error.retry_helps else slot.not_stored(error)
                self._put_back(rest)
                if rest is slot:
                    return False
            else:
                self._say(None)
        return True

    def _is_database_back(self) -> bool:
        """Asked before points are stored again: who has the lease by now has accounted for them."""
        try:
            with self._database.writing() as connection:
                has_lease = sampling_lease.has(connection, self._owner)
        except StoreError:
            return False
        if not has_lease:
            self.abandon()
        return True

    def _next(self) -> Slot | None:
        with self._changed:
            return self._waiting.popleft() if self._waiting else None

    def _put_back(self, slot: Slot) -> None:
        with self._changed:
            if not self._is_abandoned:
                self._waiting.appendleft(slot)

    def _store(self, slot: Slot) -> Mapping[str, int]:
        """The points that were rejected, by reason."""
        with self._changed:
            given_up, self._given_up = self._given_up, {}
        try:
            return self._account(slot, add_up(slot.totals, given_up))
        except StoreError:
            with self._changed:
                self._given_up = add_up(given_up, self._given_up)
            raise

    def _account(self, slot: Slot, totals: Totals) -> Mapping[str, int]:
        def account(connection: sa.Connection) -> None:
            # Where the store hung for longer than the lease, who samples now has counted it.
            if not sampling_lease.has(connection, self._owner) or self._is_abandoned:
                return
            # Tried again after a commit whose answer was lost, it is there already.
            if sampling_lease.last_slots(connection).get(slot.source) != slot.slot_ns:
                tallies.add_all(connection, totals)
                sampling_lease.note_slot(connection, slot.source, slot.slot_ns)

        if slot.outcome is Outcome.SAMPLED:
            return self._writer.write(sampled_asset(slot.source), slot.reading, account).rejected
        with self._database.writing() as connection:
            account(connection)
        return {}

    def _say(self, error: StoreError | None) -> None:
        """Once per change of state."""
        if error is not None and not self._is_ill:
            LOG.warning("samples are not stored: %s", error)
        elif error is None and self._is_ill:
            LOG.info("samples are stored again")
        self._is_ill = error is not None
