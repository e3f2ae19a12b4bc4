"""From what was seen to the samples of the page."""

from __future__ import annotations

from dataclasses import replace

from metrics_pipeline.core.catalog import (
    CATALOG,
    EVENTS_DROPPED,
    EVENTS_PUBLISHED,
    FLEET_METRICS,
    SELF_FAMILIES,
    Catalog,
    Family,
    Measurement,
    Metric,
    MetricType,
    ValueType,
)
from metrics_pipeline.core.devices import DISK_USAGE, DISKS
from metrics_pipeline.core.events import DROP_REASONS
from metrics_pipeline.core.fetches import Labels
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.exporter.instance_reader import InstanceState, JobState
from metrics_pipeline.exporter.samples import Seen, collect, collect_points, only_asked
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline.storage.spool_state import SpoolState

NOTHING_SEEN = Seen({}, {}, None, None, 0, "1.2.3")
MANY = 1000

ROBOTS = Measurement("robots", database="robots", tags=("robot", "place"))
SPEED = Family("robot_speed", MetricType.GAUGE, "Speed.", ("place", "robot"))
IS_UP = Family("robot_up", MetricType.GAUGE, "Whether it is up.", ("robot",))
NAME = Family("robot_name", MetricType.GAUGE, "What it is called.")
ROBOT_CATALOG = Catalog(
    [
        Metric(ROBOTS, "speed", ValueType.FLOAT, "m/s", SPEED),
        Metric(ROBOTS, "up", ValueType.BOOLEAN, "1", IS_UP),
        Metric(ROBOTS, "name", ValueType.STRING, "", NAME),
    ]
)


def snapshot(*points: Point, asset: str = "fleet/device_counts") -> Snapshot:
    return Snapshot(asset, 1, 2_000_000_000, 1_500_000_000, points)


def counted(field: str, value: int, time_ns: int = 1, provider: str = "azure_iot_hub") -> Point:
    return Point("fleet_counts", {"provider": provider}, {field: value}, time_ns)


def robot(name: str, fields: dict[str, FieldValue], time_ns: int = 1) -> Point:
    return Point("robots", {"robot": name, "place": "hall"}, fields, time_ns)


def shown(seen: Seen, max_series: int = MANY) -> dict[str, dict[Labels, float]]:
    families = collect(seen, CATALOG, max_series)
    return {samples.family.name: dict(samples.values) for samples in families}


def points_shown(*snapshots: Snapshot) -> dict[str, dict[Labels, float]]:
    return {s.family.name: s.values for s in collect_points(snapshots, ROBOT_CATALOG)}


def test_what_is_stored_only_is_not_shown() -> None:
    tags = {"device_id": "d1", "metric_name": DISK_USAGE, "name": "/"}
    disk = Point(DISKS, tags, {"value": 7.0}, 1)
    assert CATALOG.find(disk, "value") in CATALOG.stored_only
    assert collect_points([snapshot(disk)], CATALOG) == []
    assert DISKS not in {metric.measurement.name for metric in CATALOG}


def test_the_gauges_of_the_contract_have_exactly_these_names() -> None:
    names = [metric.family.name for metric in FLEET_METRICS]
    assert sorted(names) == [
        "iot_hub_portal_concentrator_count",
        "iot_hub_portal_connected_concentrator_count",
        "iot_hub_portal_connected_device_count",
        "iot_hub_portal_connected_edge_device_count",
        "iot_hub_portal_device_count",
        "iot_hub_portal_edge_device_count",
        "iot_hub_portal_failed_deployment_count",
    ]
    assert {metric.family.type for metric in FLEET_METRICS} == {MetricType.GAUGE}
    assert {metric.family.labels for metric in FLEET_METRICS} == {()}


