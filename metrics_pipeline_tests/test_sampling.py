"""Sources sampled on a grid, over real HTTP, into the embedded store, four slots a second."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import CATALOG, SAMPLE_SLOTS
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.fetches import from_label, to_label
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading, SampledSource
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.sampling import Sampled, Sampling
from metrics_pipeline.sampling.pace import Pace
from metrics_pipeline.storage import sampling_lease, snapshots, tallies
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.writer import Writer
from metrics_pipeline_tests.meanwhile import meanwhile
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.sampled_http import (
    FIELD,
    MEASUREMENT,
    CountServer,
    count_server,
    sampled_count,
)
from metrics_pipeline_tests.servers import wait_until

EVERY_SECONDS = 0.25
EVERY_NS = int(EVERY_SECONDS * NS_PER_SECOND)
PACE = Pace(renew_seconds=0.4, look_seconds=0.1, end_seconds=0.4, try_again_seconds=0.1)


@dataclass(slots=True)
class Stores:
    """What is written, in a folder of its own."""

    folder: Path
    clock_offset_ns: int = 0
    busy_timeout_seconds: float = 0.1
    opened: ExitStack = field(default_factory=ExitStack)

    def clock_ns(self) -> int:
        return time.time_ns() + self.clock_offset_ns

    @property
    def database_settings(self) -> DatabaseSettings:
        return DatabaseSettings(
            url=f"sqlite:///{self.folder}/operational.sqlite",
            busy_timeout_seconds=self.busy_timeout_seconds,
        )

    @property
    def store_settings(self) -> EmbeddedStoreSettings:
        return EmbeddedStoreSettings(path=self.folder / "embedded.sqlite")

    def open(self) -> tuple[Writer, OperationalDatabase]:
        writer = open_writer(self.store_settings, self.database_settings, CATALOG)
        return writer, OperationalDatabase(self.database_settings)

    def sampling(self, *sampled: Sampled, pace: Pace = PACE) -> Sampling:
        made = Sampling(sampled, self.open, self.clock_ns, pace)
        self.opened.callback(made.close)
        return made

    def points(self) -> list[Point]:
        with closing(EmbeddedStore(self.store_settings)) as store:
            return list(store.read(MEASUREMENT, 0, 2**63 - 1))

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with (
            closing(OperationalDatabase(self.database_settings)) as database,
            database.reading() as connection,
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        patient = self.database_settings.model_copy(update={"busy_timeout_seconds": 10})
        with (
            closing(OperationalDatabase(patient)) as database,
            database.writing() as connection,
        ):
            yield connection

    def slots(self, source: str = "a") -> Counter[str]:
        """By outcome, the total that the exporter shows."""
        with self.reading() as connection:
            totals = tallies.totals(connection).get(SAMPLE_SLOTS.name, {})
        split = {from_label(label): n for label, n in totals.items()}
        return Counter({outcome: n for (name, outcome), n in split.items() if name == source})

    def snapshot(self, asset: str) -> snapshots.Snapshot | None:
        with self.reading() as connection:
            return snapshots.find(connection, asset)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores(tmp_path)
    with made.opened:
        yield made


@pytest.fixture
def server() -> Iterator[CountServer]:
    with count_server() as running:
        yield running


@contextmanager
def holding(it: Sampling) -> Iterator[None]:
    """As the daemon's ticks do."""
    assert it.hold() == ""
    with meanwhile(it.hold, 0.1):
        yield


def counted(name: str, url: str) -> Sampled:
    return sampled_count(name, url, EVERY_SECONDS)


def sampled_times(stores: Stores, provider: str = "a") -> list[int]:
    return [p.time_ns for p in stores.points() if p.tags["provider"] == provider]


def test_every_slot_has_a_point_with_the_slots_time_and_each_is_counted(
    stores: Stores, server: CountServer
) -> None:
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 3, "three slots are sampled")
    it.close()
    times = sampled_times(stores)
    assert all(time_ns % EVERY_NS == 0 for time_ns in times)
    assert len(times) == len(set(times)) == stores.slots()["sampled"]
    assert times == server.slots_ns
    assert all(a >= slot for a, slot in zip(server.asked_ns, server.slots_ns, strict=True))


