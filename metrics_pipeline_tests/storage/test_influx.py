"""The InfluxDB store: the contract over real servers, and whatever the labelled stub answers."""

from __future__ import annotations

import json
import socket
import ssl
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from metrics_pipeline.access.http import MAX_REPLY_BYTES, Reply
from metrics_pipeline.core.errors import (
    ConfigurationError,
    PartialWrite,
    StoreError,
    StoreUnavailable,
)
from metrics_pipeline.core.line_protocol import render
from metrics_pipeline.core.points import FieldValue, Point, SeriesKey
from metrics_pipeline.simulators.loopback_server import Answer, NoAnswer
from metrics_pipeline.storage.influx import MAX_SPLITS, InfluxStore, InfluxStoreSettings
from metrics_pipeline.storage.influx_replies import (
    in_conflict,
    partly_refused,
    refusal_reason,
    said,
)
from metrics_pipeline_tests.servers import PLAIN_HTTP, self_signed, victoria_metrics
from metrics_pipeline_tests.storage.contract import (
    CATALOG,
    MS,
    TIME_NS,
    ExactStoreContract,
    PointStoreContract,
    StoreUnderTest,
    poll,
)
from metrics_pipeline_tests.storage.influx_stub import POISON, InfluxStub
from metrics_pipeline_tests.storage.influx_stub import TOKEN as STUB_TOKEN
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import TOKEN as ENGINE_TOKEN
from metrics_pipeline_tests.storage.influxdb_1_engine_shim import influxdb_1_engine


def victoria_metrics_points(url: str, measurement: str) -> list[Point]:
    """All points of `measurement`: VictoriaMetrics keeps a series for each field."""
    PLAIN_HTTP.get(f"{url}/internal/force_flush").raise_for_status()
    exported = PLAIN_HTTP.get(
        f"{url}/api/v1/export",
        params={"match[]": f'{{__name__=~"{measurement}_.+"}}', "start": 1},
    ).raise_for_status()
    found: dict[tuple[SeriesKey, int], dict[str, FieldValue]] = {}
    for line in exported.text.splitlines():
        series = json.loads(line)
        tags = series["metric"]
        field = tags.pop("__name__").removeprefix(f"{measurement}_")
        for time_ms, value in zip(series["timestamps"], series["values"], strict=True):
            key = (measurement, tuple(sorted(tags.items()))), time_ms * MS
            found.setdefault(key, {})[field] = value
    return [Point(name, dict(tags), f, t) for ((name, tags), t), f in found.items()]


class TestVictoriaMetrics(PointStoreContract):
    @pytest.fixture
    def tested(self, tmp_path: Path) -> Iterator[StoreUnderTest]:
        with victoria_metrics(tmp_path / "data") as url:
            settings = InfluxStoreSettings(kind="influxdb", url=url, api="v2", org="any")
            store = InfluxStore(settings, CATALOG)
            yield StoreUnderTest(
                store, lambda measurement: victoria_metrics_points(url, measurement)
            )
            store.close()


class TestInfluxdb1Engine(ExactStoreContract):
    @pytest.fixture
    def tested(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreUnderTest]:
        monkeypatch.setenv("ENGINE_TOKEN", ENGINE_TOKEN)
        with influxdb_1_engine(tmp_path / "engine") as shim:
            settings = InfluxStoreSettings.model_validate(
                {
                    "kind": "influxdb",
                    "url": shim.url,
                    "api": "v2",
                    "org": "any",
                    "token": {"env": "ENGINE_TOKEN"},
                }
            )
            store = InfluxStore(settings, CATALOG)
            yield StoreUnderTest(store, shim.read)
            store.close()


# --- the labelled stub ----------------------------------------------------------------------------


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[InfluxStub]:
    monkeypatch.setenv("STUB_TOKEN", STUB_TOKEN)
    with InfluxStub() as server:
        yield server


@pytest.fixture(params=["v2", "v3"])
def api(request: pytest.FixtureRequest) -> str:
    """Most tests run over both write APIs."""
    return str(request.param)