def test_the_families_about_the_product_have_the_names_and_labels_of_the_contract() -> None:
    assert {family.name: family.labels for family in SELF_FAMILIES} == {
        "fetch_latency_seconds": ("source",),
        "artifacts_total": ("source", "status"),
        "database_queries_total": ("query_type", "success"),
        "metrics_pipeline_events_published_total": (),
        "metrics_pipeline_events_dropped_total": ("reason",),
        "metrics_pipeline_process_cpu_seconds_total": ("process",),
        "metrics_pipeline_process_resident_memory_bytes": ("process",),
        "metrics_pipeline_process_open_fds": ("process",),
        "metrics_pipeline_state_disk_free_bytes": (),
        "metrics_pipeline_state_disk_size_bytes": (),
        "metrics_pipeline_database_size_bytes": ("database",),
        "metrics_pipeline_last_success_timestamp_seconds": ("asset",),
        "metrics_pipeline_last_update_timestamp_seconds": ("asset",),
        "metrics_pipeline_asset_interval_seconds": ("asset",),
        "metrics_pipeline_sampling_lease_end_timestamp_seconds": (),
        "metrics_pipeline_run_duration_seconds": ("job",),
        "metrics_pipeline_runs_total": ("job", "status"),
        "metrics_pipeline_points_written_total": ("measurement",),
        "metrics_pipeline_points_spooled_total": ("measurement",),
        "metrics_pipeline_points_rejected_total": ("reason",),
        "metrics_pipeline_spool_bytes": (),
        "metrics_pipeline_spool_limit_bytes": (),
        "metrics_pipeline_spool_points": (),
        "metrics_pipeline_spool_oldest_timestamp_seconds": (),
        "metrics_pipeline_spool_damaged_records": (),
        "metrics_pipeline_eventhub_lag_events": ("partition",),
        "metrics_pipeline_eventhub_lag_seconds": ("partition",),
        "metrics_pipeline_eventhub_lost_events_total": ("partition",),
        "metrics_pipeline_dead_letters_total": ("reason",),
        "metrics_pipeline_dead_letters_dropped_total": ("reason",),
        "metrics_pipeline_sample_slots_total": ("source", "outcome"),
        "metrics_pipeline_robots_connected": (),
        "metrics_pipeline_robot_messages_total": ("outcome",),
        "metrics_pipeline_robot_connections_total": ("outcome",),
        "metrics_pipeline_daemon_heartbeat_timestamp_seconds": ("daemon",),
        "metrics_pipeline_run_queue_length": (),
        "metrics_pipeline_build_info": ("version",),
        "metrics_pipeline_exporter_last_refresh_timestamp_seconds": (),
        "metrics_pipeline_exporter_refresh_failures_total": (),
        "metrics_pipeline_exporter_series_dropped": ("metric",),
    }


def test_counters_and_only_counters_end_in_total() -> None:
    families = [*(metric.family for metric in FLEET_METRICS), *SELF_FAMILIES]
    assert all(f.name.endswith("_total") == (f.type is MetricType.COUNTER) for f in families)


