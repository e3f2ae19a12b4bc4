"""Gauges of single devices, compared byte by byte with what prometheus_client would write."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from metrics_pipeline.core.catalog import CATALOG, DEVICE_METRIC_LIST, DEVICE_UP, Metric
from metrics_pipeline.core.points import Point
from metrics_pipeline.exporter.device_lines import Block, DeviceLines, number_of
from metrics_pipeline.exporter.page import render
from metrics_pipeline.exporter.pieces import gzip_join, unzip
from metrics_pipeline.exporter.samples import Samples
from metrics_pipeline.storage import device_labels, snapshots
from metrics_pipeline.storage.device_labels import LabelledSnapshot

ALL = tuple(metric.family.name for metric in (DEVICE_UP, *DEVICE_METRIC_LIST))
CPU, MEMORY = DEVICE_METRIC_LIST[:2]
SNMP, SSH = "devices/snmp_metrics", "devices/ssh_metrics"
LIMIT = 100

# Half characters cannot be on any page; what becomes of them has a test of its own.
LABEL = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ['a "b"', "a\nb", "a\\b", "a\\nb", "🤖", "", " ", "\r\n", "a,b=c}", "{}"]
)
NUMBER = st.floats() | st.integers(-(2**53), 2**53).map(float)


def measured(device: str, metric: Metric, value: float, time_ns: int = 1) -> Point:
    tags = {"device_id": device, "metric_name": metric.selected_by}
    return Point("device_metrics", tags, {"value": value}, time_ns)


def status(device: str, word: str, time_ns: int = 1) -> Point:
    return Point("device_status", {"device_id": device}, {"status": word}, time_ns)


def named(*devices: str) -> dict[str, tuple[str, str]]:
    return {device: (f"{device}.example", "router") for device in devices}


def polled(
    points: Iterable[Point],
    labels: Mapping[str, tuple[str, str]] | None,
    asset: str = SNMP,
    revision: int = 1,
) -> LabelledSnapshot:
    packed = None if labels is None else device_labels.encode(labels)
    body = snapshots.encode(points)
    return LabelledSnapshot(asset, (revision, ""), revision, None, body, packed)


def lines_of(*seen: LabelledSnapshot, shown: Iterable[str] = ALL, limit: int = LIMIT) -> list[str]:
    lines = DeviceLines(CATALOG, tuple(shown), limit)
    for snapshot in seen:
        lines.update([snapshot])
    return [line for block in lines.blocks for line in plain_lines(block)]


def plain_lines(block: Block) -> list[str]:
    return unzip(gzip_join([block.samples])).decode().splitlines()


def of_device(metric: Metric, device: str, value: str) -> str:
    labels = f'device_id="{device}",device_type="router",hostname="{device}.example"'
    return f"{metric.family.name}{{{labels}}} {value}"


METRICS = st.sampled_from(DEVICE_METRIC_LIST)
READINGS = st.dictionaries(
    LABEL,
    st.tuples(LABEL, LABEL, st.dictionaries(METRICS, NUMBER, min_size=1, max_size=3)),
    max_size=4,
)


@given(READINGS)
def test_the_page_equals_prometheus_clients_byte_by_byte_in_both_formats(
    readings: dict[str, tuple[str, str, dict[Metric, float]]],
) -> None:
    points, expected = [], {metric: Samples(metric.family) for metric in DEVICE_METRIC_LIST}
    for device, (hostname, kind, values) in sorted(readings.items()):
        for metric, value in values.items():
            points.append(measured(device, metric, value))
            expected[metric].values[device, hostname, kind] = value
    lines = DeviceLines(CATALOG, ALL, LIMIT)
    labels = {device: (hostname, kind) for device, (hostname, kind, _) in readings.items()}
    lines.update([polled(points, labels)])
    ours = render([], lines.blocks)
    theirs = render([samples for samples in expected.values() if samples.values])
    assert ours.text.plain == theirs.text.plain
    assert ours.openmetrics.plain == theirs.openmetrics.plain
    assert gzip.decompress(ours.text.gzipped) == ours.text.plain
    assert gzip.decompress(ours.openmetrics.gzipped) == ours.openmetrics.plain


@given(LABEL, LABEL, LABEL, NUMBER)
def test_prometheus_own_parsers_read_any_label_and_any_number_back(
    device: str, hostname: str, kind: str, value: float
) -> None:
    lines = DeviceLines(CATALOG, ALL, LIMIT)
    lines.update([polled([measured(device, CPU, value)], {device: (hostname, kind)})])
    page = render([], lines.blocks)
    openmetrics = parse_openmetrics(page.openmetrics.plain.decode())  # type: ignore[no-untyped-call]
    for families in (parse_text(page.text.plain.decode()), openmetrics):
        [family] = families
        [sample] = family.samples
        assert sample.labels == {"device_id": device, "hostname": hostname, "device_type": kind}
        assert sample.value == value or (math.isnan(sample.value) and math.isnan(value))


def test_online_is_1_and_offline_is_0_and_another_word_is_nothing() -> None:
    points = [status("a", "online"), status("b", "offline"), status("c", "asleep")]
    assert lines_of(polled(points, named("a", "b", "c"))) == [
        of_device(DEVICE_UP, "a", "1.0"),
        of_device(DEVICE_UP, "b", "0.0"),
    ]


@pytest.mark.parametrize(("value", "number"), [(3, 3.0), (True, 1.0), (2.5, 2.5), ("3", None)])
def test_numbers_are_shown_and_words_are_not(value: float | str, number: float | None) -> None:
    assert number_of(value) == number


@pytest.mark.parametrize("times", [(1, 2), (2, 1)])
def test_of_two_points_of_a_device_the_newer_one_is_shown(times: tuple[int, int]) -> None:
    points = [status("a", "online" if t == 2 else "offline", t) for t in times]
    assert lines_of(polled(points, named("a"))) == [of_device(DEVICE_UP, "a", "1.0")]


def test_a_device_that_the_inventory_no_longer_has_is_not_shown() -> None:
    points = [measured("a", CPU, 1), measured("gone", CPU, 2)]
    assert lines_of(polled(points, named("a"))) == [of_device(CPU, "a", "1.0")]


def test_without_any_labels_nothing_is_shown() -> None:
    assert lines_of(polled([measured("a", CPU, 1)], None)) == []


def test_only_what_the_settings_list_is_shown() -> None:
    points = [measured("a", CPU, 1), measured("a", MEMORY, 2), status("a", "online")]
    both = (MEMORY.family.name, "device_up")
    assert lines_of(polled(points, named("a")), shown=both) == [
        of_device(DEVICE_UP, "a", "1.0"),
        of_device(MEMORY, "a", "2.0"),
    ]
    assert lines_of(polled(points, named("a")), shown=()) == []


def test_points_and_fields_that_the_catalogue_does_not_know_are_not_shown() -> None:
    tags = {"device_id": "a", "metric_name": "mood"}
    points = [
        Point("device_metrics", tags, {"value": 1.0}, 1),
        Point("device_metrics", {**tags, "metric_name": CPU.selected_by}, {"peak": 1.0}, 1),
        Point("fleet_counts", {"provider": "x"}, {"device_count": 1}, 1),
    ]
    assert lines_of(polled(points, named("a"))) == []


def test_one_family_of_two_assets_is_one_block() -> None:
    one = polled([measured("b", CPU, 1)], named("b"), SNMP)
    other = polled([measured("a", CPU, 2)], named("a"), SSH)
    expected = [of_device(CPU, "a", "2.0"), of_device(CPU, "b", "1.0")]
    assert lines_of(one, other) == lines_of(other, one) == expected


def test_a_device_that_two_assets_have_is_shown_once_as_last_written() -> None:
    before = polled([measured("a", CPU, 1)], named("a"), SNMP, revision=1)
    after = polled([measured("a", CPU, 2)], named("a"), SSH, revision=2)
    expected = [of_device(CPU, "a", "2.0")]
    assert lines_of(before, after) == lines_of(after, before) == expected


def test_a_family_that_has_lost_its_last_device_is_gone() -> None:
    before = polled([measured("a", CPU, 1), measured("a", MEMORY, 2)], named("a"))
    after = polled([measured("a", MEMORY, 3)], named("a"), revision=2)
    assert lines_of(before, after) == [of_device(MEMORY, "a", "3.0")]


def test_an_asset_that_has_not_changed_is_not_rendered_again() -> None:
    lines = DeviceLines(CATALOG, ALL, LIMIT)
    lines.update([polled([measured("a", CPU, 1)], named("a"), SNMP)])
    [cpu] = lines.blocks
    lines.update([])
    lines.update([polled([measured("b", MEMORY, 1)], named("b"), SSH)])
    assert lines.blocks[0] is cpu


def test_a_family_is_cut_at_the_limit_and_says_by_how_much() -> None:
    devices = [f"d{n}" for n in range(5)]
    lines = DeviceLines(CATALOG, ALL, 3)
    points = [measured(device, CPU, 1) for device in reversed(devices)]
    lines.update([polled(points, named(*devices))])
    [block] = lines.blocks
    assert block.dropped == 2
    expected = [of_device(CPU, device, "1.0") for device in devices[:3]]
    assert plain_lines(block) == expected


def test_half_a_character_in_a_name_costs_that_character_and_not_the_page() -> None:
    [line] = lines_of(polled([measured("a", CPU, 1)], {"a": ("h\ud800", "router")}))
    assert 'hostname="h?"' in line