def test_the_latest_values_and_their_age_are_there_for_the_exporter(
    stores: Stores, server: CountServer
) -> None:
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
    it.close()
    seen = stores.snapshot("platform/a")
    assert seen is not None
    assert seen.complete_at_ns is not None
    assert [point.fields[FIELD] for point in seen.points] == [len(server.asked_ns)]


def test_a_source_that_hangs_delays_no_other_and_its_slots_are_counted_while_it_does(
    stores: Stores, server: CountServer
) -> None:
    with count_server() as hanging:
        hanging.answers.clear()
        it = stores.sampling(counted("a", hanging.url), counted("b", server.url))
        with holding(it):
            wait_until(lambda: stores.slots("a")["missed_busy"] >= 2, "what it misses is counted")
            assert stores.slots("b")["sampled"] >= 2
            hanging.answers.set()
            wait_until(lambda: stores.slots("a")["sampled"] >= 2, "it is sampled again")
        it.close()
    assert stores.slots("b")["missed_busy"] == 0
    assert len(sampled_times(stores, "a")) == stores.slots("a")["sampled"]


def test_a_source_that_does_not_answer_is_a_failed_slot_and_keeps_its_last_value(
    stores: Stores, server: CountServer
) -> None:
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
        server.is_ill = True
        wait_until(lambda: stores.slots()["failed"] >= 2, "slots fail")
        before = stores.snapshot("platform/a")
        server.is_ill = False
        sampled = stores.slots()["sampled"]
        wait_until(lambda: stores.slots()["sampled"] > sampled, "it is sampled again")
    assert before is not None
    assert len(before.points) == 1
    summary = it.ledger.take("a")
    assert summary.failures["SourceUnreachable"] >= 2
    assert "503" in summary.problem or "HTTPStatusError" in summary.problem


def test_a_source_that_cannot_be_made_is_tried_again_at_the_next_slot(
    stores: Stores, server: CountServer, caplog: pytest.LogCaptureFixture
) -> None:
    right = counted("a", server.url)
    tries = []

    def build() -> SampledSource:
        tries.append(1)
        if len(tries) < 3:
            raise ConfigurationError("platform.token", "the file is not there", "Make it.")
        return right.build()

    it = stores.sampling(Sampled("a", EVERY_SECONDS, build, "What a counts."))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "it is sampled at last")
    assert stores.slots()["failed"] == 2
    assert caplog.text.count("the file is not there") == 1


