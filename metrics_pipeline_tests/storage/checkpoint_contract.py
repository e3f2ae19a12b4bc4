"""What every `CheckpointStore` does: one suite, run over both databases and Blob Storage.

A subclass gives the fixture `place`: whatever `open_store(place, owner)`, a function of its module
that other processes can import, opens a store with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from metrics_pipeline.core.errors import CheckpointMoved, StoreError
from metrics_pipeline.core.ports import CheckpointStore
from metrics_pipeline.core.telemetry import Checkpoint, PartitionKey, Position
from metrics_pipeline_tests.at_once import at_once, last_word_of_the_killed

NAMESPACE = "plant.servicebus.windows.net"
KEY = PartitionKey(NAMESPACE, "uplinks", "$Default", "0")
KEYS = tuple(PartitionKey(NAMESPACE, "uplinks", "$Default", str(n)) for n in range(3))
PROCESSES = 4

Open = Callable[[Any, str], CheckpointStore]


def at(sequence_number: int, epoch: int, offset: str | None = None) -> Checkpoint:
    """A checkpoint; its offset follows from the sequence number."""
    offset = str(sequence_number * 48) if offset is None else offset
    return Checkpoint(Position(offset, sequence_number), epoch)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is, and how a process opens it."""

    open_store: Open
    where: Any

    def open(self, owner: str = "run 1") -> CheckpointStore:
        """The store, as `owner` writes it."""
        return self.open_store(self.where, owner)


def _race(place: Place, steps: int) -> list[int]:
    """Try every step at the same time as the others; which ones were ours."""
    mine = []
    with closing(place.open(f"process {os.getpid()}")) as store:
        for step in range(steps):
            old = at(step, 1, "start") if step == 0 else _wait_for(store, step)
            try:
                store.advance(KEY, old, at(step + 1, 1, f"process {os.getpid()}"))
            except CheckpointMoved:
                continue
            mine.append(step)
    return mine


def _wait_for(store: CheckpointStore, step: int) -> Checkpoint:
    while True:
        found = store.find(KEY)
        assert found is not None
        if found.position.sequence_number >= step:
            return found if found.position.sequence_number == step else at(step, 1, "too late")


def _claim_often(place: Place, times: int) -> list[int]:
    with closing(place.open(f"process {os.getpid()}")) as store:
        return [store.claim(KEYS) for _ in range(times)]


def _claim_and_drain(place: Place, events: int) -> list[tuple[int, int]]:
    """Be a run that is shut out again and again: which events it stored, from and to."""
    stored: list[tuple[int, int]] = []
    with closing(place.open(f"process {os.getpid()}")) as store:
        while True:
            epoch = store.claim([KEY])
            old = store.find(KEY)
            try:
                while True:
                    first = 0 if old is None else old.position.sequence_number
                    if first >= events:
                        return stored
                    new = at(first + 1, epoch)
                    store.advance(KEY, old, new)
                    stored.append((first, first + 1))
                    old = new
            except CheckpointMoved:
                continue


def _drain_for_ever(place: Place, tell: Callable[[int], None]) -> None:
    with closing(place.open("the victim")) as store:
        epoch = store.claim([KEY])
        old = store.find(KEY)
        while True:
            new = at(1 if old is None else old.position.sequence_number + 1, epoch)
            store.advance(KEY, old, new)
            tell(new.position.sequence_number)
            old = new


