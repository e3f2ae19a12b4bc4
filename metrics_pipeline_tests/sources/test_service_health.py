"""Services over real HTTP with real time-outs: who is healthy, and that nobody disturbs another."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from metrics_pipeline.core.catalog import CATALOG, SERVICE_METRICS
from metrics_pipeline.core.errors import (
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.core.service_counters import HEALTHY, KNOWN_COUNTERS
from metrics_pipeline.core.validation import INT64_MAX, validate
from metrics_pipeline.settings import PlatformSettings
from metrics_pipeline.simulators.loopback_server import Answer, NoAnswer, Request
from metrics_pipeline.simulators.platform_services import (
    BREAKS,
    HUGE_PAGE_BYTES,
    Condition,
    PlatformService,
)
from metrics_pipeline.sources.service_health import ServiceHealth
from metrics_pipeline.sources.service_health_settings import ServiceSettings
from metrics_pipeline_tests.raw_server import Talk, raw_server
from metrics_pipeline_tests.servers import self_signed

TIME_NS = 1_700_000_000_000_000_000
LONG_SECONDS = 30.0
SHORT_SECONDS = 0.5
INGEST = {
    "messages_received": 100,
    "messages_written": 90,
    "messages_rejected": 3,
    "queue_depth": 7,
}
COUNTERS: Mapping[str, Mapping[str, int]] = {
    name: {field: 10 + at for at, field in enumerate(known)}
    for name, known in KNOWN_COUNTERS.items()
}

Fields = Mapping[str, Any]


@pytest.fixture
def services() -> Iterator[dict[str, PlatformService]]:
    """The four services, which are well."""
    with ExitStack() as running:
        yield {
            name: running.enter_context(PlatformService(counters))
            for name, counters in COUNTERS.items()
        }


@pytest.fixture
def ingest() -> Iterator[PlatformService]:
    with PlatformService(INGEST) as service:
        yield service


@contextmanager
def reading_from(
    services: Mapping[str, PlatformService], hurried: str = ""
) -> Iterator[ServiceHealth]:
    """The source; of the service called `hurried` the time-out is short."""
    settings = {
        name: ServiceSettings(
            url=service.url, timeout_seconds=SHORT_SECONDS if name == hurried else LONG_SECONDS
        )
        for name, service in services.items()
    }
    with closing(ServiceHealth(settings)) as source:
        yield source


def read(name: str, **settings: Any) -> Reading:
    with closing(ServiceHealth({name: ServiceSettings.model_validate(settings)})) as source:
        return source.read(TIME_NS)


def fields_of(reading: Reading) -> dict[str, Fields]:
    assert all(point.measurement == "service_metrics" for point in reading.points)
    assert all(point.time_ns == TIME_NS for point in reading.points)
    return {point.tags["service"]: point.fields for point in reading.points}


def only(reading: Reading) -> tuple[Fields, SourceError]:
    """The fields of the one service, and the one failure."""
    (fields,) = fields_of(reading).values()
    (failure,) = reading.failures
    return fields, failure


# --- who is well ----------------------------------------------------------------------------------


def test_the_counters_of_the_contract_are_read_of_the_four_services(
    services: dict[str, PlatformService],
) -> None:
    with reading_from(services) as source:
        reading = source.read(TIME_NS)
    assert reading.failures == ()
    assert fields_of(reading) == {
        name: {HEALTHY: 1, **counters} for name, counters in COUNTERS.items()
    }
    assert {field: type(value) for field, value in reading.points[0].fields.items()} == (
        dict.fromkeys([HEALTHY, *INGEST], int)
    )


def test_the_contracts_names_are_literal() -> None:
    assert {name: tuple(known) for name, known in KNOWN_COUNTERS.items()} == {
        "ingest": ("messages_received", "messages_written", "messages_rejected", "queue_depth"),
        "evaluator": ("rules_evaluated", "alerts_created"),
        "dispatcher": ("alerts_processed", "routes_matched"),
        "delivery": ("jobs_succeeded", "jobs_failed", "jobs_pending"),
    }
    assert (SERVICE_METRICS.name, SERVICE_METRICS.tags) == ("service_metrics", ("service",))
    assert SERVICE_METRICS.database == "system_metrics"


def test_every_point_is_one_that_the_catalogue_lets_in(
    services: dict[str, PlatformService],
) -> None:
    with reading_from(services) as source:
        for point in source.read(TIME_NS).points:
            assert validate(point, CATALOG, TIME_NS) == point


def test_connections_are_kept_from_one_reading_to_the_next(ingest: PlatformService) -> None:
    ports = set()
    with reading_from({"ingest": ingest}) as source:
        for _ in range(3):
            source.read(TIME_NS)
            ports |= {
                line.split()[2]
                for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
                if line.split()[1].endswith(f":{int(ingest.host.rpartition(':')[2]):04X}")
                and line.split()[3] == "01"
            }
    assert len(ports) == 1


def test_a_missing_counter_is_0(ingest: PlatformService) -> None:
    ingest.counters = {"messages_received": 5}
    with reading_from({"ingest": ingest}) as source:
        reading = source.read(TIME_NS)
    assert reading.failures == ()
    assert fields_of(reading)["ingest"] == {
        HEALTHY: 1,
        **dict.fromkeys(INGEST, 0),
        "messages_received": 5,
    }


@pytest.mark.parametrize("page", [b"{}", b'{"status": "ok"}', b'\xef\xbb\xbf{"counters": {}}'])
def test_a_page_without_counters_has_all_of_them_at_0(ingest: PlatformService, page: bytes) -> None:
    ingest.faults.append(Answer(200, page))
    reading = read("ingest", url=ingest.url)
    assert fields_of(reading)["ingest"] == {HEALTHY: 1, **dict.fromkeys(INGEST, 0)}


def test_counters_that_nobody_asked_for_are_left_out(ingest: PlatformService) -> None:
    ingest.counters |= {"secrets": 3}
    assert fields_of(read("ingest", url=ingest.url))["ingest"] == {HEALTHY: 1, **INGEST}


def test_a_service_of_another_name_has_the_counters_that_are_listed() -> None:
    with PlatformService({"invoices_total": 12, "queue_depth": 3, "other": 1}) as billing:
        listed = read("billing", url=billing.url, counters=["invoices_total", "queue_depth"])
        unlisted = read("billing", url=billing.url)
    assert fields_of(listed)["billing"] == {HEALTHY: 1, "invoices_total": 12, "queue_depth": 3}
    assert fields_of(unlisted)["billing"] == {HEALTHY: 1}


def test_a_page_that_is_slow_but_in_time_is_healthy(ingest: PlatformService) -> None:
    ingest.condition, ingest.slow_seconds = Condition.SLOW, 0.2
    assert fields_of(read("ingest", url=ingest.url, timeout_seconds=LONG_SECONDS))["ingest"] == {
        HEALTHY: 1,
        **INGEST,
    }


# --- who is not -----------------------------------------------------------------------------------

FAILURES: Mapping[Condition, tuple[type[SourceError], str]] = {
    Condition.SLOW: (SourceUnreachable, "not answered within 0.5 s"),
    Condition.HANGING: (SourceUnreachable, "not answered within 0.5 s"),
    Condition.DRIBBLING: (SourceUnreachable, "not answered within 0.5 s"),
    Condition.WRONG_STATUS: (SourceUnreachable, "HTTP 503"),
    Condition.BAD_JSON: (UnexpectedReply, "the page is not JSON"),
    Condition.HUGE_PAGE: (UnexpectedReply, "more than 1000000 bytes"),
    Condition.REDIRECTING: (UnexpectedReply, "HTTP 302, 200 expected"),
}


@pytest.mark.parametrize("condition", FAILURES)
def test_a_broken_service_is_0_says_why_and_disturbs_no_other(
    services: dict[str, PlatformService], condition: Condition
) -> None:
    services["evaluator"].condition = condition
    services["evaluator"].slow_seconds = LONG_SECONDS
    is_in_time = condition in (Condition.SLOW, Condition.HANGING, Condition.DRIBBLING)
    with reading_from(services, hurried="evaluator" if is_in_time else "") as source:
        readings = [source.read(TIME_NS) for _ in range(2)]
        services["evaluator"].condition = Condition.WELL
        mended = source.read(TIME_NS)
    kind, problem = FAILURES[condition]
    for reading in readings:
        fields = dict(fields_of(reading))
        assert fields.pop("evaluator") == {HEALTHY: 0}
        assert all(each == {HEALTHY: 1, **COUNTERS[name]} for name, each in fields.items())
        (failure,) = reading.failures
        assert type(failure) is kind
        assert failure.target == "evaluator"
        assert f"reading evaluator: GET {services['evaluator'].url}: {problem}" in str(failure)
    assert mended.failures == ()
    assert fields_of(mended)["evaluator"] == {HEALTHY: 1, **COUNTERS["evaluator"]}


def test_every_break_of_the_simulator_is_tried() -> None:
    here = {*FAILURES, Condition.REFUSING, Condition.BAD_COUNTERS}
    assert here == set(BREAKS)


class Waiting(PlatformService):
    """Answers once all services have been asked."""

    def __init__(self, counters: Mapping[str, int], all_asked: threading.Barrier) -> None:
        super().__init__(counters)
        self._all_asked = all_asked

    def respond(self, request: Request) -> Answer:
        self._all_asked.wait(LONG_SECONDS)
        return super().respond(request)


def test_all_services_are_asked_at_the_same_moment() -> None:
    all_asked = threading.Barrier(len(COUNTERS))
    with ExitStack() as running:
        services = {
            name: running.enter_context(Waiting(counters, all_asked))
            for name, counters in COUNTERS.items()
        }
        with reading_from(services) as source:
            assert source.read(TIME_NS).failures == ()


def test_a_service_that_hangs_costs_no_reading_however_long_its_time_out(
    ingest: PlatformService,
) -> None:
    ingest.condition = Condition.HANGING
    service = ServiceSettings(url=ingest.url, timeout_seconds=60.0)

    def is_in_time() -> bool:
        with closing(ServiceHealth({"ingest": service}, every_seconds=1.0)) as source:
            started = time.monotonic()
            fields, _ = only(source.read(TIME_NS))
            assert fields == {HEALTHY: 0}
            return time.monotonic() - started < 1.0

    # On a machine that is busy some are not.
    assert any(is_in_time() for _ in range(8))


def test_a_port_that_nobody_listens_on_is_0(services: dict[str, PlatformService]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but not listening
        fields, failure = only(read("ingest", url=f"http://127.0.0.1:{bound.getsockname()[1]}/"))
    assert fields == {HEALTHY: 0}
    assert isinstance(failure, SourceUnreachable)
    assert "Connection refused" in str(failure)


def test_a_service_that_goes_and_comes_back_is_followed(ingest: PlatformService) -> None:
    with reading_from({"ingest": ingest}) as source:
        assert fields_of(source.read(TIME_NS))["ingest"][HEALTHY] == 1
        ingest.__exit__(None, None, None)
        # The connection that was kept is closed when it is used, and nobody takes the next.
        fields, failure = only(source.read(TIME_NS))
        assert (fields, type(failure)) == ({HEALTHY: 0}, SourceUnreachable)
        with PlatformService(INGEST, port=int(ingest.host.rpartition(":")[2])):
            assert fields_of(source.read(TIME_NS))["ingest"] == {HEALTHY: 1, **INGEST}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (201, UnexpectedReply),
        (204, UnexpectedReply),
        (304, UnexpectedReply),
        (400, UnexpectedReply),
        (401, SourceRefused),
        (403, SourceRefused),
        (404, SourceRefused),
        (429, SourceThrottled),
        (500, SourceUnreachable),
    ],
)
def test_any_status_but_200_is_0(
    ingest: PlatformService, status: int, kind: type[SourceError]
) -> None:
    body = b"" if status in (204, 304) else json.dumps({"counters": INGEST}).encode()
    ingest.faults.append(Answer(status, body))
    fields, failure = only(read("ingest", url=ingest.url))
    assert fields == {HEALTHY: 0}
    assert type(failure) is kind
    assert f"HTTP {status}" in str(failure)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"ok",
        b"<html>",
        b'{"counters": {}',
        b'{"counters": {}} trailing',
        b"\xff\xfe\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[]",
        b'"ok"',
        b"1",
        b"null",
        b"true",
    ],
)
def test_a_page_that_is_not_a_json_object_is_0(ingest: PlatformService, page: bytes) -> None:
    ingest.faults.append(Answer(200, page))
    fields, failure = only(read("ingest", url=ingest.url))
    assert fields == {HEALTHY: 0}
    assert isinstance(failure, UnexpectedReply)
    assert len(str(failure)) < 1000


def test_of_a_page_of_50_mb_only_the_beginning_is_taken(ingest: PlatformService) -> None:
    def pour(talk: Talk) -> None:
        talk.answer(f"HTTP/1.1 200 OK\r\nContent-Length: {HUGE_PAGE_BYTES}\r\n\r\n".encode())
        talk.repeat(b" " * 65_536)

    with raw_server(pour) as server:
        fields, failure = only(read("ingest", url=server.url, timeout_seconds=LONG_SECONDS))
        assert server.was_left.wait(LONG_SECONDS)
    assert fields == {HEALTHY: 0}
    assert "more than 1000000 bytes" in str(failure)


def test_an_answer_that_is_not_http_is_0() -> None:
    with raw_server(lambda talk: talk.answer(b"220 mail.example ESMTP\r\n")) as server:
        fields, failure = only(read("ingest", url=server.url))
    assert fields == {HEALTHY: 0}
    assert isinstance(failure, SourceUnreachable)


# --- bad counters ---------------------------------------------------------------------------------

WRONG = {
    "-1": "-1",
    "-9223372036854775809": "-9223372036854775809",
    "1.5": "1.5",
    "-0.5": "-0.5",
    "NaN": "nan",
    "Infinity": "more than 64 bits hold",
    "1e400": "more than 64 bits hold",
    "1e300": "1e+300",
    "9223372036854775808": "9223372036854775808",
    "9223372036854775808.0": "9.223372036854776e+18",
    "1" + "0" * 5000: "more than 64 bits hold",
    "-1" + "0" * 5000: "more than 64 bits hold",
    '"12"': "text",
    '""': "text",
    "true": "true or false",
    "false": "true or false",
    "null": "null",
    '{"value": 1}': "an object",
    "[1]": "a list",
}


@pytest.mark.parametrize("value", WRONG, ids=lambda value: value[:20])
def test_a_bad_counter_is_refused_and_leaves_the_others_and_the_service_healthy(
    ingest: PlatformService, value: str
) -> None:
    page = json.dumps({"counters": {**INGEST, "queue_depth": "HERE"}}).replace('"HERE"', value)
    ingest.faults.append(Answer(200, page.encode()))
    fields, failure = only(read("ingest", url=ingest.url))
    others = {name: n for name, n in INGEST.items() if name != "queue_depth"}
    assert fields == {HEALTHY: 1, **others}
    assert isinstance(failure, UnexpectedReply)
    assert failure.target == "ingest.queue_depth"
    assert f"from 0 to 2^63 - 1, got {WRONG[value]}. " in str(failure)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0", 0), ("-0", 0), ("12.0", 12), ("-0.0", 0), ("1e3", 1000), (str(INT64_MAX), INT64_MAX)],
)
def test_a_whole_number_is_taken_however_it_is_written(
    ingest: PlatformService, value: str, expected: int
) -> None:
    ingest.faults.append(Answer(200, f'{{"counters": {{"queue_depth": {value}}}}}'.encode()))
    fields = fields_of(read("ingest", url=ingest.url))["ingest"]
    assert fields["queue_depth"] == expected
    assert type(fields["queue_depth"]) is int


@pytest.mark.parametrize("counters", ["null", "[]", "3", '"none"'])
def test_counters_that_are_no_object_are_one_failure_and_no_zeros(
    ingest: PlatformService, counters: str
) -> None:
    ingest.faults.append(Answer(200, f'{{"counters": {counters}}}'.encode()))
    fields, failure = only(read("ingest", url=ingest.url))
    assert fields == {HEALTHY: 1}
    assert failure.target == "ingest.counters"


def test_several_bad_counters_are_as_many_failures(ingest: PlatformService) -> None:
    ingest.condition = Condition.BAD_COUNTERS
    reading = read("ingest", url=ingest.url)
    assert fields_of(reading)["ingest"] == {HEALTHY: 1}
    assert [failure.target for failure in reading.failures] == [f"ingest.{name}" for name in INGEST]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
COUNTER_PAGES = st.dictionaries(st.sampled_from([*INGEST, "other"]), JSON).map(
    lambda counters: json.dumps({"counters": counters}).encode()
)


@given(page=COUNTER_PAGES | JSON.map(lambda page: json.dumps(page).encode()) | st.binary())
def test_whatever_is_on_the_page_makes_a_point_that_may_be_stored(
    hypothesis_service: tuple[PlatformService, ServiceHealth], page: bytes
) -> None:
    service, source = hypothesis_service
    service.faults.append(Answer(200, page))
    (point,) = source.read(TIME_NS).points
    assert validate(point, CATALOG, TIME_NS) == point


@pytest.fixture(scope="module")
def hypothesis_service() -> Iterator[tuple[PlatformService, ServiceHealth]]:
    with PlatformService(INGEST) as service, reading_from({"ingest": service}) as source:
        yield service, source


# --- addresses ------------------------------------------------------------------------------------


def test_an_address_in_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "url"
    service = ServiceSettings.model_validate({"url_from": {"file": file}, "counters": ["n"]})
    with closing(ServiceHealth({"billing": service})) as source:
        fields, failure = only(source.read(TIME_NS))
        assert fields == {HEALTHY: 0}
        assert isinstance(failure, SourceRefused)
        assert f"file {file}: cannot be read" in str(failure)
        for n in (1, 2):
            with PlatformService({"n": n}) as other:
                file.write_text(f"{other.url}\n")
                assert fields_of(source.read(TIME_NS))["billing"] == {HEALTHY: 1, "n": n}


@pytest.mark.parametrize("failing", ["wrong address", "wrong scheme", "hanging", "404"])
def test_an_address_that_may_have_a_token_in_it_is_never_shown(
    ingest: PlatformService, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    token = "the-token-that-no-message-may-show"
    url = f"{ingest.url}?token={token}"
    given = {"wrong address": f"http://[{token}", "wrong scheme": url.replace("http", "ftp")}
    monkeypatch.setenv("THE_URL", given.get(failing, url))
    ingest.faults.append(NoAnswer() if failing == "hanging" else Answer(404, b"no"))
    fields, failure = only(
        read("ingest", url_from={"env": "THE_URL"}, timeout_seconds=SHORT_SECONDS)
    )
    assert fields == {HEALTHY: 0}
    assert "environment variable THE_URL" in str(failure)
    assert token not in str(failure)
    assert token not in repr(failure)


def test_a_query_in_an_address_is_sent_and_not_shown(ingest: PlatformService) -> None:
    ingest.faults.append(Answer(404, b""))
    _, failure = only(read("ingest", url=f"{ingest.url}?deep=1"))
    assert ingest.requests[-1].parameters == {"deep": "1"}
    assert f"GET {ingest.url}: HTTP 404" in str(failure)


def test_two_services_of_one_address_are_asked_once(ingest: PlatformService) -> None:
    with reading_from({"ingest": ingest, "delivery": ingest}) as source:
        assert len(source.read(TIME_NS).points) == 2
    assert len(ingest.requests) == 1


def test_https_is_trusted_through_ca_file_alone(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with PlatformService(INGEST, tls=context) as service:
        assert service.url.startswith("https://")
        settings = {"ingest": ServiceSettings(url=service.url)}
        with closing(ServiceHealth(settings, certificate)) as source:
            assert fields_of(source.read(TIME_NS))["ingest"] == {HEALTHY: 1, **INGEST}
        fields, failure = only(read("ingest", url=service.url))
    assert fields == {HEALTHY: 0}
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_makes_each_service_0_and_says_so(
    ingest: PlatformService, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with closing(ServiceHealth({"ingest": ServiceSettings(url=ingest.url)}, file)) as source:
        fields, failure = only(source.read(TIME_NS))
    assert fields == {HEALTHY: 0}
    assert "platform.ca_file" in str(failure)


# --- its life -------------------------------------------------------------------------------------


def test_no_services_is_an_empty_reading() -> None:
    with closing(ServiceHealth({})) as source:
        assert source.read(TIME_NS) == Reading(())


def test_after_its_end_it_says_so_and_ends_once_more(ingest: PlatformService) -> None:
    with reading_from({"ingest": ingest}) as source:
        source.read(TIME_NS)
        source.close()
        with pytest.raises(RuntimeError, match="was closed"):
            source.read(TIME_NS)


def test_the_thread_that_reads_need_not_be_the_one_that_made_it(ingest: PlatformService) -> None:
    found: list[Reading] = []
    with reading_from({"ingest": ingest}) as source:
        thread = threading.Thread(target=lambda: found.append(source.read(TIME_NS)))
        thread.start()
        thread.join()
        found.append(source.read(TIME_NS))
    assert [reading.failures for reading in found] == [(), ()]


# --- settings -------------------------------------------------------------------------------------

URL = {"url": "http://ingest:8080/health"}


@pytest.mark.parametrize(
    ("services", "problem"),
    [
        ({"ingest": {}}, "exactly one of url and url_from"),
        ({"ingest": {**URL, "url_from": {"env": "X"}}}, "exactly one of url and url_from"),
        ({"ingest": {"url": "ingest:8080"}}, "expected http://host:port/path"),
        ({"ingest": {"url": "ftp://ingest/health"}}, "expected http://host:port/path"),
        ({"ingest": {"url": "http://ingest:70000/"}}, "expected http://host:port/path"),
        ({"ingest": {"url": "http://[::1"}}, "expected http://host:port/path"),
        ({"ingest": {"url": "http://me:secret@ingest/"}}, "take user and password out"),
        ({"ingest": {**URL, "timeout_seconds": 0}}, "greater than 0"),
        ({"ingest": {**URL, "counters": ["mine"]}}, "ingest.counters: expected none"),
        ({"a b": URL}, "letters, digits"),
        ({"a.b": URL}, "letters, digits"),
        ({"billing": {**URL, "counters": ["healthy"]}}, "small letters, digits"),
        ({"billing": {**URL, "counters": ["Big"]}}, "small letters, digits"),
        ({"billing": {**URL, "counters": ["n", "n_total"]}}, "n or n_total, got both"),
        ({"a": {**URL, "counters": ["n"]}, "b": {**URL, "counters": ["n_total"]}}, "got both"),
        ({"billing": {**URL, "counters": ["queue_depth_total"]}}, "got both"),
    ],
)
def test_settings_that_make_no_sense_are_refused(services: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        PlatformSettings.model_validate({"services": services})


def test_counters_that_are_named_become_metrics_of_the_catalogue() -> None:
    services: dict[str, Any] = {
        "ingest": URL,
        "billing": {**URL, "counters": ["invoices_total", "waiting", "queue_depth"]},
    }
    named = PlatformSettings.model_validate({"services": services}).named_counters()
    assert [(metric.field, metric.family.name, str(metric.family.type)) for metric in named] == [
        ("invoices_total", "service_invoices_total", "counter"),
        ("waiting", "service_waiting", "gauge"),
    ]