def settings_for(url: str, api: str, **changes: Any) -> InfluxStoreSettings:
    given = {"kind": "influxdb", "url": url, "api": api, "token": {"env": "STUB_TOKEN"}}
    if api == "v2":
        given["org"] = "any"
    return InfluxStoreSettings.model_validate({**given, **changes})


@contextmanager
def opened(stub: InfluxStub, api: str, **changes: Any) -> Iterator[InfluxStore]:
    store = InfluxStore(settings_for(stub.url, api, **changes), CATALOG)
    try:
        yield store
    finally:
        store.close()


def polls(count: int) -> list[Point]:
    return [poll({"value": i + 0.5}, TIME_NS + i) for i in range(count)]


def poisoned(time_ns: int) -> Point:
    return poll({"value": 1.5}, time_ns, device_id=POISON.decode())


def kept(stub: InfluxStub, database: str = "tests") -> set[bytes]:
    return {line for name, line in stub.lines if name == database}


def test_a_line_arrives_as_it_was_rendered(stub: InfluxStub, api: str) -> None:
    with opened(stub, api) as store:
        store.write([poll({"value": 1.5})])
    assert stub.lines == {("tests", render([poll({"value": 1.5})])): 1}


@pytest.mark.parametrize("is_compressed", [True, False])
def test_requests_are_compressed_where_the_settings_say_so(
    stub: InfluxStub, api: str, is_compressed: bool
) -> None:
    with opened(stub, api, gzip=is_compressed) as store:
        store.write(polls(3))
    (request,) = stub.requests
    assert (request.headers.get("content-encoding") == "gzip") is is_compressed
    assert len(kept(stub)) == 3


def test_a_database_can_be_called_otherwise(stub: InfluxStub, api: str) -> None:
    with opened(stub, api, databases={"tests": "renamed"}) as store:
        store.write(polls(3))
        assert "renamed is there" in store.check()
    assert len(kept(stub, "renamed")) == 3


def test_renaming_a_database_that_no_metric_has_is_a_configuration_error(api: str) -> None:
    settings = settings_for("http://127.0.0.1:1", api, databases={"test": "renamed"})
    with pytest.raises(ConfigurationError, match=r"no such database\. It has tests"):
        InfluxStore(settings, CATALOG)


def test_points_are_sent_in_batches(stub: InfluxStub, api: str) -> None:
    with opened(stub, api, batch_points=4) as store:
        store.write(polls(10))
    assert len(stub.requests) == 3
    assert set(stub.lines.values()) == {1}
    assert len(kept(stub)) == 10


def test_a_batch_that_is_too_large_is_halved_until_it_fits(stub: InfluxStub, api: str) -> None:
    stub.max_lines = 3
    with opened(stub, api) as store:
        store.write(polls(20))
    assert len(kept(stub)) == 20
    assert set(stub.lines.values()) == {1}


def test_every_batch_may_be_halved_as_often_as_it_needs(stub: InfluxStub, api: str) -> None:
    stub.max_lines = 1
    with opened(stub, api, batch_points=100) as store:
        store.write(polls(2 * MAX_SPLITS))
    assert len(kept(stub)) == 2 * MAX_SPLITS


def test_a_point_that_is_too_large_alone_is_refused(stub: InfluxStub, api: str) -> None:
    stub.max_lines = 0
    with opened(stub, api) as store, pytest.raises(PartialWrite) as caught:
        store.write(polls(2))
    assert caught.value.rejected == {"too_large": 2}


@pytest.mark.parametrize(
    ("api_name", "reason"), [("v2", "store_rejected"), ("v3", "field_type_conflict")]
)
def test_the_good_points_of_a_batch_are_kept(stub: InfluxStub, api_name: str, reason: str) -> None:
    points = polls(500)
    points[17:17] = [poisoned(1)]
    points[400:400] = [poisoned(2), poisoned(3)]
    with opened(stub, api_name) as store, pytest.raises(PartialWrite) as caught:
        store.write(points)
    assert caught.value.accepted == 500
    assert caught.value.rejected == {reason: 3}
    assert len(kept(stub)) == 500