def test_every_part_of_what_was_seen_is_shown() -> None:
    seen = Seen(
        snapshots={"fleet/device_counts": snapshot(counted("device_count", 15))},
        totals={
            "metrics_pipeline_points_written_total": {"fleet_counts": 3},
            "metrics_pipeline_points_rejected_total": {"wrong_type": 1},
            "artifacts_total": {'["hub","ok"]': 2},
            "database_queries_total": {'["inventory","false"]': 3},
            "fetch_latency_seconds_bucket": {'["hub","0.5"]': 1},
            "fetch_latency_seconds_sum_us": {'["hub"]': 250_000},
        },
        instance=InstanceState(
            jobs={
                "fleet_counts": JobState(
                    frozenset({("run", "success")}), 2.5, {"success": 7, "failure": 1}
                )
            },
            heartbeats={"SCHEDULER": 1234.5},
            queue_length=2,
        ),
        refreshed_at_seconds=99.0,
        refresh_failures=4,
        version="1.2.3",
        every_seconds={"fleet/device_counts": 300.0, "fleet/never_counted": 60.0},
        lease_end_ns=98_500_000_000,
    )
    assert shown(seen) == {
        "iot_hub_portal_device_count": {(): 15.0},
        "metrics_pipeline_last_success_timestamp_seconds": {("fleet/device_counts",): 1.5},
        "metrics_pipeline_last_update_timestamp_seconds": {("fleet/device_counts",): 2.0},
        "metrics_pipeline_asset_interval_seconds": {
            ("fleet/device_counts",): 300.0,
            ("fleet/never_counted",): 60.0,
        },
        "metrics_pipeline_sampling_lease_end_timestamp_seconds": {(): 98.5},
        "metrics_pipeline_run_duration_seconds": {("fleet_counts",): 2.5},
        "metrics_pipeline_runs_total": {
            ("fleet_counts", "success"): 7.0,
            ("fleet_counts", "failure"): 1.0,
        },
        "metrics_pipeline_daemon_heartbeat_timestamp_seconds": {("SCHEDULER",): 1234.5},
        "metrics_pipeline_run_queue_length": {(): 2.0},
        "metrics_pipeline_points_written_total": {("fleet_counts",): 3.0},
        "metrics_pipeline_points_rejected_total": {("wrong_type",): 1.0},
        "artifacts_total": {("hub", "ok"): 2.0},
        "database_queries_total": {("inventory", "false"): 3.0},
        "fetch_latency_seconds": {("hub",): 0.25},
        "metrics_pipeline_build_info": {("1.2.3",): 1.0},
        "metrics_pipeline_exporter_last_refresh_timestamp_seconds": {(): 99.0},
        "metrics_pipeline_exporter_refresh_failures_total": {(): 4.0},
    }


def test_the_spool_is_shown_and_the_age_of_what_waits_only_while_something_does() -> None:
    seen = Seen({}, {}, None, None, 0, "1")
    full = shown(replace(seen, spool=SpoolState(90, 900, 7, 5 * 10**9, 2)))
    names = ("bytes", "limit_bytes", "points", "oldest_timestamp_seconds", "damaged_records")
    values = [full[f"metrics_pipeline_spool_{name}"][()] for name in names]
    assert values == [90, 900, 7, 5, 2]
    empty = shown(replace(seen, spool=SpoolState(0, 900, 0, None, 0)))
    assert empty["metrics_pipeline_spool_bytes"] == {(): 0}
    assert "metrics_pipeline_spool_oldest_timestamp_seconds" not in empty
    assert not [name for name in shown(seen) if "spool" in name]


def test_what_was_not_seen_is_absent_and_not_zero() -> None:
    assert shown(NOTHING_SEEN) == {
        "metrics_pipeline_build_info": {("1.2.3",): 1.0},
        "metrics_pipeline_exporter_refresh_failures_total": {(): 0.0},
    }


def test_before_the_first_whole_look_nothing_can_seem_never_to_have_come() -> None:
    every_seconds = {"fleet/device_counts": 300.0}
    early = replace(NOTHING_SEEN, every_seconds=every_seconds)
    assert "metrics_pipeline_asset_interval_seconds" not in shown(early)
    assert "metrics_pipeline_asset_interval_seconds" in shown(
        replace(early, refreshed_at_seconds=1.0)
    )


def test_an_asset_that_never_gave_everything_has_values_and_no_success() -> None:
    part = replace(snapshot(counted("device_count", 15)), complete_at_ns=None)
    families = shown(replace(NOTHING_SEEN, snapshots={part.asset: part}))
    assert families["iot_hub_portal_device_count"] == {(): 15.0}
    assert "metrics_pipeline_last_success_timestamp_seconds" not in families


def test_of_two_points_with_the_same_labels_the_newer_wins_in_whatever_order() -> None:
    old, new = counted("device_count", 15, 1), counted("device_count", 8, 2, "aws_iot")
    for points in ((old, new), (new, old)):
        [samples] = collect_points([snapshot(*points)], CATALOG)
        assert samples.values == {(): 8.0}