def test_a_defect_of_a_source_costs_its_own_slots_alone(
    stores: Stores, server: CountServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        name = "b"

        def read(self, time_ns: int) -> Reading:
            raise RuntimeError("as nobody thought of")

        def close(self) -> None:
            return

    broken = Sampled("b", EVERY_SECONDS, Broken, "What b counts.")
    it = stores.sampling(counted("a", server.url), broken)
    with holding(it):
        wait_until(lambda: stores.slots("b")["failed"] >= 2, "slots fail")
        wait_until(lambda: stores.slots("a")["sampled"] >= 2, "the other is sampled")
    assert caplog.text.count("sampling failed unexpectedly") == 1


def test_without_ticks_sampling_ends_and_what_passed_is_counted_by_the_next_one(
    stores: Stores, server: CountServer
) -> None:
    it = stores.sampling(counted("a", server.url), pace=replace(PACE, hold_seconds=0.6))
    it.hold()
    wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
    wait_until(lambda: _owner(stores) == "", "the lease is given back")
    asked = len(server.asked_ns)
    time.sleep(3 * EVERY_SECONDS)
    assert len(server.asked_ns) == asked
    it.hold()
    wait_until(lambda: stores.slots()["sampled"] > asked, "it is sampled again")
    gap_ns = server.slots_ns[asked] - server.slots_ns[asked - 1]
    assert 2 <= stores.slots()["missed_stopped"] <= gap_ns // EVERY_NS - 1


def _owner(stores: Stores) -> str:
    with stores.reading() as connection:
        return str(connection.exec_driver_sql("SELECT owner FROM sampling_lease").scalar_one())


def test_of_two_processes_one_samples_and_the_other_takes_over_when_it_ends(
    stores: Stores, server: CountServer
) -> None:
    first, second = (stores.sampling(counted("a", server.url)) for _ in range(2))
    with holding(first):
        assert second.hold() == first.owner
        wait_until(lambda: stores.slots()["sampled"] >= 2, "slots are sampled")
        assert second.hold() == first.owner
    first.close()
    with holding(second):
        before = stores.slots()["sampled"]
        wait_until(lambda: stores.slots()["sampled"] > before, "the second one samples")
    second.close()
    times = sampled_times(stores)
    assert len(times) == len(server.asked_ns) == stores.slots()["sampled"]


def test_one_whose_lease_another_has_taken_ends(stores: Stores, server: CountServer) -> None:
    it = stores.sampling(counted("a", server.url))
    assert it.hold() == ""
    with stores.writing() as connection:
        far = time.time_ns() + 3600 * NS_PER_SECOND
        other = sampling_lease.take(connection, it.owner, far, NS_PER_SECOND)
        connection.exec_driver_sql("UPDATE sampling_lease SET owner = 'another'")
    assert other.owner == it.owner
    wait_until(lambda: it.hold() == "another", "it has noticed")
    asked = len(server.asked_ns)
    time.sleep(2 * EVERY_SECONDS)
    assert len(server.asked_ns) == asked


def test_one_that_was_killed_is_followed_although_its_clock_was_ahead(
    stores: Stores, server: CountServer
) -> None:
    with stores.writing() as connection:
        far = time.time_ns() + 3600 * NS_PER_SECOND
        sampling_lease.take(connection, "killed", far, NS_PER_SECOND)
    it = stores.sampling(counted("a", server.url), pace=replace(PACE, lease_seconds=0.5))
    assert it.hold() == "killed"
    wait_until(lambda: it.hold() == "", "it takes over")


def test_a_clock_that_goes_back_samples_no_slot_twice(stores: Stores, server: CountServer) -> None:
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 2, "slots are sampled")
        stores.clock_offset_ns = -3 * EVERY_NS
        before = stores.slots()["sampled"]
        wait_until(lambda: stores.slots()["sampled"] > before + 1, "it goes on")
    it.close()
    times = sampled_times(stores)
    assert len(times) == len(set(times)) == stores.slots()["sampled"]
    assert missed(stores) == 0


def missed(stores: Stores) -> int:
    """But for those that a machine that is too busy has made late."""
    outcomes = stores.slots().items()
    return sum(n for name, n in outcomes if name.startswith("missed") and name != Outcome.LATE)


@pytest.mark.parametrize("is_asked", [False, True], ids=["", "while a question is on its way"])
def test_a_clock_that_goes_forward_counts_what_it_passed_and_asks_for_none_of_it(
    stores: Stores, server: CountServer, *, is_asked: bool
) -> None:
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
        with stores.writing() as connection:
            first_ns, first = accounted_in(connection)
        if is_asked:
            server.answers.clear()
            asked = len(server.asked_ns)
            wait_until(lambda: len(server.asked_ns) > asked, "a question is on its way")
        stores.clock_offset_ns = 100 * EVERY_NS
        server.answers.set()
        wait_until(lambda: stores.slots()["missed_clock"] >= 95, "what it passed is counted")
        before = stores.slots()["sampled"]
        wait_until(lambda: stores.slots()["sampled"] > before + 1, "it goes on")
    it.close()
    assert len(server.asked_ns) == stores.slots()["sampled"]
    last_ns, last = accounted(stores)
    assert last - first == (last_ns - first_ns) // EVERY_NS  # each slot once


def lock(stores: Stores) -> Callable[[], None]:
    """Hold the operational database; gives what lets it go."""
    held = OperationalDatabase(stores.database_settings)
    writing = held.writing()
    writing.__enter__()

    def let_go() -> None:
        writing.__exit__(None, None, None)
        held.close()

    return let_go