class CheckpointStoreContract:
    STEPS = 15
    KILLS = 5

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    @pytest.fixture
    def store(self, place: Place) -> Any:
        with closing(place.open()) as opened:
            yield opened

    # --- one reader ---------------------------------------------------------------------------

    def test_there_is_none_at_first(self, store: CheckpointStore) -> None:
        assert store.find(KEY) is None
        assert store.find_all(KEY.namespace, KEY.hub, KEY.consumer_group) == {}

    def test_it_moves_from_where_it_was_left(self, store: CheckpointStore) -> None:
        epoch = store.claim([KEY])
        assert store.find(KEY) is None
        store.advance(KEY, None, at(7, epoch))
        assert store.find(KEY) == at(7, epoch)
        store.advance(KEY, at(7, epoch), at(9, epoch))
        assert store.find(KEY) == at(9, epoch)

    def test_the_largest_numbers_and_any_offset_come_back(self, store: CheckpointStore) -> None:
        largest = at(2**63 - 1, 2**62, "0-1:4294967296/x y")
        store.advance(KEY, None, largest)
        assert store.find(KEY) == largest

    @pytest.mark.parametrize("name", ["namespace", "hub", "consumer_group", "partition"])
    def test_each_part_of_the_key_counts(self, store: CheckpointStore, name: str) -> None:
        parts = {
            "namespace": KEY.namespace,
            "hub": KEY.hub,
            "consumer_group": KEY.consumer_group,
            "partition": KEY.partition,
        }
        other = PartitionKey(**{**parts, name: "1"})
        store.advance(KEY, None, at(1, 1))
        assert store.find(other) is None
        store.advance(other, None, at(2, 1))
        assert store.find(KEY) == at(1, 1)

    def test_names_are_the_same_in_upper_and_lower_case(self, store: CheckpointStore) -> None:
        store.advance(KEY, None, at(1, 1))
        shouted = PartitionKey(NAMESPACE.upper(), "UPLINKS", "$DEFAULT", "0")
        assert store.find(shouted) == at(1, 1)
        assert store.find_all(NAMESPACE.upper(), "Uplinks", "$default") == {"0": at(1, 1)}

    def test_all_of_a_consumer_group_are_found(self, store: CheckpointStore) -> None:
        for n, key in enumerate(KEYS):
            store.advance(key, None, at(n, 1))
        store.advance(PartitionKey(NAMESPACE, "uplinks", "other", "0"), None, at(9, 1))
        store.claim([PartitionKey(NAMESPACE, "uplinks", "$Default", "99")])
        found = store.find_all(NAMESPACE, "uplinks", "$Default")
        assert found == {"0": at(0, 1), "1": at(1, 1), "2": at(2, 1)}

    def test_a_try_whose_answer_was_lost_may_be_repeated(self, store: CheckpointStore) -> None:
        store.advance(KEY, None, at(1, 1))
        store.advance(KEY, None, at(1, 1))
        store.advance(KEY, at(1, 1), at(2, 1))
        store.advance(KEY, at(1, 1), at(2, 1))
        assert store.find(KEY) == at(2, 1)

    # --- what is refused ----------------------------------------------------------------------

    @pytest.mark.parametrize(
        "wrong", [None, at(4, 2), at(5, 1), at(5, 2, "another offset"), at(6, 2)]
    )
    def test_from_anywhere_else_it_does_not_move(
        self, store: CheckpointStore, wrong: Checkpoint | None
    ) -> None:
        store.advance(KEY, None, at(5, 2))
        with pytest.raises(CheckpointMoved) as caught:
            store.advance(KEY, wrong, at(6, 3))
        assert not caught.value.retry_helps
        assert (caught.value.expected, caught.value.stored) == (wrong, at(5, 2))
        assert store.find(KEY) == at(5, 2)

    def test_from_a_checkpoint_that_was_never_made_it_does_not_move(
        self, store: CheckpointStore
    ) -> None:
        for step in ("unknown", "claimed"):
            with pytest.raises(CheckpointMoved) as caught:
                store.advance(KEY, at(5, 2), at(6, 3))
            assert caught.value.stored is None, step
            store.claim([KEY])
        assert store.find(KEY) is None

    def test_it_does_not_go_back_unless_it_is_told_to(self, store: CheckpointStore) -> None:
        store.advance(KEY, None, at(5, 1))
        with pytest.raises(StoreError, match="go back from sequence number 5 to 4"):
            store.advance(KEY, at(5, 1), at(4, 1))
        assert store.find(KEY) == at(5, 1)
        store.rewind(KEY, at(5, 1), at(4, 1))
        assert store.find(KEY) == at(4, 1)
        with pytest.raises(CheckpointMoved):
            store.rewind(KEY, at(5, 1), at(3, 1))

    def test_the_same_position_again_is_no_way_back(self, store: CheckpointStore) -> None:
        store.advance(KEY, None, at(5, 1))
        store.advance(KEY, at(5, 1), at(5, 2))
        assert store.find(KEY) == at(5, 2)

    # --- epochs -------------------------------------------------------------------------------

    def test_each_claim_gives_a_later_epoch(self, store: CheckpointStore) -> None:
        assert [store.claim(KEYS) for _ in range(3)] == [1, 2, 3]

    def test_a_claim_is_later_than_that_of_any_of_its_partitions(
        self, store: CheckpointStore
    ) -> None:
        store.claim(KEYS[:1])
        store.claim(KEYS[:1])
        store.advance(KEYS[1], None, at(3, 7))
        assert store.claim(KEYS[2:]) == 1
        assert store.claim(KEYS) == 8
        assert store.claim(KEYS[2:]) == 9

    def test_a_claim_keeps_the_position(self, store: CheckpointStore) -> None:
        store.advance(KEY, None, at(5, 1))
        epoch = store.claim([KEY])
        assert store.find(KEY) == at(5, epoch)

    def test_a_reader_of_an_earlier_epoch_is_shut_out_and_told_by_whom(
        self, place: Place, store: CheckpointStore
    ) -> None:
        first = store.claim([KEY])
        store.advance(KEY, None, at(5, first))
        with closing(place.open("run 2")) as other:
            second = other.claim([KEY])
            with pytest.raises(CheckpointMoved) as caught:
                store.advance(KEY, at(5, first), at(6, first))
            assert "written by run 2; the highest epoch claimed is 2" in str(caught.value)
            assert "should be sequence number 5 (offset '240') of epoch 1" in str(caught.value)
            other.advance(KEY, at(5, second), at(6, second))
        assert store.find(KEY) == at(6, second)

    def test_it_is_shut_out_before_there_is_any_checkpoint_too(
        self, place: Place, store: CheckpointStore
    ) -> None:
        first = store.claim([KEY])
        with closing(place.open("run 2")) as other:
            other.claim([KEY])
        with pytest.raises(CheckpointMoved, match="run 2; the highest epoch claimed is 2"):
            store.advance(KEY, None, at(6, first))
        assert store.find(KEY) is None

    def test_knowing_the_position_does_not_let_an_earlier_epoch_in(
        self, store: CheckpointStore
    ) -> None:
        store.advance(KEY, None, at(5, 2))
        with pytest.raises(CheckpointMoved):
            store.advance(KEY, at(5, 2), at(6, 1))
        assert store.find(KEY) == at(5, 2)

    # --- many at once -------------------------------------------------------------------------

    def test_of_many_writers_exactly_one_wins_each_step(
        self, place: Place, store: CheckpointStore
    ) -> None:
        store.advance(KEY, None, at(0, 1, "start"))
        wins = at_once(_race, place, self.STEPS, processes=PROCESSES)
        assert sorted(step for mine in wins for step in mine) == list(range(self.STEPS))
        found = store.find(KEY)
        assert found is not None
        assert found.position.sequence_number == self.STEPS

    def test_threads_may_share_it(self, store: CheckpointStore) -> None:
        def drain(key: PartitionKey) -> None:
            old = None
            for n in range(self.STEPS):
                new = at(n, epoch)
                store.advance(key, old, new)
                old = new

        epoch = store.claim(KEYS)
        with ThreadPoolExecutor(len(KEYS)) as threads:
            list(threads.map(drain, KEYS))
        last = at(self.STEPS - 1, epoch)
        assert store.find_all(NAMESPACE, "uplinks", "$Default") == dict.fromkeys("012", last)

    def test_no_epoch_is_given_twice(self, place: Place) -> None:
        claims = at_once(_claim_often, place, self.STEPS, processes=PROCESSES)
        assert all(mine == sorted(mine) for mine in claims), claims
        given = [epoch for mine in claims for epoch in mine]
        assert len(set(given)) == len(given) == PROCESSES * self.STEPS

    def test_readers_that_shut_each_other_out_store_every_event_once(
        self, place: Place, store: CheckpointStore
    ) -> None:
        events = 20
        stored = at_once(_claim_and_drain, place, events, processes=PROCESSES)
        assert sorted(pair for mine in stored for pair in mine) == [
            (n, n + 1) for n in range(events)
        ]

    def test_a_reader_that_is_killed_leaves_what_it_was_told_is_stored(
        self, place: Place, store: CheckpointStore
    ) -> None:
        for _ in range(self.KILLS):
            last = last_word_of_the_killed(_drain_for_ever, place)
            found = store.find(KEY)
            assert found is not None
            # What was being written when it was killed may have been written.
            assert found.position.sequence_number in (last, last + 1)
            epoch = store.claim([KEY])
            assert epoch == found.epoch + 1
