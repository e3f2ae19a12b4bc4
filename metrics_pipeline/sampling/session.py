"""The threads of one stretch of sampling, from a first hold until nobody holds it any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from metrics_pipeline.core.errors import StoreError
from metrics_pipeline.core.sample_slots import Slots
from metrics_pipeline.sampling.keeper import Keeper
from metrics_pipeline.sampling.ledger import Ledger
from metrics_pipeline.sampling.pace import Pace
from metrics_pipeline.sampling.slot import Sampled
from metrics_pipeline.sampling.source_loop import SourceLoop
from metrics_pipeline.storage import sampling_lease
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.writer import Writer

LOG = logging.getLogger(__name__)


class Session:
    """The threads between a first hold and the end; started by `Sampling` with the lease."""

    def __init__(
        self,
        sampled: Sequence[Sampled],
        stores: tuple[Writer, OperationalDatabase],
        ledger: Ledger,
        *,
        owner: str,
        last_slots: Mapping[str, int],
        clock_ns: Callable[[], int],
        pace: Pace,
    ) -> None:
        writer, self._database = stores
        self._owner = owner
        self._clock_ns = clock_ns
        self._pace = pace
        self._held_until = time.monotonic() + pace.hold_seconds
        self._stop, self._is_drained = threading.Event(), threading.Event()
        self._keeper = Keeper(writer, self._database, ledger, owner=owner, pace=pace)
        now_ns = clock_ns()
        self._loops = [
            SourceLoop(
                each,
                Slots.beginning(each.every_seconds, now_ns, last_slots.get(each.name)),
                self._keeper.hand_in,
                self._stop,
                clock_ns,
            )
            for each in sampled
        ]
        self._asking = [
            _thread(f"sample {each.name}", loop.run)
            for each, loop in zip(sampled, self._loops, strict=True)
        ]
        self._keeping = _thread("keep samples", lambda: self._keeper.run(self._is_drained))
        self._watching = _thread("watch samples", self._watch)

    def start(self) -> None:
        """Begin."""
        for thread in (*self._asking, self._keeping, self._watching):
            thread.start()

    def hold(self) -> None:
        """Go on for `pace.hold_seconds` from now."""
        self._held_until = time.monotonic() + self._pace.hold_seconds

    @property
    def is_ending(self) -> bool:
        """Whether no more slots are begun."""
        return self._stop.is_set()

    def end(self) -> None:
        """Begin no slot any more, keep what was sampled, give the lease back."""
        self._stop.set()
        self._watching.join(3 * self._pace.end_seconds)

    def _watch(self) -> None:
        try:
            self._watch_until_end()
        finally:  # also after a defect: nobody would end what nobody watches
            self._finish()

    def _watch_until_end(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(self._pace.look_seconds):
            for loop in self._loops:
                loop.count_hang()
            if not all(thread.is_alive() for thread in (*self._asking, self._keeping)):
                LOG.error("sampling ends: a thread of it has failed; the next tick begins anew")
                return
            if self._is_held and time.monotonic() - renewed < self._pace.renew_seconds:
                continue
            renewed = time.monotonic()
            if not self._renew():
                return

    @property
    def _is_held(self) -> bool:
        return time.monotonic() <= self._held_until

    def _renew(self) -> bool:
        """Whether it may go on: while it is held and has the lease, or the database is away."""
        asked = time.monotonic()
        try:
            with self._database.writing() as connection:
                now_ns, lease_ns = self._clock_ns(), self._pace.lease_ns  # connecting takes a while
                is_ours = sampling_lease.renew(connection, self._owner, now_ns, lease_ns)
        except StoreError:
            self.hold()  # where Dagster has the same database no tick can come
            return True  # the keeping thread tells
        if not is_ours:
            LOG.warning("sampling ends: another process has had the lease meanwhile")
            return False
        if time.monotonic() - asked > self._pace.renew_seconds:
            self.hold()  # it was away for so long
        if not self._is_held:
            LOG.info("sampling ends: no tick of the sensor for %g s", self._pace.hold_seconds)
        return self._is_held

    def _finish(self) -> None:
        self._stop.set()
        deadline = time.monotonic() + self._pace.end_seconds
        for thread in self._asking:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._is_drained.set()
        self._keeping.join(self._pace.end_seconds)
        self._keeper.abandon()
        with suppress(StoreError), self._database.writing() as connection:
            sampling_lease.give_back(connection, self._owner)


def _thread(name: str, run: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=run, name=name, daemon=True)