def test_of_many_bad_points_those_that_were_not_tried_alone_are_not_named(
    stub: InfluxStub,
) -> None:
    with opened(stub, "v2") as store, pytest.raises(PartialWrite) as caught:
        store.write([*polls(96), *(poisoned(i) for i in range(4000))])
    assert caught.value.accepted <= 96
    assert caught.value.rejected == {"store_rejected": 4096 - caught.value.accepted}
    assert 0 < len(caught.value.refused) < MAX_SPLITS
    assert len(stub.requests) <= 2 * MAX_SPLITS + 1


HTTPS_EXPECTED = (
    b"<html><center><h1>400 Bad Request</h1></center>"
    b"<center>The plain HTTP request was sent to HTTPS port</center></html>"
)
"""What nginx says."""


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("count", [1, 2, 700])
def test_who_refuses_everything_says_nothing_of_the_points(
    stub: InfluxStub, api: str, status: int, count: int
) -> None:
    stub.faults.extend([Answer(status, HTTPS_EXPECTED)] * 2 * MAX_SPLITS * 2)
    with opened(stub, api) as store, pytest.raises(StoreError) as caught:
        store.write(polls(count))
    assert type(caught.value) is StoreError
    assert f"HTTP {status}: " in str(caught.value)
    assert "sent to HTTPS port" in str(caught.value)
    assert len(stub.requests) <= 2 * MAX_SPLITS + 1


def test_a_refusal_of_all_that_names_a_conflict_of_types_is_about_the_points(
    stub: InfluxStub,
) -> None:
    told = json.dumps({"message": "field type conflict"}).encode()
    stub.faults.extend([Answer(400, told)] * 5)
    with opened(stub, "v2") as store, pytest.raises(PartialWrite) as caught:
        store.write(polls(3))
    assert caught.value.rejected == {"field_type_conflict": 3}


def test_one_point_is_refused_where_the_server_itself_says_so(stub: InfluxStub) -> None:
    with opened(stub, "v2") as store, pytest.raises(PartialWrite) as caught:
        store.write([poisoned(1)])
    assert caught.value.rejected == {"store_rejected": 1}


def test_a_measurement_that_is_not_in_the_catalogue_is_refused(stub: InfluxStub, api: str) -> None:
    with opened(stub, api) as store, pytest.raises(PartialWrite) as caught:
        store.write([Point("unknown", {}, {"value": 1.5}, TIME_NS), *polls(1)])
    assert caught.value.rejected == {"unknown_measurement": 1}
    assert len(kept(stub)) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_being_asked_to_wait_is_passed_on(stub: InfluxStub, api: str, status: int) -> None:
    stub.faults.append(Answer(status, b"", {"Retry-After": "7"}))
    with opened(stub, api) as store:
        with pytest.raises(StoreUnavailable, match=f"HTTP {status}") as caught:
            store.write(polls(1))
        assert caught.value.retry_after_seconds == 7
        store.write(polls(1))
    assert len(kept(stub)) == 1


@pytest.mark.parametrize("status", [408, 500, 502, 504, 599])
def test_a_server_that_is_ill_is_unavailable(stub: InfluxStub, api: str, status: int) -> None:
    stub.faults.append(Answer(status, b"<html>Bad Gateway</html>"))
    with opened(stub, api) as store, pytest.raises(StoreUnavailable) as caught:
        store.write(polls(1))
    assert caught.value.retry_after_seconds is None
    assert "Bad Gateway" in str(caught.value)


def test_one_write_is_one_try(stub: InfluxStub, api: str) -> None:
    stub.faults.append(Answer(503, b""))
    with opened(stub, api) as store, pytest.raises(StoreUnavailable):
        store.write(polls(1))
    assert len(stub.requests) == 1


def test_a_server_that_accepts_and_hangs_is_unavailable(stub: InfluxStub, api: str) -> None:
    stub.faults.append(NoAnswer())
    with (
        opened(stub, api, timeout_seconds=0.2) as store,
        pytest.raises(StoreUnavailable, match=r"not answered within 0\.2 s"),
    ):
        store.write(polls(1))


def test_version_3_is_left_at_the_deadline_even_if_it_dribbles(stub: InfluxStub) -> None:
    stub.faults.append(Answer(200, b"x" * 1000, seconds_per_byte=0.02))
    with (
        opened(stub, "v3", timeout_seconds=0.3) as store,
        pytest.raises(StoreUnavailable, match=r"not answered within 0\.3 s"),
    ):
        store.write(polls(1))


