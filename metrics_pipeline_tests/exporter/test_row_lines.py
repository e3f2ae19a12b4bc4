"""Gauges of single LoRaWAN devices, compared byte by byte with what prometheus_client writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from metrics_pipeline.core.catalog import CATALOG, LORAWAN_DEVICE_METRICS
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.exporter.page import render
from metrics_pipeline.exporter.row_lines import RowLines
from metrics_pipeline.exporter.samples import collect_points
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.device_labels import LabelledSnapshot
from metrics_pipeline.storage.snapshots import Snapshot

KEPT_NS = 2**62
ALL = tuple(metric.family.name for metric in LORAWAN_DEVICE_METRICS)


def row(eui: str, gateway: str | None = "G1", time_ns: int = 7, **fields: FieldValue) -> Point:
    tags = {"device_eui": eui, **({} if gateway is None else {"gateway_id": gateway})}
    given = {"last_uplink_timestamp_seconds": 1_800_000_000.25, "frames_missing": 5, **fields}
    return Point("lorawan_devices", tags, given, time_ns)


def seen(*rows: Point, revision: int = 1) -> LabelledSnapshot:
    body = snapshots.encode(rows)
    return LabelledSnapshot("telemetry/lorawan_devices", (revision, ""), 1, 1, body, None)


def lorawan_lines(
    shown: Collection[str], max_series: int, kept_ns: int, clock_ns: Callable[[], int] = lambda: 10
) -> RowLines:
    return RowLines(
        LORAWAN_DEVICE_METRICS,
        "device_eui",
        shown=shown,
        max_series=max_series,
        kept_ns=kept_ns,
        clock_ns=clock_ns,
    )


def page_of(lines: RowLines) -> list[str]:
    return render([], lines.blocks).text.plain.decode().splitlines()


def test_the_lines_are_those_that_prometheus_client_writes() -> None:
    rows = [
        row("A" * 16, rssi_dbm=-80.5, snr_db=7.0, frame_counter=2**31, frames_lost_total=3),
        row("B" * 16, 'a "quoted"\nname\\', rssi_dbm=-120.0, frames_received_total=1),
        row("C" * 16, None, snr_db=-20.25, frame_counter=0),
    ]
    lines = lorawan_lines(ALL, 100, KEPT_NS)
    lines.update([seen(*rows)])
    client = collect_points([Snapshot("x", 1, 1, 1, tuple(rows))], CATALOG)
    by_name = {samples.family.name: samples for samples in client}
    ordered = [by_name[name] for name in ALL if name in by_name]
    assert page_of(lines) == render(ordered).text.plain.decode().splitlines()


def test_a_device_that_is_heard_by_another_gateway_is_one_series() -> None:
    lines = lorawan_lines(ALL, 100, KEPT_NS)
    lines.update([seen(row("A", "G1", rssi_dbm=-1.0))])
    lines.update([seen(row("A", "G2", rssi_dbm=-2.0), revision=2)])
    found = [line for line in page_of(lines) if line.startswith("lorawan_device_rssi_dbm{")]
    assert found == ['lorawan_device_rssi_dbm{device_eui="A",gateway_id="G2"} -2.0']


def names_in(page: Iterable[str]) -> set[str]:
    return {line.partition("{")[0] for line in page if not line.startswith("#")}


def test_only_the_families_that_are_asked_for_are_shown() -> None:
    lines = lorawan_lines(["lorawan_device_rssi_dbm"], 100, KEPT_NS)
    lines.update([seen(row("A", rssi_dbm=-1.0, snr_db=1.0))])
    assert names_in(page_of(lines)) == {"lorawan_device_rssi_dbm"}
    nothing = lorawan_lines([], 100, KEPT_NS)
    nothing.update([seen(row("A", rssi_dbm=-1.0))])
    assert nothing.blocks == ()


def test_of_too_many_devices_the_first_by_eui_stay_and_the_rest_is_counted() -> None:
    lines = lorawan_lines(ALL, 2, KEPT_NS)
    lines.update([seen(*(row(eui) for eui in "DBCA"))])
    (block,) = lines.blocks
    assert block.dropped == 2
    shown = [line for line in page_of(lines) if not line.startswith("#")]
    assert [line.split('"')[1] for line in shown] == ["A", "B"]


def test_a_device_that_was_silent_for_too_long_is_not_shown_though_no_row_has_changed() -> None:
    now = [100]
    lines = lorawan_lines(ALL, 100, 50, lambda: now[0])
    lines.update([seen(row("A", time_ns=60), row("B", time_ns=49), row("C", time_ns=90))])
    seen_at = {}
    for now[0] in (100, 110, 111, 140, 141):
        lines.update([])
        shown = [line for line in page_of(lines) if not line.startswith("#")]
        seen_at[now[0]] = "".join(line.split('"')[1] for line in shown)
    assert seen_at == {100: "AC", 110: "AC", 111: "C", 140: "C", 141: ""}
    assert lines.blocks == ()


def test_a_device_that_sends_again_is_shown_again() -> None:
    now = [100]
    lines = lorawan_lines(ALL, 100, 50, lambda: now[0])
    lines.update([seen(row("A", time_ns=1))])
    assert lines.blocks == ()
    lines.update([seen(row("A", time_ns=100), revision=2)])
    assert len(lines.blocks) == 1


def test_how_far_partitions_were_read_is_no_series() -> None:
    lines = lorawan_lines(ALL, 100, KEPT_NS)
    lines.update([seen(Point("lorawan_devices_seen_up_to", {"partition": "0"}, {"n": 1}, 0))])
    assert lines.blocks == ()
