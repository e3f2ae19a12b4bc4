"""The latest points of an asset: kept whole, replaced or merged, and never lost to a race."""

from __future__ import annotations

import zlib
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.storage import snapshots
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline_tests.at_once import at_once

ASSET = "fleet/device_counts"
ROUNDS = 10
PROCESSES = 4

FIELD_VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None)),
)
TEXTS = st.text(st.characters(codec=None))
POINTS = st.builds(
    Point,
    TEXTS,
    st.dictionaries(TEXTS, TEXTS, max_size=3),
    st.dictionaries(TEXTS, FIELD_VALUES, max_size=3),
    st.integers(-(2**63), 2**63 - 1),
)


def count(fields: dict[str, FieldValue], time_ns: int, provider: str = "hub") -> Point:
    return Point("fleet_counts", {"provider": provider}, fields, time_ns)


def replace(database: OperationalDatabase, asset: str, *points: Point, now_ns: int = 0) -> Snapshot:
    with database.writing() as connection:
        return snapshots.replace(connection, asset, points, now_ns)


def merge(database: OperationalDatabase, asset: str, *points: Point, now_ns: int = 0) -> Snapshot:
    with database.writing() as connection:
        return snapshots.merge(connection, asset, points, now_ns)


def find(database: OperationalDatabase, asset: str = ASSET) -> Snapshot | None:
    with database.reading() as connection:
        return snapshots.find(connection, asset)


@given(st.lists(POINTS, max_size=5))
def test_points_come_back_as_they_were(points: list[Point]) -> None:
    decoded = snapshots.decode(snapshots.encode(points))
    assert decoded == tuple(points)
    assert [_types(point) for point in decoded] == [_types(point) for point in points]


@given(st.lists(POINTS, max_size=40), st.integers(1, 200))
def test_points_come_in_batches_as_they_were(points: list[Point], size: int) -> None:
    batches = list(snapshots.decode_in_batches(snapshots.encode(points), size))
    assert tuple(Point(*row) for rows in batches for row in rows) == tuple(points)
    assert all(batches)


@pytest.mark.parametrize("missing", [1, 4, 30])
def test_a_body_that_was_cut_off_is_an_error(missing: int) -> None:
    body = snapshots.encode([count({"device_count": n}, n) for n in range(9)])[:-missing]
    with pytest.raises((zlib.error, ValueError)):
        list(snapshots.decode_in_batches(body, 64))


def test_a_body_is_json_with_a_few_points_in_each_line() -> None:
    size = snapshots.ROWS_A_LINE
    points = [count({"device_count": n}, n) for n in range(size + 1)]
    first, *lines, last = zlib.decompress(snapshots.encode(points)).decode().splitlines()
    rows = [
        f'["fleet_counts",{{"provider":"hub"}},{{"device_count":{n}}},{n}]' for n in range(size)
    ]
    assert (first, last) == ("[", "]")
    assert lines == [
        f"{','.join(rows)},",
        f'["fleet_counts",{{"provider":"hub"}},{{"device_count":{size}}},{size}]',
    ]


def test_a_body_of_before_which_is_all_in_one_line_is_read_as_well() -> None:
    body = zlib.compress(b'[["fleet_counts",{"provider":"hub"},{"device_count":1},1]]')
    assert snapshots.decode(body) == (count({"device_count": 1}, 1),)
    [[row]] = snapshots.decode_in_batches(body)
    assert Point(*row) == count({"device_count": 1}, 1)


def _types(point: Point) -> dict[str, tuple[type, str]]:
    # The text tells 0.0 from -0.0.
    return {name: (type(value), repr(value)) for name, value in point.fields.items()}


def test_an_asset_that_never_gave_anything_has_no_snapshot(
    operational: OperationalDatabase,
) -> None:
    assert find(operational) is None


def test_what_is_saved_is_found(operational: OperationalDatabase) -> None:
    saved = replace(operational, ASSET, count({"device_count": 3}, 10), now_ns=11)
    assert saved == Snapshot(ASSET, 1, 11, 11, (count({"device_count": 3}, 10),))
    assert find(operational) == saved