def test_while_the_operational_database_is_away_sampling_goes_on_without_ticks_and_loses_nothing(
    stores: Stores, server: CountServer
) -> None:
    """Where Dagster has the same database its ticks stay away as well."""
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
        let_go = lock(stores)
    asked = len(server.asked_ns)
    session = it._session
    assert session is not None
    session._held_until = time.monotonic()  # as it is 20 s after the last tick
    wait_until(lambda: session.is_ending or len(server.asked_ns) > asked + 3, "it goes on")
    assert not session.is_ending
    with holding(it):
        let_go()
        wait_until(lambda: stores.slots()["sampled"] > asked + 3, "all of it is counted")
    it.close()
    assert sampled_times(stores) == server.slots_ns
    assert len(server.slots_ns) == stores.slots()["sampled"]
    assert missed(stores) == 0


def test_what_waits_is_dropped_where_another_had_the_lease_meanwhile_and_gave_it_back(
    stores: Stores, server: CountServer
) -> None:
    it = stores.sampling(
        counted("a", server.url), pace=replace(PACE, renew_seconds=0.01, try_again_seconds=1.0)
    )
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
        with stores.writing() as connection:
            before = accounted_in(connection)
            asked = len(server.asked_ns)
            wait_until(lambda: len(server.asked_ns) >= asked + 3, "slots wait")
            newest_ns = server.slots_ns[-1]
            others = (newest_ns - before[0]) // EVERY_NS
            label = to_label(("a", Outcome.SAMPLED))
            tallies.add_all(connection, {SAMPLE_SLOTS.name: Counter({label: others})})
            sampling_lease.note_slot(connection, "a", newest_ns)
            sampling_lease.give_back(connection, it.owner)
        sampled = stores.slots()["sampled"]
        wait_until(lambda: stores.slots()["sampled"] > sampled, "it has begun anew")
    it.close()
    after = accounted(stores)
    assert after[1] - before[1] == (after[0] - before[0]) / EVERY_NS


def test_more_than_may_wait_for_the_store_is_given_up_and_counted(
    stores: Stores, server: CountServer
) -> None:
    it = stores.sampling(counted("a", server.url), pace=replace(PACE, most_waiting=1))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
        let_go = lock(stores)
        asked = len(server.asked_ns)
        wait_until(lambda: len(server.asked_ns) >= asked + 4, "it goes on")
        let_go()
        wait_until(lambda: stores.slots()["not_stored"] >= 1, "what is given up is counted")
    it.close()
    assert stores.slots()["sampled"] + stores.slots()["not_stored"] == len(server.asked_ns)


def test_what_a_report_is_told_is_told_once(stores: Stores, server: CountServer) -> None:
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 2, "slots are sampled")
    it.close()
    told = it.ledger.take("a")
    # As many as are counted: slots are late, too, where this machine is held up meanwhile.
    assert told.outcomes == stores.slots()
    assert told.points == len(told.delays) == len(told.durations) == stores.slots()["sampled"]
    assert it.ledger.take("a").outcomes == {}


def test_what_hangs_in_the_store_at_the_end_is_counted_once_by_who_samples_next(
    stores: Stores, server: CountServer
) -> None:
    with holding(first := stores.sampling(counted("a", server.url))):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
    first.close()
    before = accounted(stores)
    second = stores.sampling(counted("a", server.url))
    with holding(second), closing(sqlite3.connect(stores.store_settings.path)) as history:
        wait_until(lambda: stores.slots()["sampled"] >= 2, "a slot is sampled")
        history.execute("BEGIN IMMEDIATE")
        asked = len(server.asked_ns)
        wait_until(lambda: len(server.asked_ns) >= asked + 3, "slots wait for the store")
        session = second._session
        assert session is not None
        session.end()
        wait_until(lambda: stores.slots()["missed_stopped"] > 0, "the next one has begun")
        history.rollback()
        sampled = stores.slots()["sampled"]
        wait_until(lambda: stores.slots()["sampled"] > sampled + 2, "it is sampled again")
    second.close()
    wait_until(lambda: not _threads(), "what hung has ended")
    after = accounted(stores)
    assert after[1] - before[1] == (after[0] - before[0]) / EVERY_NS


def accounted(stores: Stores) -> tuple[int, int]:
    """The newest slot that is in the totals, and how many these are; while nobody samples."""
    with stores.reading() as connection:
        return accounted_in(connection)