def test_a_count_of_zero_is_shown_as_zero() -> None:
    [samples] = collect_points([snapshot(counted("device_count", 0))], CATALOG)
    assert samples.values == {(): 0.0}


def test_labels_are_in_the_familys_order_and_a_tag_that_is_missing_is_empty() -> None:
    assert points_shown(snapshot(robot("r1", {"speed": 1.5}))) == {
        "robot_speed": {("hall", "r1"): 1.5}
    }
    assert points_shown(snapshot(Point("robots", {"robot": "r1"}, {"speed": 2.0}, 1))) == {
        "robot_speed": {("", "r1"): 2.0}
    }


def test_booleans_are_zero_and_one_and_strings_and_unknown_fields_are_left_out() -> None:
    point = robot("r1", {"up": True, "name": "Robby", "unheard_of": 1})
    assert points_shown(snapshot(point)) == {"robot_up": {("r1",): 1.0}}


def test_a_family_over_the_limit_is_cut_and_says_by_how_much() -> None:
    totals = {
        "metrics_pipeline_points_rejected_total": {f"reason {n:02}": n for n in range(12)},
        "metrics_pipeline_points_written_total": {"fleet_counts": 1, "robots": 2, "doors": 3},
    }
    families = shown(replace(NOTHING_SEEN, totals=totals), max_series=2)
    assert families["metrics_pipeline_exporter_series_dropped"] == {
        ("metrics_pipeline_points_rejected_total",): 10.0,
        ("metrics_pipeline_points_written_total",): 1.0,
    }
    assert families["metrics_pipeline_points_rejected_total"] == {
        ("reason 00",): 0.0,
        ("reason 01",): 1.0,
    }


def test_a_family_at_the_limit_is_whole_and_nothing_is_said() -> None:
    totals = {"metrics_pipeline_points_written_total": {"robots": 1, "doors": 2}}
    families = shown(replace(NOTHING_SEEN, totals=totals), max_series=2)
    assert len(families["metrics_pipeline_points_written_total"]) == 2
    assert "metrics_pipeline_exporter_series_dropped" not in families


def test_the_same_series_stay_when_the_times_of_the_points_change() -> None:
    kept = []
    for times in ((1, 2, 3), (3, 2, 1)):
        points = [robot(f"r{n}", {"speed": 1.0}, time_ns) for n, time_ns in enumerate(times)]
        seen = replace(NOTHING_SEEN, snapshots={"robots": snapshot(*points)})
        [speed, *_] = collect(seen, ROBOT_CATALOG, 2)
        kept.append(sorted(speed.values))
    assert kept[0] == kept[1] == [("hall", "r0"), ("hall", "r1")]


def test_what_another_source_gave_before_is_not_shown() -> None:
    old = Point("fleet_counts", {"provider": "azure_iot_hub"}, {"connected_device_count": 35}, 1)
    new = Point("fleet_counts", {"provider": "aws_iot"}, {"device_count": 7}, 2)
    asked = {("aws_iot", "device_count"), ("aws_iot", "connected_device_count")}
    shown = only_asked(Snapshot("fleet/device_counts", 1, 2, 1, (new, old)), asked)
    assert shown.points == (new,)
    assert shown.complete_at_ns == 1


def test_events_are_counted_from_0_on_and_not_shown_where_there_are_none() -> None:
    published, dropped = EVENTS_PUBLISHED.name, EVENTS_DROPPED.name
    assert not {published, dropped} & shown(NOTHING_SEEN).keys()
    found = shown(replace(NOTHING_SEEN, totals={published: {"": 7}, dropped: {"queue_full": 2}}))
    assert found[published] == {(): 7.0}
    assert found[dropped] == {
        (each,): 2.0 if each == "queue_full" else 0.0 for each in DROP_REASONS
    }