def test_a_complete_result_replaces_all(operational: OperationalDatabase) -> None:
    replace(operational, ASSET, count({"device_count": 3, "edge_device_count": 2}, 10))
    replace(operational, ASSET, count({"device_count": 1}, 20))
    found = find(operational)
    assert found is not None
    assert found.points == (count({"device_count": 1}, 20),)


def test_a_partial_result_keeps_the_other_values_at_their_own_time(
    operational: OperationalDatabase,
) -> None:
    replace(operational, ASSET, count({"device_count": 3, "edge_device_count": 2}, 10))
    merge(operational, ASSET, count({"device_count": 1}, 20))
    found = find(operational)
    assert found is not None
    assert set(map(repr, found.points)) == {
        repr(count({"device_count": 1}, 20)),
        repr(count({"edge_device_count": 2}, 10)),
    }


def test_a_result_without_points_keeps_what_there_was(operational: OperationalDatabase) -> None:
    replace(operational, ASSET, count({"device_count": 3}, 10), now_ns=11)
    merge(operational, ASSET, now_ns=21)
    assert find(operational) == Snapshot(ASSET, 2, 21, 11, (count({"device_count": 3}, 10),))


def test_only_a_complete_result_moves_the_time_of_completeness(
    operational: OperationalDatabase,
) -> None:
    steps = [(merge, 1, None), (replace, 2, 2), (merge, 3, 2), (replace, 4, 4), (merge, 5, 4)]
    for revision, (save, now_ns, complete_at_ns) in enumerate(steps, start=1):
        saved = save(operational, ASSET, count({"device_count": 1}, now_ns), now_ns=now_ns)
        assert (saved.revision, saved.updated_at_ns, saved.complete_at_ns) == (
            revision,
            now_ns,
            complete_at_ns,
        )
        assert find(operational) == saved


def test_only_what_was_asked_for_and_has_changed_is_found(
    operational: OperationalDatabase,
) -> None:
    known = {name: replace(operational, name).revision for name in ("a", "b", "c")}
    changed = [replace(operational, name, count({"device_count": 1}, 1)) for name in ("b", "c")]
    with operational.reading() as connection:
        assert snapshots.find_changed(connection, ["a", "b", "d"], known) == changed[:1]
        assert snapshots.find_changed(connection, ["a"], known) == []
        assert snapshots.find_changed(connection, [], {}) == []
        everything = snapshots.find_changed(connection, ["a", "b", "c"], {})
    assert {snapshot.asset for snapshot in everything} == {"a", "b", "c"}


def test_an_older_revision_counts_as_changed_too(operational: OperationalDatabase) -> None:
    saved = replace(operational, ASSET)
    with operational.reading() as connection:
        assert snapshots.find_changed(connection, [ASSET], {ASSET: 99}) == [saved]


def _merge_often(given: DatabaseSettings) -> list[int]:
    with closing(OperationalDatabase(given)) as database:
        return [
            merge(database, ASSET, count({"device_count": n}, n), now_ns=n).revision
            for n in range(ROUNDS)
        ]


def test_writers_in_several_processes_lose_no_revision(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    answers = at_once(_merge_often, settings, processes=PROCESSES)
    revisions = sorted(revision for answer in answers for revision in answer)
    assert revisions == list(range(1, PROCESSES * ROUNDS + 1))
    found = find(operational)
    assert found is not None
    assert found.revision == PROCESSES * ROUNDS


def _merge_own_field(given: DatabaseSettings, fields: list[str]) -> str:
    with closing(OperationalDatabase(given)) as database:
        for name in fields:
            merge(database, ASSET, count({name: 1}, 1))
    return ""


def test_writers_in_several_processes_lose_no_value(
    settings: DatabaseSettings, operational: OperationalDatabase
) -> None:
    fields = [f"field_{n}" for n in range(ROUNDS)]
    assert at_once(_merge_own_field, settings, fields, processes=PROCESSES) == [""] * PROCESSES
    found = find(operational)
    assert found is not None
    assert {name for point in found.points for name in point.fields} == set(fields)
