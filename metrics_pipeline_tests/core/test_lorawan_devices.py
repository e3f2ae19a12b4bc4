"""The rows that the exporter shows, and that a later run goes on from."""

from __future__ import annotations

from metrics_pipeline.core.catalog import CATALOG, LORAWAN_DEVICE_METRICS
from metrics_pipeline.core.lorawan_devices import LorawanDevices
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.core.validation import NS_PER_SECOND, validate

START_NS = 1_700_000_000 * NS_PER_SECOND


def uplink(counter: int, seconds: int, eui: str = "A", **fields: FieldValue) -> Point:
    given = {"frame_counter": counter, **fields}
    return Point("lorawan_uplink", {"device_eui": eui}, given, START_NS + seconds * NS_PER_SECOND)


def row_of(devices: LorawanDevices, eui: str = "A") -> Point:
    (row,) = [row for row in devices.rows() if row.tags["device_eui"] == eui]
    return row


def test_a_row_has_the_families_of_the_exporter() -> None:
    devices = LorawanDevices()
    devices.take([uplink(7, 0, rssi_dbm=-35.0, snr_db=5.1), uplink(9, 5, rssi_dbm=-40.0)])
    row = row_of(devices)
    assert row.measurement == "lorawan_devices"
    assert row.tags == {"device_eui": "A"}
    assert row.fields == {
        "last_uplink_timestamp_seconds": 1_700_000_005.0,
        "rssi_dbm": -40.0,
        "frame_counter": 9,
        "frames_received_total": 2,
        "frames_lost_total": 0,
        "frames_duplicate": 0,
        "frames_missing": 1,
    }
    assert validate(row, CATALOG, START_NS) == row
    assert [metric.family.name for metric in LORAWAN_DEVICE_METRICS] == [
        "lorawan_device_last_uplink_timestamp_seconds",
        "lorawan_device_rssi_dbm",
        "lorawan_device_snr_db",
        "lorawan_device_frame_counter",
        "lorawan_device_frames_received_total",
        "lorawan_device_frames_lost_total",
    ]
    labels = {metric.field: metric.family.labels for metric in LORAWAN_DEVICE_METRICS}
    assert labels.pop("rssi_dbm") == labels.pop("snr_db") == ("device_eui", "gateway_id")
    assert set(labels.values()) == {("device_eui",)}


def test_the_gateway_of_the_last_uplink_is_in_the_row() -> None:
    devices = LorawanDevices()
    by_gateway = Point("lorawan_uplink", {"device_eui": "A", "gateway_id": "G"}, {"snr_db": 1.0}, 1)
    devices.take([by_gateway])
    assert row_of(devices).tags == {"device_eui": "A", "gateway_id": "G"}
    assert validate(row_of(devices), CATALOG, 1) == row_of(devices)
    later = LorawanDevices(devices.rows())
    assert row_of(later) == row_of(devices)
    later.take([uplink(7, 0)])
    assert row_of(later).tags == {"device_eui": "A"}


def test_a_later_run_goes_on_where_the_rows_end() -> None:
    stream = [uplink(n, n * 7, "AB"[n % 2], rssi_dbm=-1.0 * n) for n in (1, 2, 5, 8, 6, 9, 14)]
    whole = LorawanDevices()
    whole.take(stream)
    for split in range(len(stream)):
        first = LorawanDevices()
        first.take(stream[:split])
        second = LorawanDevices(first.rows())
        second.take(stream[split:])
        rows = {row.tags["device_eui"]: row for row in second.rows()}
        assert rows == {row.tags["device_eui"]: row for row in whole.rows()}


def test_frames_of_which_nobody_knows_whether_they_came_are_not_lost() -> None:
    first = LorawanDevices()
    first.take([uplink(1, 0), uplink(3, 7)])
    later = LorawanDevices(first.rows())
    later.forget_gaps()
    later.take([uplink(50, 14), uplink(52, 21)])
    fields = row_of(later).fields
    assert (fields["frames_received_total"], fields["frame_counter"]) == (4, 52)
    assert (fields["frames_lost_total"], fields["frames_missing"]) == (1, 1)  # 2 and 51


def test_frames_that_come_again_after_a_gap_are_copies() -> None:
    devices = LorawanDevices()
    devices.take([uplink(1, 0), uplink(2, 7)])
    devices.forget_gaps()
    devices.take([uplink(1, 0), uplink(2, 7), uplink(3, 14)])
    fields = row_of(devices).fields
    assert (fields["frames_received_total"], fields["frames_lost_total"]) == (3, 0)


def test_a_device_that_does_not_count_its_frames_is_shown_all_the_same() -> None:
    devices = LorawanDevices()
    devices.take([Point("lorawan_uplink", {"device_eui": "A"}, {"snr_db": 1.0}, START_NS)])
    devices = LorawanDevices(devices.rows())
    expected = {"last_uplink_timestamp_seconds": 1_700_000_000.0, "snr_db": 1.0}
    assert row_of(devices).fields == expected


def test_an_uplink_that_comes_late_does_not_hide_the_newest() -> None:
    devices = LorawanDevices()
    devices.take([uplink(2, 10, rssi_dbm=-1.0), uplink(1, 5, rssi_dbm=-2.0)])
    assert row_of(devices).fields["rssi_dbm"] == -1.0
    assert row_of(devices).time_ns == START_NS + 10 * NS_PER_SECOND


def test_a_copy_is_counted_as_one_and_other_points_are_passed_over() -> None:
    devices = LorawanDevices()
    other = Point("device_status", {"device_id": "A"}, {"status": "online"}, START_NS)
    devices.take([uplink(500, 0), other, uplink(3, 20, extra_dupmsg=True)])
    fields = row_of(devices).fields
    assert (fields["frames_received_total"], fields["frames_duplicate"]) == (1, 1)


def test_a_device_that_was_silent_for_too_long_is_forgotten_and_new_when_it_returns() -> None:
    devices = LorawanDevices()
    devices.take([uplink(1, 0), uplink(2, 10), uplink(7, 5, "B")])
    devices.forget_gaps()
    devices.forget_before(START_NS + 10 * NS_PER_SECOND)
    assert [row.tags["device_eui"] for row in devices.rows()] == ["A"]
    devices.take([uplink(900, 20, "B")])
    fields = row_of(devices, "B").fields
    assert (fields["frames_received_total"], fields["frames_lost_total"]) == (1, 0)