def accounted_in(connection: sa.Connection) -> tuple[int, int]:
    """The same, in a transaction of somebody."""
    totals = tallies.totals(connection).get(SAMPLE_SLOTS.name, {})
    return sampling_lease.last_slots(connection)["a"], sum(totals.values())


def test_a_slot_that_is_asked_for_at_the_end_is_kept(stores: Stores, server: CountServer) -> None:
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        wait_until(lambda: stores.slots()["sampled"] >= 1, "a slot is sampled")
        server.answers.clear()
        asked = len(server.asked_ns)
        wait_until(lambda: len(server.asked_ns) > asked, "one is asked for")
    ending = threading.Thread(target=it.close)
    ending.start()
    wait_until(lambda: _stops(it), "the end has begun")
    server.answers.set()
    ending.join()
    assert stores.slots()["sampled"] == len(server.asked_ns) == len(sampled_times(stores))


def _stops(it: Sampling) -> bool:
    return it._session is None or it._session.is_ending


def test_a_source_that_hangs_for_ever_is_left_behind_at_the_end(
    stores: Stores, server: CountServer
) -> None:
    with count_server() as hanging:
        hanging.answers.clear()
        it = stores.sampling(counted("a", hanging.url), counted("b", server.url))
        for number in (1, 2):
            with holding(it):
                wait_until(lambda n=number: len(hanging.asked_ns) == n, "it is asked")  # type: ignore[misc]
                before = stores.slots("b")["sampled"]
                wait_until(lambda n=before: stores.slots("b")["sampled"] > n, "b is")  # type: ignore[misc]
            it.close()
            assert _owner(stores) == ""


def test_a_clock_that_goes_back_and_forth_samples_no_slot_twice(
    stores: Stores, server: CountServer
) -> None:
    it = stores.sampling(counted("a", server.url))
    with holding(it):
        for offset_ns in (0, -4 * EVERY_NS, 0, 4 * EVERY_NS, 0):
            before = stores.slots()["sampled"]
            stores.clock_offset_ns = offset_ns
            wait_until(lambda n=before: stores.slots()["sampled"] > n, "it goes on")  # type: ignore[misc]
    it.close()
    assert server.slots_ns == sorted(set(server.slots_ns)) == sampled_times(stores)
    # Each slot between the first and the last is in the totals once.
    newest_ns, slots = accounted(stores)
    assert slots == (newest_ns - server.slots_ns[0]) / EVERY_NS + 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_where_a_thread_of_it_fails_sampling_ends_and_the_next_hold_begins_anew(
    stores: Stores, server: CountServer
) -> None:
    fails = threading.Event()

    def clock_ns() -> int:
        if fails.is_set() and threading.current_thread().name == "watch samples":
            raise RuntimeError("as nobody thought of")
        return time.time_ns()

    it = Sampling([counted("a", server.url)], stores.open, clock_ns, PACE)
    with closing(it):
        it.hold()
        fails.set()
        wait_until(lambda: _owner(stores) == "", "it has ended")
        fails.clear()
        before = stores.slots()["sampled"]
        with holding(it):
            wait_until(lambda: stores.slots()["sampled"] > before, "it is sampled again")


def test_a_process_that_exits_while_it_samples_does_so_at_once_and_gives_the_lease_back(
    stores: Stores, server: CountServer
) -> None:
    command = [sys.executable, "-W", "error", "-c", EXITS, str(stores.folder), server.url]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert _owner(stores) == ""
    assert stores.slots()["sampled"] == len(server.asked_ns)


EXITS = """
import sys, time
from pathlib import Path
from metrics_pipeline_tests.test_sampling import Stores, counted

stores = Stores(Path(sys.argv[1]), busy_timeout_seconds=10)
it = stores.sampling(counted("a", sys.argv[2]))
it.hold()
while stores.slots()["sampled"] < 2:
    time.sleep(0.05)
"""


def test_after_the_end_no_thread_is_left(stores: Stores, server: CountServer) -> None:
    it = stores.sampling(counted("a", server.url), counted("b", server.url))
    it.hold()
    wait_until(lambda: len(_threads()) == 4, "its threads are there")
    it.close()
    assert _threads() == []


def _threads() -> Sequence[str]:
    return [each.name for each in threading.enumerate() if "sample" in each.name]