def test_an_answer_of_version_3_that_is_too_large_is_given_up(stub: InfluxStub) -> None:
    stub.faults.append(Answer(400, b"x" * (MAX_REPLY_BYTES + 1)))
    with opened(stub, "v3") as store, pytest.raises(StoreUnavailable, match="more than 10000000"):
        store.write(polls(1))


def test_an_answer_that_is_not_text_is_no_crash(stub: InfluxStub, api: str) -> None:
    stub.faults.append(Answer(500, b"\xff\xfe\x00"))
    with opened(stub, api) as store, pytest.raises(StoreUnavailable):
        store.write(polls(1))


def test_nobody_listening_is_unavailable(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_TOKEN", STUB_TOKEN)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = InfluxStore(settings_for(url, api), CATALOG)
        with pytest.raises(StoreUnavailable, match="Check its url"):
            store.write(polls(1))
        with pytest.raises(StoreUnavailable):
            store.check()
        store.close()


def test_the_batches_before_a_failure_are_kept_and_may_be_written_again(
    stub: InfluxStub, api: str
) -> None:
    stub.faults.extend([None, Answer(503, b"")])
    with opened(stub, api, batch_points=5) as store:
        with pytest.raises(StoreUnavailable):
            store.write(polls(10))
        assert len(kept(stub)) == 5
        store.write(polls(10))
    assert len(kept(stub)) == 10


def test_a_redirection_is_not_followed_with_our_token(stub: InfluxStub, api: str) -> None:
    with InfluxStub() as elsewhere:
        stub.faults.append(Answer(307, b"", {"Location": f"{elsewhere.url}/api/v2/write"}))
        with opened(stub, api) as store, pytest.raises(StoreError, match=elsewhere.url):
            store.write(polls(1))
        assert not elsewhere.requests


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_named_and_never_shown(stub: InfluxStub, api: str, status: int) -> None:
    echo = json.dumps({"message": f"bad header: Token {STUB_TOKEN}"}).encode()
    stub.faults.append(Answer(status, echo))
    with opened(stub, api) as store, pytest.raises(StoreError) as caught:
        store.write(polls(1))
    assert type(caught.value) is StoreError
    assert "environment variable STUB_TOKEN" in str(caught.value)
    assert STUB_TOKEN not in everything_shown(caught.value)


def test_a_missing_bucket_says_how_to_create_it(stub: InfluxStub) -> None:
    with (
        opened(stub, "v2", databases={"tests": "missing"}) as store,
        pytest.raises(StoreError, match="influx bucket create --org any --name missing"),
    ):
        store.write(polls(1))


def test_a_server_without_the_v3_api_says_so(stub: InfluxStub) -> None:
    stub.faults.append(Answer(404, b"404 page not found"))
    with opened(stub, "v3") as store, pytest.raises(StoreError, match="for an InfluxDB 2 set"):
        store.write(polls(1))


def test_a_token_that_changes_is_used_at_the_next_write(
    stub: InfluxStub, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(stub, api) as store:
        monkeypatch.setenv("STUB_TOKEN", "an-old-one")
        with pytest.raises(StoreError, match="HTTP 401"):
            store.write(polls(1))
        monkeypatch.setenv("STUB_TOKEN", STUB_TOKEN)
        store.write(polls(1))
    assert len(kept(stub)) == 1


def test_a_token_that_is_not_there_is_a_store_error(
    stub: InfluxStub, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STUB_TOKEN")
    with opened(stub, api) as store, pytest.raises(StoreError, match="STUB_TOKEN"):
        store.write(polls(1))


@pytest.mark.parametrize("token", ["two\nlines", "nul\x7f", "schlüssel"])
def test_a_token_that_no_header_can_hold_is_not_shown(
    stub: InfluxStub, api: str, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("STUB_TOKEN", token)
    with opened(stub, api) as store, pytest.raises(StoreError) as caught:
        store.write(polls(1))
    assert token not in everything_shown(caught.value)
    assert "Copy it again" in str(caught.value)


def test_a_healthy_server_shows_our_databases(stub: InfluxStub, api: str) -> None:
    with opened(stub, api) as store:
        assert store.check() == f"InfluxDB at {stub.url} is healthy; tests is there"


def test_a_database_that_is_not_shown_is_said_to_be_so(stub: InfluxStub, api: str) -> None:
    with opened(stub, api, databases={"tests": "missing"}) as store:
        assert "missing is not there, or not shown to this token" in store.check()


def test_a_bucket_among_hundreds_is_found(stub: InfluxStub) -> None:
    stub.other_buckets = 250
    with opened(stub, "v2") as store:
        assert store.check().endswith("is healthy; tests is there")
    with opened(stub, "v2", databases={"tests": "missing"}) as store:
        for refusal in (None, Answer(401, b'{"code": "unauthorized"}')):
            stub.faults.extend([None, None, refusal])
            assert "missing is not there, or not shown to this token" in store.check()


def test_a_check_with_a_wrong_token_fails(
    stub: InfluxStub, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_TOKEN", "wrong")
    with opened(stub, api) as store, pytest.raises(StoreError, match="STUB_TOKEN"):
        store.check()


def test_a_token_that_may_only_write_passes_the_check(stub: InfluxStub, api: str) -> None:
    stub.faults.extend([None, Answer(403, b'{"code": "forbidden"}')])
    with opened(stub, api) as store:
        assert "does not list its databases" in store.check()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"buckets": 1}', b"[1]", b'"a"'])
def test_a_server_that_does_not_list_its_databases_is_healthy_all_the_same(
    stub: InfluxStub, api: str, body: bytes
) -> None:
    stub.faults.extend([None, Answer(404, body)])
    with opened(stub, api) as store:
        assert store.check().startswith(f"InfluxDB at {stub.url} is healthy")


def test_a_check_of_a_server_that_is_ill_is_unavailable(stub: InfluxStub, api: str) -> None:
    stub.faults.append(Answer(503, b"starting"))
    with opened(stub, api) as store, pytest.raises(StoreUnavailable):
        store.check()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_cannot_list_its_databases_now_is_unavailable(
    stub: InfluxStub, api: str, status: int
) -> None:
    stub.faults.extend([None, Answer(status, b"busy")])
    with opened(stub, api) as store, pytest.raises(StoreUnavailable, match=f"HTTP {status}"):
        store.check()


def test_no_repr_shows_the_token(stub: InfluxStub, api: str) -> None:
    with opened(stub, api) as store:
        store.write(polls(1))
        assert STUB_TOKEN not in repr(store) + repr(vars(store)) + store.name
        assert STUB_TOKEN not in repr(settings_for(stub.url, api))


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path)


@pytest.fixture
def tls_stub(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InfluxStub]:
    monkeypatch.setenv("STUB_TOKEN", STUB_TOKEN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with InfluxStub(context) as server:
        yield server


def test_a_private_certificate_is_trusted_through_ca_file(
    tls_stub: InfluxStub, api: str, certificate: Path
) -> None:
    with opened(tls_stub, api, ca_file=str(certificate)) as store:
        store.write(polls(1))
        assert "is healthy" in store.check()
    assert len(kept(tls_stub)) == 1


def test_a_certificate_nobody_vouches_for_gets_no_token(tls_stub: InfluxStub, api: str) -> None:
    with opened(tls_stub, api) as store:
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate.*ca_file"):
            store.write(polls(1))
        with pytest.raises(StoreUnavailable):
            store.check()
    assert not tls_stub.requests


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_ca_file_that_is_none_is_a_configuration_error(
    tmp_path: Path, api: str, content: str | None
) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"store\.ca_file"):
        InfluxStore(settings_for("https://127.0.0.1:1", api, ca_file=str(ca_file)), CATALOG)


# --- what real servers of version 2 say -----------------------------------------------------------

# From models/points.go and tsdb/shard.go of InfluxDB 1.8 and 2.7: the engine is the same.
CONFLICT = (
    "failure writing points to database: partial write: field type conflict: input field "
    '"value" on measurement "polls" is type integer, already exists as type float dropped=2'
)
TOO_OLD = "partial write: points beyond retention policy dropped=3"
UNPARSED = (
    "partial write: unable to parse 'polls': missing fields\nunable to parse 'x': y dropped=0"
)


@pytest.mark.parametrize(
    ("status", "document", "rejected"),
    [
        (422, {"code": "unprocessable entity", "message": CONFLICT}, {"field_type_conflict": 2}),
        (400, {"error": CONFLICT}, {"field_type_conflict": 2}),
        (400, {"error": TOO_OLD}, {"store_rejected": 3}),
        (400, {"error": UNPARSED}, {"store_rejected": 2}),
    ],
)
def test_a_partial_write_is_counted_as_the_server_says(
    stub: InfluxStub, status: int, document: dict[str, str], rejected: dict[str, int]
) -> None:
    stub.faults.append(Answer(status, json.dumps(document).encode()))
    with opened(stub, "v2") as store, pytest.raises(PartialWrite) as caught:
        store.write(polls(5))
    assert caught.value.rejected == rejected
    assert caught.value.accepted == 5 - sum(rejected.values())
    assert len(stub.requests) == 1


def test_the_lines_of_version_3_are_counted_each_by_its_reason() -> None:
    lines = ["invalid column type for column 'value'", "No fields were provided", "else"]
    document = {
        "error": "partial write of line protocol occurred",
        "data": [{"line_number": n, "error_message": text} for n, text in enumerate(lines)],
    }
    found = partly_refused(Reply(400, {}, json.dumps(document).encode()))
    assert found is not None
    assert found.rejected == {"field_type_conflict": 1, "store_rejected": 2}


CONFLICT = (
    'partial write: field type conflict: input field "value" on measurement "polls" is type '
    "{kind}, already exists as type float dropped={dropped}"
)


@pytest.mark.parametrize(
    ("kind", "dropped", "lines"),
    [
        ("integer", 1, {2}),
        ("string", 2, {3, 4}),
        ("boolean", 1, {5}),
        ("integer", 2, None),  # another field is in conflict, too
        ("string", 1, None),  # some are in a shard that has no such field yet
        ("unsigned", 1, None),
    ],
)
def test_which_points_are_in_conflict_is_told_where_it_is_certain(
    kind: str, dropped: int, lines: set[int] | None
) -> None:
    values: tuple[FieldValue, ...] = (1.5, 2, "3", "4", True)
    batch = [*(poll({"value": value}) for value in values), poll({"count": 2})]
    body = json.dumps({"message": CONFLICT.format(kind=kind, dropped=dropped)}).encode()
    assert in_conflict(Reply(422, {}, body), batch) == lines
    assert in_conflict(Reply(422, {}, body + b"unable to parse"), batch) is None
    assert in_conflict(Reply(422, {}, b"partial write: dropped=1"), batch) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["partial write", "dropped=1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "data", "error_message"]), inner)
    ),
)


@given(st.one_of(st.binary(), JSON.map(lambda document: json.dumps(document).encode())))
def test_no_reply_is_too_strange_to_be_read(body: bytes) -> None:
    reply = Reply(400, {}, body)
    found = partly_refused(reply)
    assert found is None or sum(found.rejected.values()) >= 1
    assert refusal_reason(reply) in ("store_rejected", "field_type_conflict")
    assert isinstance(said(reply), str)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"url": "http://user:secret@host:8086"}, "take user and password out of the url"),
        ({"url": "host:8086"}, "expected http://host:port"),
        ({"url": "ftp://host"}, "expected http://host:port"),
        ({"url": "http://host:port"}, "expected http://host:port"),
        ({"url": "http://host:8086?db=a"}, "expected http://host:port"),
        ({"token": "secret"}, "a secret is never written here"),
        ({"api": "v3"}, "give `org` with api v2, and only there"),
        ({"org": None}, "give `org` with api v2, and only there"),
        ({"timeout": 5}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused_with_a_reason(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings_for(**{"url": "http://host:8086", "api": "v2", "org": "any", **changes})


def test_a_slash_at_the_end_of_the_url_does_not_matter() -> None:
    assert settings_for("http://host:8086/influx/", "v2").url == "http://host:8086/influx"


def everything_shown(error: BaseException) -> str:
    """The traceback as it would be logged, with its causes."""
    return "".join(traceback.format_exception(error))
