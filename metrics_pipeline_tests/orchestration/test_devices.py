"""Device polls through Dagster: from an inventory of simulated devices to latest values."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import dagster as dg
import pytest
import sqlalchemy as sa

from metrics_pipeline.access.database import open_engine
from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.catalog import CATALOG, DEVICE_STATUS
from metrics_pipeline.core.device_assets import STATUS, metrics_asset, part_of, shard_of
from metrics_pipeline.core.errors import SourceUnreachable
from metrics_pipeline.core.fetches import from_label, histograms
from metrics_pipeline.core.points import Point
from metrics_pipeline.orchestration.assets.devices import build_device_assets
from metrics_pipeline.orchestration.resources import build_resources
from metrics_pipeline.orchestration.run_time import SCHEDULED_TAG, to_ns
from metrics_pipeline.orchestration.status_grid import StatusGrid
from metrics_pipeline.settings import Settings
from metrics_pipeline.simulators.device_fleet import Behaviour, make_devices
from metrics_pipeline.simulators.device_servers import serve_device_fleet
from metrics_pipeline.sources.inventory import Inventory
from metrics_pipeline.storage import snapshots, tallies
from metrics_pipeline.storage.embedded import EmbeddedStore
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.orchestration.pipeline import failure_text

SNMP, SSH = metrics_asset("snmp"), metrics_asset("ssh")
STATUS_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Now(StatusGrid):
    """A grid of some slots, all of which are due now, though they are 30 s apart."""

    last: int = 0
    """The last of them."""
    before: Sequence[Callable[[], None]] = (lambda: None,)
    """Called before each slot, of which there are as many."""

    def slots(self, now_seconds: float) -> Iterator[int]:
        """Instead of those of the window."""
        for left, happen in zip(range(len(self.before))[::-1], self.before, strict=True):
            happen()
            yield self.last - left * self.every_seconds

    def is_in_time(self, slot: int, now_seconds: float, last_took: float) -> bool:
        """Always."""
        return True


@dataclass(slots=True)
class Polls:
    """Runs single assets, and looks at what they left."""

    settings: Settings
    instance: dg.DagsterInstance
    slot: int = field(default_factory=lambda: int(time.time()) // STATUS_SECONDS * STATUS_SECONDS)
    """The present one; it stays so, however long the runs take."""

    def run(
        self,
        key: str,
        *before: Callable[[], None],
        shard: str | None = None,
        due: datetime | None = None,
        back: int = 0,
    ) -> dg.ExecuteInProcessResult:
        """One run; a status run sweeps once, or after each of `before`, `back` slots ago."""
        last = self.slot - back * STATUS_SECONDS
        grid = Now(STATUS_SECONDS, last, before or (lambda: None,))
        assets = build_device_assets(self.settings, grid)
        wanted = [asset for asset in assets if asset.key == dg.AssetKey.from_user_string(key)]
        return dg.materialize(
            wanted,
            instance=self.instance,
            resources=dict(build_resources(self.settings)),
            raise_on_error=False,
            partition_key=shard,
            tags={SCHEDULED_TAG: due.isoformat()} if due else {},
        )

    def latest(self, key: str) -> tuple[Point, ...]:
        """What the exporter would show of the asset, or of a shard of it."""
        writer = open_writer(self.settings.store, self.settings.operational_database, CATALOG)
        try:
            snapshot = writer.latest(key)
        finally:
            writer.close()
        return snapshot.points if snapshot else ()

    def date(self, key: str, seconds_of: Callable[[str], int]) -> None:
        """Make what is shown of each device of the asset as old as `seconds_of` its name."""
        database = OperationalDatabase(self.settings.operational_database)
        points = (
            replace(p, time_ns=seconds_of(p.tags["device_id"]) * 10**9) for p in self.latest(key)
        )
        with database.writing() as connection:
            snapshots.replace(connection, key, tuple(points), 1)
        database.close()

    def totals(self) -> dict[str, dict[str, int]]:
        """What an exporter's counters are made of."""
        with (
            closing(OperationalDatabase(self.settings.operational_database)) as database,
            database.reading() as connection,
        ):
            return tallies.totals(connection)

    def metadata(self, key: str) -> dict[str, Any]:
        """Of the asset's last materialization."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey.from_user_string(key))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    def stored(self, device: str) -> list[str]:
        """The statuses of a device that the store has, oldest first."""
        store = EmbeddedStore(self.settings.store)  # type: ignore[arg-type]
        try:
            points = store.read(DEVICE_STATUS.name, 0, 2**62)
        finally:
            store.close()
        return [str(p.fields["status"]) for p in points if p.tags["device_id"] == device]

    def change(self, statement: sa.Executable) -> None:
        """Change the inventory."""
        engine = open_engine(self.settings.source("inventory").database)  # type: ignore[union-attr]
        with engine.begin() as connection:
            connection.execute(statement)
        engine.dispose()

    def keep(self, behaviours: Collection[Behaviour]) -> int:
        """Take all other devices out of the inventory; how many are left."""
        kept = [e.device.id for e in make_devices(Random(1)) if e.behaviour in behaviours]
        self.change(sa.delete(DEVICES).where(DEVICES.c.id.not_in(kept)))
        return len(kept)


@contextmanager
def polls(folder: Path, **sweeps: Any) -> Iterator[Polls]:
    """The simulated devices, served and in the inventory."""
    settings = make_settings(folder, **sweeps)
    inventory = open_engine(settings.source("inventory").database)  # type: ignore[union-attr]
    with (
        serve_device_fleet(
            directory=folder / "devices", inventory=inventory, step_seconds=3600, seed=1
        ),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        yield Polls(settings, instance)
    inventory.dispose()


def make_settings(folder: Path, **sweeps: Any) -> Settings:
    polling = {
        "enabled": True,
        "status_by": "protocol",
        "snmp": {
            "timeout_seconds": 1,
            "tries": 1,
            "credentials": {"simulated-snmp": {"community": {"file": "devices/snmp_community"}}},
        },
        "ssh": {
            "known_hosts": "devices/known_hosts",
            "credentials": {
                "simulated-ssh-key": {"user": "metrics", "key_file": "devices/ssh_key"},
                "simulated-ssh-password": {
                    "user": "metrics",
                    "password": {"file": "devices/ssh_password"},
                },
            },
        },
        **sweeps,
    }
    document = {
        "version": 1,
        "sources": {"inventory": {"database": {"url": "sqlite:///inventory.sqlite"}}},
        "polling": polling,
    }
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


def test_every_device_of_the_inventory_has_a_status(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        result = it.run(STATUS)
        points = it.latest(STATUS)
        metadata = it.metadata(STATUS)
    assert result.success
    assert len({point.tags["device_id"] for point in points}) == metadata["devices"] == 60
    assert set(statuses(points).values()) == {"online", "offline"}
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks["every_device_has_a_result"]
    assert checks["values_are_in_range"]


def test_a_sweep_is_a_fetch_of_its_devices_and_the_inventory_a_query(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        it.run(SSH)
        metadata = it.metadata(SSH)
        it.change(sa.text("ALTER TABLE devices RENAME TO elsewhere"))
        it.run(SSH)
        totals = it.totals()
        shown = it.settings.fetched_sources()
    asked = {from_label(k): n for k, n in totals["artifacts_total"].items()}
    silent = metadata.get("devices_silent", 0)
    assert asked[SSH, "ok"] + asked.get((SSH, "failed"), 0) == metadata["devices_asked"] > 0
    assert asked.get((SSH, "failed"), 0) >= silent
    queries = {from_label(k): n for k, n in totals["database_queries_total"].items()}
    assert queries == {("inventory", "true"): 1, ("inventory", "false"): 1}
    found = histograms(totals)
    assert found[SSH,].buckets[-1] == ("+Inf", 1)
    assert found[SSH,].sum_seconds == pytest.approx(metadata["sweep_seconds"], abs=0.001)
    assert {source for (source,) in found} <= shown


@pytest.mark.parametrize(("key", "protocol"), [(SNMP, "snmp"), (SSH, "ssh")])
def test_metrics_of_devices_reach_the_latest_values(
    tmp_path: Path, key: str, protocol: str
) -> None:
    with polls(tmp_path) as it:
        assert it.run(key).success
        names = {point.tags["metric_name"] for point in it.latest(key)}
        metadata = it.metadata(key)
    assert {"uptime_seconds", "memory_utilization_percent"} <= names
    assert metadata["points_stored"] == len(it.latest(key))
    assert metadata["devices_complete"] > metadata["devices"] / 2


@pytest.mark.parametrize("key", [STATUS, SNMP])
def test_a_run_has_as_many_events_for_sixty_devices_as_for_one(tmp_path: Path, key: str) -> None:
    """One materialization a device in one run gets slower and slower."""

    def events(it: Polls) -> Counter[dg.DagsterEventType | None]:
        result = it.run(key)
        return Counter(each.dagster_event_type for each in it.instance.all_logs(result.run_id))

    with polls(tmp_path) as it:
        of_all = events(it)
        one = sa.select(sa.func.min(DEVICES.c.id)).where(DEVICES.c.protocol == "snmp")
        it.change(sa.delete(DEVICES).where(DEVICES.c.id.not_in(one)))
        of_one = events(it)
        assert it.metadata(key)["devices"] == 1
    assert of_all[dg.DagsterEventType.ASSET_MATERIALIZATION] == 1
    of_log = None  # a device that a busy machine made late may be a line more
    assert of_all.pop(of_log) < of_one.pop(of_log) + 50
    assert of_all == of_one


@pytest.mark.parametrize(
    ("key", "counted"),
    [
        (SNMP, {Behaviour.LYING: "partial", Behaviour.CIRCLING: "partial"}),
        (SNMP, {Behaviour.WRONG_TYPES: "parse", Behaviour.WRONG_REQUEST: "timeout"}),
        (SSH, {Behaviour.LYING: "parse", Behaviour.CHANGED_KEY: "auth"}),
        (SSH, {Behaviour.DEAD: "timeout", Behaviour.WRONG_CLOCK: "complete"}),
    ],
)
def test_each_device_that_lies_is_counted_with_its_reason_and_costs_no_other(
    tmp_path: Path, key: str, counted: dict[Behaviour, str]
) -> None:
    protocol = "snmp" if key == SNMP else "ssh"
    everybody = [each for each in make_devices(Random(1)) if each.device.protocol == protocol]
    some = [e for e in everybody if e.behaviour in {Behaviour.HEALTHY, *counted}]
    with polls(tmp_path) as it:
        it.keep({Behaviour.HEALTHY, *counted})
        assert it.run(key).success
        metadata = it.metadata(key)
    expected = Counter(counted.get(each.behaviour, "complete") for each in some)
    assert metadata.pop("devices_asked") == len(some)
    found = {name.removeprefix("devices_"): n for name, n in metadata.items() if "devices_" in name}
    assert found == dict(expected)
    assert metadata["devices"] == len(some)


def test_a_device_that_is_disabled_or_gone_is_neither_asked_nor_shown(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        it.change(sa.update(DEVICES).values(enabled=False).where(DEVICES.c.protocol != "tcp"))
        assert it.run(STATUS).success
        assert len(statuses(it.latest(STATUS))) == 10


def test_half_of_the_fleet_dead_is_a_result_and_a_warning(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        nobody = sa.update(DEVICES).values(port=9).where(DEVICES.c.protocol == "snmp")
        it.change(nobody)
        result = it.run(STATUS)
        offline = [s for s in statuses(it.latest(STATUS)).values() if s == "offline"]
    assert result.success
    assert len(offline) >= 40
    checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert not checks["few_devices_are_silent"].passed
    assert checks["few_devices_are_silent"].severity is dg.AssetCheckSeverity.WARN


def test_a_credential_that_is_not_there_costs_its_devices_and_no_others(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        (tmp_path / "devices" / "snmp_community").unlink()
        assert it.run(SNMP).success
        assert it.latest(SNMP) == ()
        assert it.metadata(SNMP)["devices_credential"] == 40
        assert it.run(SSH).success
        assert it.latest(SSH) != ()


def test_new_devices_that_nobody_can_ask_have_a_status_too_and_the_failures_say_why(
    tmp_path: Path,
) -> None:
    with polls(tmp_path) as it:
        (tmp_path / "devices" / "snmp_community").unlink()
        it.change(sa.delete(DEVICES).where(DEVICES.c.protocol != "snmp"))
        assert it.run(STATUS).success
        assert Counter(statuses(it.latest(STATUS)).values()) == {"offline": 40}
        metadata = it.metadata(STATUS)
    assert metadata["devices_credential"] == 40
    assert {row.data["outcome"] for row in metadata["failures"].records} == {"credential"}


def test_an_inventory_that_cannot_be_read_fails_the_step_and_the_values_stay(
    tmp_path: Path,
) -> None:
    with polls(tmp_path) as it:
        it.run(SSH)
        before = it.latest(SSH)
        it.change(sa.text("ALTER TABLE devices RENAME TO elsewhere"))
        result = it.run(SSH)
        assert not result.success
        assert it.latest(SSH) == before
    assert "inventory: reading" in failure_text(result)


def test_without_a_spool_a_store_that_is_gone_fails_the_step_in_words(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        it.settings = it.settings.model_copy(update={"spool": None})
        (tmp_path / "embedded.sqlite").mkdir()
        result = it.run(SSH)
    assert not result.success
    assert "embedded store" in failure_text(result)


def statuses(points: Sequence[Point]) -> dict[str, str]:
    """Of each device."""
    return {p.tags["device_id"]: str(p.fields["status"]) for p in points if "status" in p.fields}


def answers(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """The checks of a run, by name."""
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def silence(device: str) -> sa.Update:
    """The device is where nobody answers."""
    return sa.update(DEVICES).values(port=9).where(DEVICES.c.id == device)


def test_a_device_goes_offline_with_its_second_miss_and_was_so_since_the_first(
    tmp_path: Path,
) -> None:
    gone = "simulated-switch-101"
    with polls(tmp_path) as it:
        it.keep({Behaviour.HEALTHY})
        assert it.run(STATUS, back=2).success
        assert statuses(it.latest(STATUS))[gone] == "online"
        it.change(silence(gone))
        assert it.run(STATUS, back=1).success
        assert statuses(it.latest(STATUS))[gone] == "online"
        assert it.run(STATUS).success, "the miss of the last run counts"
        assert statuses(it.latest(STATUS))[gone] == "offline"
        assert it.stored(gone) == ["online", "offline", "offline"]
        changes = it.metadata(STATUS)["changes"].records
    assert [(row.data["device_id"], row.data["status"]) for row in changes] == [(gone, "offline")]


def test_a_status_run_sweeps_in_every_slot_and_tells_of_each(tmp_path: Path) -> None:
    with polls(tmp_path, missed_answers=1) as it:
        gone = "simulated-switch-101"
        kept = it.keep({Behaviour.HEALTHY})
        result = it.run(STATUS, lambda: None, lambda: it.change(silence(gone)), lambda: None)
        metadata = it.metadata(STATUS)
    assert result.success
    rounds = [row.data for row in metadata["sweeps"].records]
    assert [row["asked"] for row in rounds] == [kept, kept, kept]
    assert metadata["sweeps_left_out"] == 0
    assert [row["changed"] for row in rounds] == [0, 1, 0]
    assert metadata["devices_changed"] == 1
    changes = [(row.data["device_id"], row.data["status"]) for row in metadata["changes"].records]
    assert changes == [(gone, "offline")]


def test_a_slow_type_is_judged_with_the_others_and_asked_again_after_a_failure(
    tmp_path: Path,
) -> None:
    store = tmp_path / "embedded.sqlite"

    def break_store() -> None:
        store.mkdir()

    def mend_store() -> None:
        store.rmdir()

    types = {"camera": {"status_every_seconds": 300}}
    with polls(tmp_path, device_types=types) as it:
        it.settings = it.settings.model_copy(update={"spool": None})
        result = it.run(STATUS, break_store, mend_store, lambda: None)
        metadata = it.metadata(STATUS)
        assert len(statuses(it.latest(STATUS))) == 60
    rounds = [row.data["asked"] for row in metadata["sweeps"].records]
    assert rounds[0] == 60
    assert rounds[1] in {54, 60}  # all, where a slot of the slow type has begun meanwhile
    assert metadata["devices_asked"] == 60
    assert answers(result)["every_device_has_a_result"].passed


def test_who_is_pinged_has_a_round_trip_time(tmp_path: Path) -> None:
    with polls(tmp_path, status_by="ping") as it:
        assert it.run(STATUS).success
        names = {p.tags.get("metric_name") for p in it.latest(STATUS)}
    assert names == {None, "ping_status", "ping_rtt_ms"}


def test_an_inventory_that_goes_away_in_a_status_run_costs_no_sweep(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        gone = sa.text("ALTER TABLE devices RENAME TO elsewhere")
        result = it.run(STATUS, lambda: None, lambda: it.change(gone))
        assert result.success
        assert [row.data["asked"] for row in it.metadata(STATUS)["sweeps"].records] == [60, 60]


@pytest.mark.parametrize("has_spool", [True, False])
def test_a_sweep_that_cannot_be_stored_waits_in_the_spool_or_fails_the_run_after_the_others(
    tmp_path: Path, has_spool: bool
) -> None:
    store, aside = tmp_path / "embedded.sqlite", tmp_path / "aside"

    def break_store() -> None:
        store.rename(aside)
        store.mkdir()

    def mend_store() -> None:
        store.rmdir()
        aside.rename(store)

    with polls(tmp_path) as it:
        if not has_spool:
            it.settings = it.settings.model_copy(update={"spool": None})
        result = it.run(STATUS, lambda: None, break_store, mend_store)
        metadata = it.metadata(STATUS)
        assert len(it.stored("simulated-printer-801")) == (3 if has_spool else 2)
        assert len(metadata["sweeps"].records) == (3 if has_spool else 2)
        assert ("points_spooled" in metadata) is has_spool
    assert result.success is has_spool
    assert has_spool or "embedded store" in failure_text(result)


def test_a_type_with_a_cadence_of_its_own_is_asked_when_it_is_due(tmp_path: Path) -> None:
    types = {"freebsd": {"metrics_every_minutes": 30}}
    # Of a run that begins 5 minutes later it would not be the time.
    due = datetime.now(UTC).replace(microsecond=1) - timedelta(seconds=2)
    half_hour = int(due.timestamp()) // 1800 * 1800

    def ask_again(it: Polls, slow_seconds: int) -> set[str]:
        """Slow devices were last asked then, the others 5 minutes ago; who is asked now."""
        before = int(due.timestamp()) - 300
        it.date(SSH, lambda name: slow_seconds if "freebsd" in name else before)
        assert it.run(SSH, due=due).success
        return {p.tags["device_id"] for p in it.latest(SSH) if p.time_ns == to_ns(due)}

    with polls(tmp_path, device_types=types) as it:
        assert it.run(SSH).success
        slow = {name for p in it.latest(SSH) if "freebsd" in (name := p.tags["device_id"])}
        assert len(slow) == 2
        fresh = ask_again(it, half_hour)
        assert fresh
        assert slow & fresh == set()
        assert it.metadata(SSH)["devices_asked"] == 8
        assert slow <= {p.tags["device_id"] for p in it.latest(SSH)}
        assert slow <= ask_again(it, half_hour - 1)
        assert it.metadata(SSH)["devices_asked"] == 10


def test_each_shard_polls_and_shows_its_own_devices(tmp_path: Path) -> None:
    with polls(tmp_path, shards=2) as it:
        shown = {}
        for shard in ("1", "2"):
            assert it.run(STATUS, shard=shard).success
            shown[shard] = set(statuses(it.latest(part_of(STATUS, shard))))
        assert it.latest(STATUS) == ()
        assert {part_of(STATUS, shard) for shard in shown} <= set(it.settings.sweeps.snapshots())
    assert len(shown["1"] | shown["2"]) == 60
    assert all(shard_of(device, 2) == shard for shard in shown for device in shown[shard])


def test_what_cannot_be_polled_is_told_and_so_are_two_devices_at_one_place(
    tmp_path: Path,
) -> None:
    def row(name: str) -> sa.ColumnElement[bool]:
        return DEVICES.c.id == f"simulated-printer-80{name}"

    with polls(tmp_path) as it:
        it.change(sa.update(DEVICES).values(protocol="telnet").where(row("1")))
        it.change(sa.update(DEVICES).values(ip_address="no address!").where(row("2")))
        place = {"ip_address": "127.20.8.9", "port": 9}
        it.change(sa.update(DEVICES).values(place).where(row("3")))
        it.change(sa.update(DEVICES).values(place).where(row("4")))
        result = it.run(STATUS)
        assert it.metadata(STATUS)["inventory_rows_unusable"] == 2
    assert result.success
    missing, twins = (
        answers(result)[name] for name in ("every_device_has_a_result", "no_two_devices_are_one")
    )
    assert not missing.passed
    assert "1 invalid_ip_address, 1 unknown_protocol" in str(missing.description)
    assert "simulated-printer-802" in str(missing.description)
    assert not twins.passed
    assert twins.description == "tcp 127.20.8.9: simulated-printer-803, simulated-printer-804"


def test_where_the_inventory_is_away_at_the_end_nobody_says_that_no_device_is_there_twice(
    tmp_path: Path,
) -> None:
    with polls(tmp_path, shards=2) as it, pytest.MonkeyPatch.context() as patch:

        def is_away(_self: Inventory) -> NoReturn:
            raise SourceUnreachable("inventory", "SELECT", "no answer", "Start it")

        patch.setattr(Inventory, "read_rows_at_one_place", is_away)
        twins = answers(it.run(STATUS, shard="1"))["no_two_devices_are_one"]
    assert not twins.passed
    assert str(twins.description).startswith("could not be looked for: inventory")


def test_two_devices_at_one_place_are_told_by_the_first_shard_though_they_are_in_two(
    tmp_path: Path,
) -> None:
    with polls(tmp_path, shards=2, snmp={"timeout_seconds": 0.1, "tries": 1}) as it:
        it.keep({Behaviour.HEALTHY})
        names = [e.device.id for e in make_devices(Random(1)) if e.behaviour is Behaviour.HEALTHY]
        first, second = (next(n for n in names if shard_of(n, 2) == shard) for shard in "12")
        place = {"ip_address": "127.20.8.9", "port": 9, "protocol": "tcp"}
        it.change(sa.update(DEVICES).values(place).where(DEVICES.c.id.in_((first, second))))
        told = {
            shard: answers(it.run(STATUS, shard=shard))["no_two_devices_are_one"] for shard in "12"
        }
    assert {shard: check.passed for shard, check in told.items()} == {"1": False, "2": True}
    assert told["1"].description == f"tcp 127.20.8.9: {', '.join(sorted((first, second)))}"


def test_a_protocol_that_is_switched_off_has_no_asset(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, metrics_by=["snmp"])
    keys = {asset.key.to_user_string() for asset in build_device_assets(settings)}
    assert keys == {STATUS, SNMP}


def test_what_a_probe_learned_is_there_in_the_next_run(tmp_path: Path) -> None:
    with polls(tmp_path) as it:
        it.run(SNMP)
        writer = open_writer(it.settings.store, it.settings.operational_database, CATALOG)
        memories = writer.load_memories("snmp")
        writer.close()
        assert len(memories) > 20
        assert it.run(SNMP).success
