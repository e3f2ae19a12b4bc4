"""AWS IoT's counts over the real wire: the simulated AWS, and moto's server where it is right."""

from __future__ import annotations

import itertools
import json
import logging
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from moto.iot.models import iot_backends
from moto.server import ThreadedMotoServer
from pydantic import ValidationError

from metrics_pipeline.access.aws_credentials import Identity
from metrics_pipeline.access.aws_replies import error_of, parse_error
from metrics_pipeline.access.http import Reply
from metrics_pipeline.core.backoff import Timing
from metrics_pipeline.core.catalog import (
    CONCENTRATOR_COUNT,
    CONNECTED_DEVICE_COUNT,
    CONNECTED_EDGE_DEVICE_COUNT,
    DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    FAILED_DEPLOYMENT_COUNT,
    Metric,
)
from metrics_pipeline.core.errors import (
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.simulators.aws_iot import (
    ACCESS_DENIED,
    EXPIRED_TOKEN,
    INDEX_NOT_READY,
    SERVER_ERROR,
    THROTTLED,
    TOO_MANY_REQUESTS,
    AwsIotSimulator,
    Deployment,
    Fault,
    Fleet,
    dribble,
    half_json,
    json_answer,
    same_token,
)
from metrics_pipeline.simulators.loopback_server import Answer, NoAnswer
from metrics_pipeline.sources.aws_iot import (
    CONNECTED_THINGS,
    CORE_DEVICES,
    DEPLOYMENTS,
    INDEXING,
    NAME,
    SPEC,
    THINGS,
    AwsIot,
    AwsIotSettings,
    Listing,
    parse_is_connectivity_indexed,
    parse_page,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

LISTINGS = (CORE_DEVICES, DEPLOYMENTS, THINGS, CONNECTED_THINGS)
TIME_NS = 1_700_000_000_000_000_000
SECRET_VARIABLE = "TEST_AWS_SECRET"

FLEET = Fleet(
    things=["a", "b", "c", "d", "e", "core0", "core1", "core2"],
    cores={"core0": "HEALTHY", "core1": "UNHEALTHY", "core2": "HEALTHY"},
    connected=["a", "b", "c", "d", "core0", "core1"],
    deployments=[
        Deployment("d0", "FAILED"),
        Deployment("d1", "COMPLETED"),
        Deployment("d2", "FAILED", is_latest=False),
    ],
)
COUNTS = {
    "device_count": 5,
    "connected_device_count": 4,
    "edge_device_count": 3,
    "connected_edge_device_count": 2,
    "failed_deployment_count": 1,
}

MANY_CORES = {f"core{i}": "HEALTHY" if i < 105 else "UNHEALTHY" for i in range(120)}
MANY_DEVICES = [f"thing{i}" for i in range(600)]
LARGE_FLEET = Fleet(
    things=[*MANY_DEVICES, *MANY_CORES],
    cores=MANY_CORES,
    connected=[*MANY_DEVICES[:230], *list(MANY_CORES)[:40]],
    deployments=[
        *(Deployment(f"d{i}", "FAILED") for i in range(103)),
        *(Deployment(f"done{i}", "COMPLETED") for i in range(10)),
        *(Deployment(f"old{i}", "FAILED", is_latest=False) for i in range(20)),
    ],
)
LARGE_COUNTS = {
    "device_count": 600,
    "connected_device_count": 230,
    "edge_device_count": 120,
    "connected_edge_device_count": 105,
    "failed_deployment_count": 103,
}
PAGES = ["ListCoreDevices"] * 2 + ["ListThings"] * 3 + ["SearchIndex"] * 3 + ["ListDeployments"] * 2


@dataclass
class FakeTime:
    """A clock that only moves when one sleeps or looks at it."""

    now: float = 1000.0
    seconds_a_look: float = 0.0
    slept: list[float] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        return Timing(self._monotonic, self._sleep, lambda: 1.0)

    def _monotonic(self) -> float:
        self.now += self.seconds_a_look
        return self.now

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsIotSimulator]:
    with AwsIotSimulator(FLEET) as running:
        monkeypatch.setenv(SECRET_VARIABLE, running.account.secret_access_key)
        yield running


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


def settings_for(simulator: AwsIotSimulator, **changes: Any) -> AwsIotSettings:
    given = {
        "region": simulator.account.region,
        "iot_endpoint_url": simulator.url,
        "greengrass_endpoint_url": simulator.url,
        "access_key_id": simulator.account.access_key_id,
        "secret_access_key": {"env": SECRET_VARIABLE},
        **changes,
    }
    return AwsIotSettings.model_validate({k: v for k, v in given.items() if v is not None})


@contextmanager
def opened(settings: AwsIotSettings, clock: FakeTime) -> Iterator[AwsIot]:
    source = AwsIot(settings, clock.timing)
    try:
        yield source
    finally:
        source.close()


def read(
    simulator: AwsIotSimulator,
    clock: FakeTime,
    metrics: Sequence[Metric] = SPEC.answers,
    **changes: Any,
) -> Reading:
    with opened(settings_for(simulator, **changes), clock) as source:
        return source.read(metrics, TIME_NS)


def counts(reading: Reading) -> dict[str, Any]:
    return {name: value for point in reading.points for name, value in point.fields.items()}


def failures(reading: Reading) -> dict[str, SourceError]:
    return {failure.target: failure for failure in reading.failures}


# --- counting ---------------------------------------------------------------------------------


def test_all_pages_of_everything_are_counted_and_each_is_asked_for_once(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.fleet = LARGE_FLEET
    reading = read(simulator, clock)
    tags = {"provider": "aws_iot"}
    assert reading == Reading(
        tuple(Point("fleet_counts", tags, {k: v}, TIME_NS) for k, v in LARGE_COUNTS.items())
    )
    assert simulator.asked == PAGES
    assert clock.slept == []


@pytest.mark.parametrize(
    ("metric", "asked"),
    [
        (DEVICE_COUNT, {"ListCoreDevices", "ListThings"}),
        (CONNECTED_DEVICE_COUNT, {"ListCoreDevices", "SearchIndex"}),
        (EDGE_DEVICE_COUNT, {"ListCoreDevices"}),
        (CONNECTED_EDGE_DEVICE_COUNT, {"ListCoreDevices"}),
        (FAILED_DEPLOYMENT_COUNT, {"ListDeployments"}),
    ],
)
def test_only_what_a_metric_needs_is_asked_for(
    simulator: AwsIotSimulator, clock: FakeTime, metric: Metric, asked: set[str]
) -> None:
    assert counts(read(simulator, clock, [metric])) == {metric.field: COUNTS[metric.field]}
    assert set(simulator.asked) == asked


def test_counts_fall_with_the_fleet(simulator: AwsIotSimulator, clock: FakeTime) -> None:
    with opened(settings_for(simulator), clock) as source:
        seen = []
        for size in (15, 8, 0):
            names = [f"thing{i}" for i in range(size)]
            simulator.fleet = Fleet(things=names, connected=names)
            seen.append(counts(source.read((DEVICE_COUNT, CONNECTED_DEVICE_COUNT), TIME_NS)))
    assert [tuple(each.values()) for each in seen] == [(15, 15), (8, 8), (0, 0)]


def test_a_core_that_is_no_longer_a_thing_takes_no_device_away(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.fleet = Fleet(things=["a", "b"], cores={"gone": "HEALTHY"})
    reading = read(simulator, clock, (DEVICE_COUNT, EDGE_DEVICE_COUNT))
    assert counts(reading) == {"device_count": 2, "edge_device_count": 1}


def test_a_row_that_comes_on_two_pages_counts_once(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.fleet = Fleet(things=[*MANY_DEVICES[:300], "thing0"])
    assert counts(read(simulator, clock, [DEVICE_COUNT])) == {"device_count": 300}


def with_rows(rows: Any) -> Callable[[Answer], Answer]:
    return lambda truth: json_answer({**json.loads(truth.body), "things": rows})


@pytest.mark.parametrize("rows", [[], None])
def test_after_a_page_without_rows_the_next_page_is_read(
    simulator: AwsIotSimulator, clock: FakeTime, rows: list[Any] | None
) -> None:
    simulator.fleet = LARGE_FLEET
    simulator.script("ListThings", [with_rows(rows)])
    assert counts(read(simulator, clock, [DEVICE_COUNT])) == {"device_count": 350}
    assert simulator.asked.count("ListThings") == 3


def test_nobody_connected_is_believed_where_connectivity_is_indexed(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.fleet = replace(FLEET, connected=[])
    assert counts(read(simulator, clock, [CONNECTED_DEVICE_COUNT])) == {"connected_device_count": 0}
    assert simulator.asked[-1] == "GetIndexingConfiguration"


def test_nobody_connected_is_no_zero_where_connectivity_is_not_indexed(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.fleet = replace(FLEET, is_connectivity_indexed=False)
    reading = read(simulator, clock)
    failure = failures(reading)["connected_device_count"]
    assert isinstance(failure, SourceRefused)
    assert "thingConnectivityIndexingMode=STATUS" in failure.fix
    assert "connectivity is not indexed" in failure.problem
    assert len(reading.points) == 4


@pytest.fixture
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_things_of_motos_server_are_counted_over_two_pages(
    simulator: AwsIotSimulator, clock: FakeTime, moto: str
) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # Put into moto itself: over the wire 255 of them would take two seconds.
    registry = iot_backends["123456789012"]["eu-west-1"]
    for name in [*(f"thing{i}" for i in range(253)), "core0", "core1"]:
        registry.create_thing(name, thing_type_name="", attribute_payload=None)
    reading = read(simulator, clock, [DEVICE_COUNT], iot_endpoint_url=moto)
    assert counts(reading) == {"device_count": 253}


# --- failing ----------------------------------------------------------------------------------

OPERATIONS: Mapping[str, set[str]] = {
    "ListCoreDevices": set(COUNTS) - {"failed_deployment_count"},
    "ListThings": {"device_count"},
    "SearchIndex": {"connected_device_count"},
    "ListDeployments": {"failed_deployment_count"},
}


@pytest.mark.parametrize(
    ("operation", "fault", "expected"),
    [
        *((operation, THROTTLED, SourceThrottled) for operation in OPERATIONS),
        *((operation, ACCESS_DENIED, SourceRefused) for operation in OPERATIONS),
        *((operation, half_json, UnexpectedReply) for operation in OPERATIONS),
        *((operation, same_token, UnexpectedReply) for operation in OPERATIONS),
        ("ListThings", TOO_MANY_REQUESTS, SourceThrottled),
        ("ListThings", SERVER_ERROR, SourceUnreachable),
        ("ListThings", Answer(200, b"<html>Welcome</html>"), UnexpectedReply),
        ("ListThings", Answer(302, b"", {"Location": "http://127.0.0.1:1/"}), UnexpectedReply),
        ("ListThings", Answer(404, b""), SourceRefused),
        ("ListThings", Answer(418, b"teapot"), UnexpectedReply),
        ("ListThings", json_answer([1, 2]), UnexpectedReply),
        ("ListThings", json_answer({}), UnexpectedReply),
    ],
)
def test_a_call_that_fails_loses_its_metrics_and_no_others(
    simulator: AwsIotSimulator,
    clock: FakeTime,
    operation: str,
    fault: Fault,
    expected: type[SourceError],
) -> None:
    simulator.always(operation, fault)
    reading = read(simulator, clock)
    failed = failures(reading)
    assert set(failed) == OPERATIONS[operation]
    assert {type(failure) for failure in failed.values()} == {expected}
    assert all(operation in failure.problem for failure in failed.values())
    assert counts(reading) == {k: v for k, v in COUNTS.items() if k not in failed}


def test_a_listing_that_failed_is_not_asked_for_again(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.always("ListCoreDevices", SERVER_ERROR)
    reading = read(simulator, clock, tries=2)
    assert len(reading.failures) == 4
    assert simulator.asked == ["ListCoreDevices", "ListCoreDevices", "ListDeployments"]


@pytest.mark.parametrize("fault", [THROTTLED, TOO_MANY_REQUESTS, SERVER_ERROR])
def test_a_page_that_fails_for_the_moment_is_asked_for_again(
    simulator: AwsIotSimulator, clock: FakeTime, fault: Answer
) -> None:
    simulator.fleet = LARGE_FLEET
    simulator.script("ListThings", [None, fault, fault])
    assert counts(read(simulator, clock, [DEVICE_COUNT])) == {"device_count": 600}
    assert simulator.asked.count("ListThings") == 5
    assert clock.slept == [0.5, 1.0]


@pytest.mark.parametrize("status", [400, 429])
def test_retry_after_is_honoured(simulator: AwsIotSimulator, clock: FakeTime, status: int) -> None:
    fault = Answer(status, THROTTLED.body, {**THROTTLED.headers, "Retry-After": "7"})
    simulator.script("SearchIndex", [fault])
    assert counts(read(simulator, clock)) == COUNTS
    assert clock.slept == [7.0]


def test_the_failure_of_a_throttled_call_keeps_what_aws_asked_for(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    fault = Answer(400, THROTTLED.body, {**THROTTLED.headers, "Retry-After": "7"})
    simulator.always("SearchIndex", fault)
    failure = failures(read(simulator, clock, tries=2))["connected_device_count"]
    assert isinstance(failure, SourceThrottled)
    assert failure.retry_after_seconds == 7


def test_what_does_not_get_better_is_asked_for_once(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.always("ListThings", half_json)
    simulator.always("ListDeployments", ACCESS_DENIED)
    read(simulator, clock, (DEVICE_COUNT, FAILED_DEPLOYMENT_COUNT))
    assert simulator.asked.count("ListThings") == 1
    assert simulator.asked.count("ListDeployments") == 1
    assert clock.slept == []


@pytest.mark.parametrize(
    ("operation", "metric", "right"),
    [
        ("ListThings", "device_count", "iot:ListThings"),
        ("SearchIndex", "connected_device_count", "iot:SearchIndex"),
        ("ListCoreDevices", "edge_device_count", "greengrass:ListCoreDevices"),
        ("ListDeployments", "failed_deployment_count", "greengrass:ListDeployments"),
    ],
)
def test_the_missing_right_is_named(
    simulator: AwsIotSimulator, clock: FakeTime, operation: str, metric: str, right: str
) -> None:
    simulator.always(operation, ACCESS_DENIED)
    failure = failures(read(simulator, clock))[metric]
    assert f"Allow {right} in the IAM policy" in failure.fix
    assert "user/simulated is not authorized" in failure.problem


@pytest.mark.parametrize("is_ready_later", [True, False])
def test_without_an_index_only_the_connected_devices_are_lost(
    simulator: AwsIotSimulator, clock: FakeTime, is_ready_later: bool
) -> None:
    simulator.fleet = replace(FLEET, is_indexed=False)
    if is_ready_later:
        simulator.always("SearchIndex", INDEX_NOT_READY)
    reading = read(simulator, clock)
    (failure,) = reading.failures
    assert isinstance(failure, SourceRefused)
    assert "update-indexing-configuration" in failure.fix
    assert "Only connected_device_count" in failure.fix
    assert len(reading.points) == 4


@pytest.mark.parametrize(
    ("operation", "rows", "problem"),
    [
        ("ListThings", {"things": "many"}, "no list 'things'"),
        ("ListThings", {"things": {"thingName": "a"}}, "no list 'things'"),
        ("ListThings", {"things": ["a"]}, "without thingName"),
        ("ListThings", {"things": [{"thingName": 7}]}, "without thingName"),
        ("ListThings", {"things": [{"thingName": ""}]}, "without thingName"),
        ("ListThings", {"things": [], "nextToken": 7}, "nextToken is not a string"),
        ("SearchIndex", {"thingGroups": []}, "no list 'things'"),
        (
            "ListDeployments",
            {"deployments": [{"deploymentId": "a"}]},
            "without deploymentId and deploymentStatus",
        ),
    ],
)
def test_rows_that_are_none_are_an_unexpected_reply(
    simulator: AwsIotSimulator, clock: FakeTime, operation: str, rows: Any, problem: str
) -> None:
    simulator.script(operation, [json_answer(rows)])
    (failure,) = read(simulator, clock).failures
    assert isinstance(failure, UnexpectedReply)
    assert problem in failure.problem
    assert "The reply begins" in failure.fix


def test_an_indexing_configuration_that_is_none_is_an_unexpected_reply(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.fleet = Fleet()
    simulator.script("GetIndexingConfiguration", [json_answer({})])
    (failure,) = read(simulator, clock).failures
    assert isinstance(failure, UnexpectedReply)
    assert "iot:GetIndexingConfiguration" in str(failure)


@pytest.mark.parametrize("fault", [NoAnswer(), dribble])
def test_an_answer_that_takes_too_long_is_given_up(
    simulator: AwsIotSimulator, clock: FakeTime, fault: Fault
) -> None:
    simulator.always("ListDeployments", fault)
    reading = read(simulator, clock, request_timeout_seconds=0.3, tries=2)
    (failure,) = reading.failures
    assert isinstance(failure, SourceUnreachable)
    assert "not answered" in failure.problem
    assert len(clock.slept) == 1
    assert len(reading.points) == 4


def test_nobody_listening_is_unreachable(simulator: AwsIotSimulator, clock: FakeTime) -> None:
    with AwsIotSimulator(FLEET) as gone:
        url = gone.url
    reading = read(simulator, clock, greengrass_endpoint_url=url, iot_endpoint_url=url)
    assert {type(failure) for failure in reading.failures} == {SourceUnreachable}
    assert reading.points == ()


def test_tries_and_waits_end_at_the_deadline(simulator: AwsIotSimulator, clock: FakeTime) -> None:
    for operation in OPERATIONS:
        simulator.always(operation, SERVER_ERROR)
    reading = read(simulator, clock, deadline_seconds=3, tries=10)
    assert len(reading.failures) == 5
    assert sum(clock.slept) <= 3


def test_a_service_that_hangs_uses_up_the_deadline_and_nothing_more_is_asked(
    simulator: AwsIotSimulator,
) -> None:
    for operation in OPERATIONS:
        simulator.always(operation, NoAnswer())
    source = AwsIot(settings_for(simulator, deadline_seconds=0.3))
    reading = source.read(SPEC.answers, TIME_NS)
    source.close()
    assert {type(failure) for failure in reading.failures} == {SourceUnreachable}
    assert len(reading.failures) == 5
    assert simulator.asked == ["ListCoreDevices"]


def test_pages_without_end_are_left_at_the_deadline(simulator: AwsIotSimulator) -> None:
    tokens = itertools.count()

    def endless(_truth: Answer) -> Answer:
        return json_answer({"things": [{"thingName": "a"}], "nextToken": f"{next(tokens)}"})

    simulator.always("ListThings", endless)
    reading = read(simulator, FakeTime(seconds_a_look=1.0), deadline_seconds=30)
    failed = failures(reading)
    assert isinstance(failed["device_count"], SourceUnreachable)
    assert "the reading's 30 s are over" in failed["device_count"].problem
    assert simulator.asked.count("ListThings") < 31
    assert "SearchIndex" not in simulator.asked


def test_a_metric_aws_cannot_count_is_refused_and_the_others_are_kept(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    reading = read(simulator, clock, (CONCENTRATOR_COUNT, EDGE_DEVICE_COUNT))
    (failure,) = reading.failures
    assert isinstance(failure, SourceRefused)
    assert failure.target == "concentrator_count"
    assert counts(reading) == {"edge_device_count": 3}


# --- who asks ---------------------------------------------------------------------------------


def everything_said(error: BaseException | None) -> str:
    said = ""
    while error is not None:
        said += f"{error} {error!r} {vars(error)} "
        error = error.__cause__ or error.__context__
    return said


def test_a_wrong_key_is_refused_once_and_nothing_else_is_asked(
    simulator: AwsIotSimulator, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "not the secret")
    reading = read(simulator, clock)
    assert set(failures(reading)) == set(COUNTS)
    assert all(isinstance(failure, SourceRefused) for failure in reading.failures)
    assert simulator.asked == ["ListCoreDevices"]
    failure = reading.failures[0]
    assert "InvalidSignatureException" in failure.problem
    assert f"environment variable {SECRET_VARIABLE}" in failure.fix
    said = " ".join(everything_said(failure) for failure in reading.failures)
    assert "not the secret" not in said
    assert "Canonical String" not in said


def test_a_credential_that_expires_in_the_middle_keeps_what_was_read(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    simulator.always("ListThings", EXPIRED_TOKEN)
    reading = read(simulator, clock)
    assert set(counts(reading)) == {"edge_device_count", "connected_edge_device_count"}
    assert simulator.asked == ["ListCoreDevices", "ListThings"]
    assert all("ExpiredTokenException" in failure.problem for failure in reading.failures)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"access_key_id": "AKIAUNKNOWN"}, "UnrecognizedClientException"),
        ({"region": "eu-west-2"}, "InvalidSignatureException"),
    ],
)
def test_an_unknown_key_and_a_wrong_region_are_refused(
    simulator: AwsIotSimulator, clock: FakeTime, changes: dict[str, Any], code: str
) -> None:
    reading = read(simulator, clock, **changes)
    assert reading.points == ()
    assert {type(failure).__name__ for failure in reading.failures} == {"CredentialRefused"}
    assert code in reading.failures[0].problem


def test_a_changed_secret_is_used_at_the_next_reading(
    simulator: AwsIotSimulator, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(settings_for(simulator), clock) as source:
        good = simulator.account
        simulator.account = replace(good, secret_access_key="rotated")
        assert source.read([EDGE_DEVICE_COUNT], TIME_NS).failures
        monkeypatch.setenv(SECRET_VARIABLE, "rotated")
        assert counts(source.read([EDGE_DEVICE_COUNT], TIME_NS)) == {"edge_device_count": 3}


def test_a_secret_that_is_not_there_is_a_failure_that_says_where_it_should_be(
    simulator: AwsIotSimulator, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET_VARIABLE)
    reading = read(simulator, clock)
    assert {type(failure) for failure in reading.failures} == {SourceRefused}
    assert SECRET_VARIABLE in reading.failures[0].problem
    assert simulator.asked == []


@pytest.fixture
def temporary(
    simulator: AwsIotSimulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AwsIotSimulator]:
    """An account of a role: key, secret and session token, all from the environment."""
    with AwsIotSimulator(FLEET, session_token="Token/of+the=hour") as running:
        account = running.account
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", account.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", account.secret_access_key)
        monkeypatch.setenv("AWS_SESSION_TOKEN", "Token/of+the=hour")
        yield running


FROM_CHAIN: Mapping[str, Any] = {"access_key_id": None, "secret_access_key": None}


def test_the_standard_chain_finds_credentials_with_a_session_token(
    temporary: AwsIotSimulator, clock: FakeTime
) -> None:
    assert counts(read(temporary, clock, **FROM_CHAIN)) == COUNTS


def test_neither_secret_nor_session_token_is_said_or_logged(
    temporary: AwsIotSimulator,
    clock: FakeTime,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    reading = read(temporary, clock, **FROM_CHAIN)
    said = " ".join(everything_said(failure) for failure in reading.failures) + caplog.text
    assert "InvalidSignatureException" in said
    assert "Token/of+the=hour" not in said
    assert "not the secret" not in said


def test_a_profile_finds_its_credentials(
    simulator: AwsIotSimulator, clock: FakeTime, tmp_path: Path
) -> None:
    account = simulator.account
    (tmp_path / "credentials").write_text(
        f"[fleet]\naws_access_key_id = {account.access_key_id}\n"
        f"aws_secret_access_key = {account.secret_access_key}\n"
    )
    assert counts(read(simulator, clock, **FROM_CHAIN, profile="fleet")) == COUNTS


@pytest.mark.parametrize("changes", [{}, {"greengrass_endpoint_url": None}])
def test_a_profile_that_is_not_there_is_refused(
    simulator: AwsIotSimulator, clock: FakeTime, changes: dict[str, Any]
) -> None:
    reading = read(simulator, clock, **FROM_CHAIN, **changes, profile="nobody")
    assert len(reading.failures) == 5
    assert "ProfileNotFound from AWS profile 'nobody'" in reading.failures[0].problem


def test_no_credentials_at_all_are_refused_without_asking(
    simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    reading = read(simulator, clock, **FROM_CHAIN)
    assert len(reading.failures) == 5
    assert "no credentials in AWS's standard credential chain" in reading.failures[0].problem
    assert simulator.asked == []


def test_what_a_credential_process_prints_is_not_repeated(
    simulator: AwsIotSimulator, clock: FakeTime, tmp_path: Path
) -> None:
    program = f"{sys.executable} -c \"import sys; sys.exit('password1')\""
    (tmp_path / "config").write_text(f"[profile fleet]\ncredential_process = {program}\n")
    reading = read(simulator, clock, [EDGE_DEVICE_COUNT], **FROM_CHAIN, profile="fleet", tries=1)
    (failure,) = reading.failures
    assert isinstance(failure, SourceUnreachable)
    assert "CredentialRetrievalError" in failure.problem
    assert "password1" not in str(failure)


@pytest.mark.parametrize("region", ["eu-west-1", "cn-north-1"])
def test_host_names_are_those_of_boto3(region: str) -> None:
    identity = Identity(NAME, AwsIotSettings(region=region), timeout_seconds=10)
    session: Any = boto3.session.Session(aws_access_key_id="any", aws_secret_access_key="any")
    for service, model in (("iot", "iot"), ("greengrass", "greengrassv2")):
        client = session.client(model, region_name=region)
        assert identity.base_url(service) == client.meta.endpoint_url


def test_endpoints_come_from_the_settings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere.example")
    identity = Identity(NAME, AwsIotSettings(region="eu-west-1"), timeout_seconds=10)
    assert identity.base_url("iot") == "https://iot.eu-west-1.amazonaws.com"


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulated AWS")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + pem)
    return path


@pytest.fixture
def tls_simulator(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsIotSimulator]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with AwsIotSimulator(FLEET, tls=context) as running:
        monkeypatch.setenv(SECRET_VARIABLE, running.account.secret_access_key)
        yield running


def test_a_certificate_of_the_ca_file_is_trusted(
    tls_simulator: AwsIotSimulator, clock: FakeTime, certificate: Path
) -> None:
    assert counts(read(tls_simulator, clock, ca_file=certificate)) == COUNTS


def test_a_certificate_nobody_signed_is_not_trusted(
    tls_simulator: AwsIotSimulator, clock: FakeTime
) -> None:
    (failure,) = read(tls_simulator, clock, [EDGE_DEVICE_COUNT]).failures
    assert isinstance(failure, SourceUnreachable)
    assert "CERTIFICATE_VERIFY_FAILED" in failure.problem


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none_fails_every_metric_and_is_named(
    simulator: AwsIotSimulator, clock: FakeTime, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    reading = read(simulator, clock, ca_file=path)
    assert len(reading.failures) == 5
    assert "aws_iot.ca_file" in reading.failures[0].problem


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "where", "said"),
    [
        ({}, "region", "required"),
        ({"region": "Ireland"}, "region", "pattern"),
        ({"region": "eu-west-1.evil.example/"}, "region", "pattern"),
        ({"iot_endpoint_url": "http://aws.example"}, "iot_endpoint_url", "loopback"),
        ({"greengrass_endpoint_url": "http://10.0.0.1"}, "greengrass_endpoint_url", "loopback"),
        ({"iot_endpoint_url": "https://user:pw@aws.example"}, "iot_endpoint_url", "password"),
        ({"iot_endpoint_url": "https://aws.example/things"}, "iot_endpoint_url", "without path"),
        ({"iot_endpoint_url": "https://aws.example?a=b"}, "iot_endpoint_url", "without path"),
        ({"iot_endpoint_url": "ftp://aws.example"}, "iot_endpoint_url", "expected https"),
        ({"iot_endpoint_url": "https://aws.example:port"}, "iot_endpoint_url", "expected https"),
        ({"access_key_id": "AKIA"}, "", "both access_key_id and secret_access_key"),
        ({"secret_access_key": {"env": "S"}}, "", "both access_key_id and secret_access_key"),
        (
            {"access_key_id": "A", "secret_access_key": {"env": "S"}, "profile": "p"},
            "",
            "not both",
        ),
        ({"access_key_id": "A", "secret_access_key": "hunter2"}, "secret_access_key", "never"),
        ({"tries": 0}, "tries", "greater than or equal to 1"),
        ({"retries": 3}, "retries", "not permitted"),
    ],
)
def test_wrong_settings_are_refused_with_key_and_reason(
    given: dict[str, Any], where: str, said: str
) -> None:
    whole = given if where == "region" else {"region": "eu-west-1", **given}
    with pytest.raises(ValidationError) as refused:
        AwsIotSettings.model_validate(whole)
    (error,) = refused.value.errors(include_input=False)
    assert ".".join(map(str, error["loc"])) == where
    assert said in f"{error['msg']}".lower() or said in error["msg"]


def test_settings_have_the_documented_defaults() -> None:
    settings = AwsIotSettings(region="eu-west-1")
    assert settings.request_timeout_seconds == 10
    assert settings.deadline_seconds == 60
    assert settings.tries == 4


def test_endpoints_on_loopback_may_be_plain_http() -> None:
    for url in ("http://127.0.0.1:5000", "http://localhost:5000/", "http://[::1]:5000"):
        settings = AwsIotSettings(region="eu-west-1", iot_endpoint_url=url)
        assert settings.iot_endpoint_url == url.rstrip("/")


def test_no_credential_is_in_the_settings_repr(simulator: AwsIotSimulator) -> None:
    shown = repr(settings_for(simulator)) + str(settings_for(simulator))
    assert simulator.account.secret_access_key not in shown
    assert simulator.account.access_key_id not in shown


def test_importing_the_source_does_not_load_botocore() -> None:
    program = (
        "import sys, metrics_pipeline.sources.aws_iot; "
        "print([name for name in ('boto3', 'botocore') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.stdout.strip() == "[]"


def test_the_spec_says_what_the_source_answers() -> None:
    assert (SPEC.name, NAME) == ("aws_iot", "aws_iot")
    assert {metric.field for metric in SPEC.answers} == set(COUNTS)


# --- what comes back --------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def documents(listing: Listing) -> st.SearchStrategy[bytes]:
    row = st.dictionaries(st.sampled_from([listing.name, listing.status or "x"]), json_values)
    rows = st.lists(row | json_values) | json_values
    keys = {listing.rows: rows, "nextToken": st.text() | json_values}
    return st.fixed_dictionaries({}, optional=keys).map(lambda each: json.dumps(each).encode())


@given(data=st.data(), listing=st.sampled_from(LISTINGS))
def test_whatever_comes_back_is_a_page_or_an_unexpected_reply(
    data: st.DataObject, listing: Listing
) -> None:
    body = data.draw(st.binary() | documents(listing))
    try:
        page = parse_page(listing, body)
    except UnexpectedReply:
        return
    assert all(isinstance(each, str) for pair in page.statuses.items() for each in pair)
    assert page.next_token is None or page.next_token


@given(
    listing=st.sampled_from(LISTINGS),
    statuses=st.dictionaries(st.text(min_size=1), st.text()),
    token=st.text(min_size=1) | st.none(),
)
def test_a_page_is_read_as_it_was_written(
    listing: Listing, statuses: dict[str, str], token: str | None
) -> None:
    rows = [
        {listing.name: k, **({listing.status: v} if listing.status else {})}
        for k, v in statuses.items()
    ]
    page = parse_page(listing, json.dumps({listing.rows: rows, "nextToken": token}).encode())
    assert page.next_token == token
    assert page.statuses == (statuses if listing.status else dict.fromkeys(statuses, ""))


@given(
    status=st.integers(min_value=300, max_value=499),
    code=st.text(),
    body=st.binary() | json_values.map(lambda each: json.dumps(each).encode()),
)
def test_every_error_reply_is_a_source_error(status: int, code: str, body: bytes) -> None:
    reply = Reply(status, {"x-amzn-errortype": code} if code else {}, body)
    assert isinstance(error_of(NAME, INDEXING, reply, "a key"), SourceError)


@pytest.mark.parametrize(
    ("headers", "document"),
    [
        ({"x-amzn-errortype": "NoException"}, {}),
        ({"x-amzn-errortype": "NoException:http://internal.amazon.com/"}, {"code": "Other"}),
        ({}, {"__type": "com.amazonaws.iot#NoException"}),
        ({}, {"code": "NoException"}),
        ({}, {"__type": "aws.iot#NoException:http://internal.amazon.com/#x"}),
    ],
)
def test_the_code_of_an_error_is_found_wherever_aws_puts_it(
    headers: dict[str, str], document: dict[str, str]
) -> None:
    assert parse_error(Reply(400, headers, json.dumps(document).encode())).code == "NoException"


@pytest.mark.parametrize(
    ("things", "connectivity", "expected"),
    [
        ("REGISTRY", "STATUS", True),
        ("REGISTRY_AND_SHADOW", "STATUS", True),
        ("REGISTRY", "OFF", False),
        ("REGISTRY", None, False),
        ("OFF", "STATUS", False),
    ],
)
def test_connectivity_is_indexed_only_when_both_modes_say_so(
    things: str, connectivity: str | None, expected: bool
) -> None:
    modes = {"thingIndexingMode": things, "thingConnectivityIndexingMode": connectivity}
    body = json.dumps({"thingIndexingConfiguration": modes}).encode()
    assert parse_is_connectivity_indexed(body) is expected
