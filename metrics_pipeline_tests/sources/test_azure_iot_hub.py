"""The IoT Hub source against the simulated hub, over real sockets."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from metrics_pipeline.access.azure_credentials import (
    EntraIdSettings,
    parse_connection_string,
    sign,
)
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import (
    CONNECTED_DEVICE_COUNT,
    CONNECTED_EDGE_DEVICE_COUNT,
    DEVICE_COUNT,
    EDGE_DEVICE_COUNT,
    FAILED_DEPLOYMENT_COUNT,
    FLEET_METRICS,
    Metric,
)
from metrics_pipeline.core.errors import (
    ConfigurationError,
    CredentialRefused,
    SourceError,
    SourceRefused,
    SourceThrottled,
    SourceUnreachable,
    UnexpectedReply,
)
from metrics_pipeline.core.ports import Reading, SnapshotSource
from metrics_pipeline.simulators.fleet import Fleet, FleetState
from metrics_pipeline.simulators.iot_hub import (
    IotHubSimulator,
    Policy,
    error_answer,
    json_answer,
    throttled,
)
from metrics_pipeline.simulators.loopback_server import Answer, NoAnswer
from metrics_pipeline.sources.azure_iot_hub import (
    ANSWERS,
    QUERIES,
    SPEC,
    AzureIotHub,
    AzureIotHubSettings,
    parse_failed_deployments,
)
from metrics_pipeline_tests.proxies import name_proxy
from metrics_pipeline_tests.sources.iot_hub_fixtures import (
    TIME_NS,
    Clock,
    failed,
    reader,
    sample_state,
    standard_devices,
    values,
)


@pytest.fixture
def hub() -> Iterator[IotHubSimulator]:
    with IotHubSimulator(Fleet(sample_state())) as simulator:
        yield simulator


@pytest.fixture
def clock() -> Clock:
    return Clock()


def read(
    hub: IotHubSimulator,
    directory: Path,
    *metrics: Metric,
    clock: Clock | None = None,
    **settings: Any,
) -> Reading:
    with reader(hub, directory, clock, **settings) as source:
        return source.read(metrics or ANSWERS, TIME_NS)


def only_failure(reading: Reading) -> SourceError:
    assert reading.points == ()
    (failure,) = reading.failures
    return failure


# --- counts ---------------------------------------------------------------------------------


def test_every_count_is_right(hub: IotHubSimulator, tmp_path: Path) -> None:
    reading = read(hub, tmp_path)
    assert reading.failures == ()
    assert values(reading) == {
        "device_count": 5,
        "connected_device_count": 2,
        "edge_device_count": 3,
        "connected_edge_device_count": 1,
        "concentrator_count": 4,
        "connected_concentrator_count": 3,
        "failed_deployment_count": 3,
    }


def test_each_count_is_one_point(hub: IotHubSimulator, tmp_path: Path) -> None:
    reading = read(hub, tmp_path)
    assert [len(point.fields) for point in reading.points] == [1] * len(ANSWERS)


def test_only_what_is_wanted_is_asked(hub: IotHubSimulator, tmp_path: Path) -> None:
    reading = read(hub, tmp_path, EDGE_DEVICE_COUNT)
    assert values(reading) == {"edge_device_count": 3}
    assert [json.loads(request.body) for request in hub.requests] == [
        {"query": "SELECT COUNT() AS totalNumber FROM devices WHERE capabilities.iotEdge = true"}
    ]


def test_the_standard_devices_query_does_not_trust_comparisons_with_a_missing_tag() -> None:
    assert QUERIES[DEVICE_COUNT] == (
        "SELECT COUNT() AS totalNumber FROM devices WHERE capabilities.iotEdge = false AND "
        "(NOT IS_DEFINED(tags.deviceType) OR tags.deviceType != 'LoRa Concentrator')"
    )
    assert QUERIES[CONNECTED_DEVICE_COUNT] == (
        QUERIES[DEVICE_COUNT] + " AND connectionState = 'Connected'"
    )


def test_a_count_falls_to_zero_and_the_reading_follows(
    hub: IotHubSimulator, tmp_path: Path
) -> None:
    with reader(hub, tmp_path) as source:
        for count in (15, 8, 0):
            hub.fleet.put(FleetState(devices=standard_devices(count)))
            assert values(source.read([DEVICE_COUNT], TIME_NS)) == {"device_count": count}


def test_a_failure_is_never_shown_as_zero(hub: IotHubSimulator, tmp_path: Path) -> None:
    hub.faults.append(error_answer(HTTPStatus.INTERNAL_SERVER_ERROR, "ServerError"))
    failure = only_failure(read(hub, tmp_path, DEVICE_COUNT, tries=1))
    assert isinstance(failure, SourceUnreachable)


def test_the_source_is_what_its_spec_says(hub: IotHubSimulator, tmp_path: Path) -> None:
    assert SPEC.name == "azure_iot_hub"
    assert set(SPEC.answers) == set(FLEET_METRICS)
    with reader(hub, tmp_path) as source:
        port: SnapshotSource = source
        assert port.name == SPEC.name


# --- failed deployments ---------------------------------------------------------------------


def _configuration(**results: Any) -> dict[str, Any]:
    return {
        "content": {"modulesContent": {"$edgeAgent": {}}},
        "systemMetrics": {"results": results},
    }


def test_a_device_on_which_two_layered_deployments_failed_counts_twice() -> None:
    configurations = [_configuration(reportedFailedCount=1), _configuration(reportedFailedCount=1)]
    assert parse_failed_deployments(configurations, "t") == 2


@pytest.mark.parametrize(
    "configuration",
    [
        _configuration(),
        _configuration(reportedFailedCount=-1),
        _configuration(reportedFailedCount=None),
        {"content": {"modulesContent": {"a": {}}}},
        {"content": {"modulesContent": {"a": {}}}, "systemMetrics": None},
        {"content": {"modulesContent": {"a": {}}}, "systemMetrics": {"results": None}},
        {**_configuration(reportedFailedCount=7), "content": {"modulesContent": {}}},
        {**_configuration(reportedFailedCount=7), "content": {"modulesContent": None}},
        {**_configuration(reportedFailedCount=7), "content": {"deviceContent": {"a": 1}}},
        {**_configuration(reportedFailedCount=7), "content": None},
        {},
    ],
)
def test_a_configuration_without_failed_edge_deployments_counts_zero(
    configuration: dict[str, Any],
) -> None:
    given = [configuration, _configuration(reportedFailedCount=2)]
    assert parse_failed_deployments(given, "t") == 2


@pytest.mark.parametrize(
    "configuration",
    [
        _configuration(reportedFailedCount="3"),
        _configuration(reportedFailedCount=1.5),
        _configuration(reportedFailedCount=True),
        {"content": {"modulesContent": {"a": {}}}, "systemMetrics": [1]},
        {"content": "none"},
        "configuration",
        12,
        None,
    ],
)
def test_a_configuration_of_another_shape_is_an_unexpected_reply(
    hub: IotHubSimulator, tmp_path: Path, configuration: Any
) -> None:
    hub.faults.append(json_answer([configuration]))
    failure = only_failure(read(hub, tmp_path, FAILED_DEPLOYMENT_COUNT))
    assert isinstance(failure, UnexpectedReply)
    assert failure.target == "failed_deployment_count"


def test_all_configurations_of_a_hub_are_asked_for_at_once(
    hub: IotHubSimulator, tmp_path: Path
) -> None:
    read(hub, tmp_path, FAILED_DEPLOYMENT_COUNT)
    (request,) = hub.requests
    assert (request.method, request.path) == ("GET", "/configurations")
    assert request.parameters["api-version"] == "2021-04-12"
    assert int(request.parameters["top"]) >= 100


# --- pages and rows -------------------------------------------------------------------------


def test_an_empty_first_page_with_a_continuation_is_followed(tmp_path: Path) -> None:
    with IotHubSimulator(Fleet(sample_state()), pages_before_rows=2) as hub:
        reading = read(hub, tmp_path, DEVICE_COUNT, page_size=50)
        assert values(reading) == {"device_count": 5}
        assert len(hub.requests) == 3
        assert {request.headers["x-ms-max-item-count"] for request in hub.requests} == {"50"}


def test_a_second_row_on_a_second_page_is_an_unexpected_reply(
    hub: IotHubSimulator, tmp_path: Path
) -> None:
    row = [{"totalNumber": 3}]
    hub.faults += [json_answer(row, {"x-ms-continuation": "next"}), json_answer(row)]
    failure = only_failure(read(hub, tmp_path, DEVICE_COUNT))
    assert isinstance(failure, UnexpectedReply)
    assert "2 rows" in str(failure)
    assert hub.requests[1].headers["x-ms-continuation"] == "next"


def test_pages_without_end_are_an_unexpected_reply(hub: IotHubSimulator, tmp_path: Path) -> None:
    hub.faults += [json_answer([], {"x-ms-continuation": "again"})] * 200
    failure = only_failure(read(hub, tmp_path, DEVICE_COUNT))
    assert isinstance(failure, UnexpectedReply)
    assert "more than 100 pages" in str(failure)
    assert len(hub.requests) == 100


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'[{"totalNumber": 1}, {"totalNumber": 2}]',
        b"[{}]",
        b'[{"count": 3}]',
        b'[{"totalNumber": "12"}]',
        b'[{"totalNumber": -1}]',
        b'[{"totalNumber": true}]',
        b'[{"totalNumber": 1.0}]',
        b'[{"totalNumber": null}]',
        b'[{"totalNumber": NaN}]',
        b"[12]",
        b'["\\ud800"]',
        b'{"totalNumber": 12}',
        b'[{"totalNumber": 1',
        b"<html><body>Sign in</body></html>",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'[{"totalNumber": ' + b"9" * 10_000 + b"}]",
    ],
    ids=lambda body: body[:30].decode(errors="replace"),
)
def test_anything_but_one_whole_number_is_an_unexpected_reply(
    hub: IotHubSimulator, tmp_path: Path, clock: Clock, body: bytes
) -> None:
    hub.faults.append(Answer(200, body))
    failure = only_failure(read(hub, tmp_path, DEVICE_COUNT, clock=clock))
    assert isinstance(failure, UnexpectedReply)
    assert failure.target == "device_count"
    assert len(hub.requests) == 1, "asked again, though that does not help"


def test_an_unexpected_reply_shows_how_it_begins(hub: IotHubSimulator, tmp_path: Path) -> None:
    hub.faults.append(Answer(200, b"<html>maintenance</html>"))
    assert "<html>maintenance" in str(only_failure(read(hub, tmp_path, DEVICE_COUNT)))


def test_a_redirect_is_not_followed(hub: IotHubSimulator, tmp_path: Path) -> None:
    hub.faults.append(Answer(302, b"", {"Location": f"http://{hub.host}/elsewhere"}))
    failure = only_failure(read(hub, tmp_path, DEVICE_COUNT))
    assert isinstance(failure, UnexpectedReply)
    assert "HTTP 302" in str(failure)
    assert len(hub.requests) == 1


# --- failures that pass ---------------------------------------------------------------------


def test_throttling_in_the_middle_of_six_counts_keeps_the_others(
    hub: IotHubSimulator, tmp_path: Path, clock: Clock
) -> None:
    hub.faults += [None, None, *[throttled(1)] * 4]
    reading = read(hub, tmp_path, *ANSWERS[:5], FAILED_DEPLOYMENT_COUNT, clock=clock)
    assert failed(reading) == ["edge_device_count"]
    assert isinstance(reading.failures[0], SourceThrottled)
    assert len(values(reading)) == 5
    assert "edge_device_count" not in values(reading)


def test_retry_after_is_honoured(hub: IotHubSimulator, tmp_path: Path, clock: Clock) -> None:
    hub.faults.append(throttled(17))
    reading = read(hub, tmp_path, DEVICE_COUNT, clock=clock)
    assert values(reading) == {"device_count": 5}
    assert clock.waits == [17]


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(
    hub: IotHubSimulator, tmp_path: Path, clock: Clock
) -> None:
    hub.faults.append(throttled(3600))
    failure = only_failure(read(hub, tmp_path, DEVICE_COUNT, clock=clock))
    assert isinstance(failure, SourceThrottled)
    assert failure.retry_after_seconds == 3600
    assert clock.waits == []


def test_a_server_error_that_passes_is_survived(
    hub: IotHubSimulator, tmp_path: Path, clock: Clock
) -> None:
    ill = error_answer(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable")
    hub.faults += [ill, ill]
    assert values(read(hub, tmp_path, DEVICE_COUNT, clock=clock)) == {"device_count": 5}
    assert len(clock.waits) == 2


def test_the_deadline_is_for_the_whole_reading(
    hub: IotHubSimulator, tmp_path: Path, clock: Clock
) -> None:
    hub.faults += [throttled(25), None, throttled(25), throttled(25)]
    reading = read(hub, tmp_path, *ANSWERS[:3], clock=clock)
    assert values(reading) == {"device_count": 5, "edge_device_count": 3}
    assert failed(reading) == ["connected_device_count"]
    assert sum(clock.waits) == 50


def test_after_the_deadline_nothing_is_asked(hub: IotHubSimulator, tmp_path: Path) -> None:
    class OversleepingClock(Clock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds + 1000)

    hub.faults.append(throttled(1))
    reading = read(hub, tmp_path, DEVICE_COUNT, EDGE_DEVICE_COUNT, clock=OversleepingClock())
    assert failed(reading) == ["device_count", "edge_device_count"]
    assert all("not asked" in str(failure) for failure in reading.failures)
    assert len(hub.requests) == 1


def test_a_hub_that_never_answers_is_unreachable(
    hub: IotHubSimulator, tmp_path: Path, clock: Clock
) -> None:
    hub.faults += [NoAnswer(), NoAnswer()]
    reading = read(hub, tmp_path, DEVICE_COUNT, clock=clock, request_timeout_seconds=0.1, tries=2)
    failure = only_failure(reading)
    assert isinstance(failure, SourceUnreachable)
    assert "0.1 s" in str(failure)
    assert len(hub.requests) == 2


def test_an_answer_that_dribbles_in_is_given_up_in_time(
    hub: IotHubSimulator, tmp_path: Path
) -> None:
    hub.faults.append(Answer(200, b" " * 1000, seconds_per_byte=0.05))
    started = time.monotonic()
    reading = read(hub, tmp_path, DEVICE_COUNT, request_timeout_seconds=0.2, tries=1)
    assert isinstance(only_failure(reading), SourceUnreachable)
    assert time.monotonic() - started < 25, "waited for the whole answer of 50 s"


def test_a_hub_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    with IotHubSimulator(Fleet(sample_state())) as hub:
        pass
    reading = read(hub, tmp_path, tries=2)
    assert reading.points == ()
    assert failed(reading) == [metric.field for metric in ANSWERS]
    assert all(isinstance(failure, SourceUnreachable) for failure in reading.failures)


# --- who we are -----------------------------------------------------------------------------


def test_a_wrong_key_stops_the_reading_after_one_request(
    hub: IotHubSimulator, tmp_path: Path
) -> None:
    with reader(hub, tmp_path) as source:
        hub.policy = Policy()
        reading = source.read(ANSWERS, TIME_NS)
    assert failed(reading) == [metric.field for metric in ANSWERS]
    assert all(isinstance(failure, CredentialRefused) for failure in reading.failures)
    assert len(hub.requests) == 1
    assert "'metrics'" in str(reading.failures[0])
    assert "ServiceConnect" in str(reading.failures[0])


def test_a_token_that_has_expired_is_refused(hub: IotHubSimulator, tmp_path: Path) -> None:
    secret = tmp_path / "connection_string"
    secret.write_text(hub.connection_string)
    settings = AzureIotHubSettings(connection_string=SecretReference(file=secret), scheme="http")
    source = AzureIotHub(settings, epoch_seconds=lambda: time.time() - 7200)
    failure = only_failure(source.read([DEVICE_COUNT], TIME_NS))
    source.close()
    assert isinstance(failure, CredentialRefused)
    assert "this machine's clock" in str(failure)


def test_a_policy_that_may_only_query_loses_only_the_deployments(
    hub: IotHubSimulator, tmp_path: Path
) -> None:
    hub.policy = Policy("service", rights=frozenset({"ServiceConnect"}))
    reading = read(hub, tmp_path, FAILED_DEPLOYMENT_COUNT, *QUERIES)
    assert failed(reading) == ["failed_deployment_count"]
    assert len(values(reading)) == len(QUERIES)
    assert "RegistryRead" in str(reading.failures[0])


@pytest.mark.parametrize(
    ("status", "word"),
    [(HTTPStatus.FORBIDDEN, "IP filter"), (HTTPStatus.NOT_FOUND, "is the hub")],
)
def test_403_and_404_are_refused_at_once_and_lose_only_their_count(
    hub: IotHubSimulator, tmp_path: Path, clock: Clock, status: HTTPStatus, word: str
) -> None:
    hub.faults.append(error_answer(status, "Forbidden"))
    reading = read(hub, tmp_path, DEVICE_COUNT, EDGE_DEVICE_COUNT, clock=clock)
    assert values(reading) == {"edge_device_count": 3}
    (failure,) = reading.failures
    assert isinstance(failure, SourceRefused)
    assert word in str(failure)
    assert "ServiceConnect" in str(failure)
    assert clock.waits == []


def test_a_query_the_hub_does_not_understand_is_an_unexpected_reply(
    hub: IotHubSimulator, tmp_path: Path
) -> None:
    hub.faults.append(error_answer(HTTPStatus.BAD_REQUEST, "ArgumentInvalid"))
    failure = only_failure(read(hub, tmp_path, DEVICE_COUNT))
    assert isinstance(failure, UnexpectedReply)
    assert "ArgumentInvalid" in str(failure)


KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def test_a_signature_is_the_one_the_documentation_shows() -> None:
    # Computed with the sample code of "Control access to IoT Hub with SAS tokens" for this key.
    assert sign("hub.azure-devices.net", "a policy", base64.b64decode(KEY), 1_700_000_000) == (
        "SharedAccessSignature sr=hub.azure-devices.net"
        "&sig=Q75rLsld4M7OxFI1svr8xhXAAx5MYNiiRJ632avTDCE%3D&se=1700000000&skn=a%20policy"
    )


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (f"SharedAccessKeyName=p;SharedAccessKey={KEY}", "no HostName"),
        (f"HostName=h;SharedAccessKey={KEY}", "no SharedAccessKeyName"),
        ("HostName=h;SharedAccessKeyName=p", "no SharedAccessKey"),
        (f"HostName=h;DeviceId=d;SharedAccessKey={KEY}", "no SharedAccessKeyName"),
        (f"HostName=;SharedAccessKeyName=p;SharedAccessKey={KEY}", "no HostName"),
        (f"HostName=https://h/;SharedAccessKeyName=p;SharedAccessKey={KEY}", "not a host name"),
        (f"HostName=h/x@y;SharedAccessKeyName=p;SharedAccessKey={KEY}", "not a host name"),
        (f"HostName=h:99999;SharedAccessKeyName=p;SharedAccessKey={KEY}", "not a host name"),
        (f"HostName=h;SharedAccessKeyName=p;SharedAccessKey={KEY}!", "not base64"),
        (f"HostName=h;SharedAccessKeyName=p;SharedAccessKey=é{KEY}", "not base64"),
        (KEY, "no HostName"),
    ],
)
def test_a_malformed_connection_string_says_what_is_wrong_and_not_what_it_is(
    text: str, missing: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_connection_string(text, "environment variable HUB", 1)
    assert missing in str(caught.value)
    assert "environment variable HUB" in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_connection_string_that_cannot_be_used_fails_every_count(
    hub: IotHubSimulator, tmp_path: Path
) -> None:
    with reader(hub, tmp_path) as source:
        (tmp_path / "connection_string").write_text("HostName=h;SharedAccessKeyName=p")
        reading = source.read([DEVICE_COUNT, EDGE_DEVICE_COUNT], TIME_NS)
        assert failed(reading) == ["device_count", "edge_device_count"]
        assert "no SharedAccessKey" in str(reading.failures[0])
        (tmp_path / "connection_string").unlink()
        assert "cannot be read" in str(source.read([DEVICE_COUNT], TIME_NS).failures[0])
    assert len(hub.requests) == 0


def test_a_new_key_is_used_without_a_restart(hub: IotHubSimulator, tmp_path: Path) -> None:
    with reader(hub, tmp_path) as source:
        hub.policy = Policy()
        (tmp_path / "connection_string").write_text(hub.connection_string)
        assert values(source.read([DEVICE_COUNT], TIME_NS)) == {"device_count": 5}


def test_no_secret_is_shown_anywhere(hub: IotHubSimulator, tmp_path: Path) -> None:
    key = base64.b64encode(hub.policy.key).decode()
    policy = parse_connection_string(hub.connection_string, "w", 1)
    hub.faults += [error_answer(HTTPStatus.UNAUTHORIZED, "IotHubUnauthorizedAccess")]
    with reader(hub, tmp_path) as source:
        reading = source.read(ANSWERS, TIME_NS)
        shown = [repr(source), repr(source._settings), repr(policy), str(policy), repr(hub.policy)]
        shown += [repr(source._session()), repr(hub), repr(list(hub.requests))]
    shown += [repr(each) + str(each) for each in reading.failures]
    for text in shown:
        assert key not in text
        assert repr(hub.policy.key) not in text
        assert "sig=" not in text


# --- Microsoft Entra ID ---------------------------------------------------------------------


class FakeTokenCredential:
    """azure.core's TokenCredential: gives `token`, or raises `error`."""

    def __init__(self, token: str = "", error: Exception | None = None) -> None:
        self.token = token
        self.error = error
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        if self.error is not None:
            raise self.error
        return AccessToken(self.token, int(time.time()) + 3600)


def entra_source(host: str, credential: FakeTokenCredential, clock: Clock) -> AzureIotHub:
    settings = AzureIotHubSettings(entra_id=EntraIdSettings(host=host), scheme="http", tries=2)
    return AzureIotHub(settings, clock.timing, token_credential=credential)


def test_an_entra_identity_sends_its_bearer_token(clock: Clock) -> None:
    credential = FakeTokenCredential("a.b.c")
    with IotHubSimulator(Fleet(sample_state()), bearer_token="a.b.c") as hub:
        source = entra_source(hub.host, credential, clock)
        assert len(values(source.read(ANSWERS, TIME_NS))) == len(ANSWERS)
        source.close()
        assert {request.headers["authorization"] for request in hub.requests} == {"Bearer a.b.c"}
    assert set(credential.scopes) == {"https://iothubs.azure.net/.default"}
    assert "a.b.c" not in repr(source)


def test_an_entra_identity_without_the_role_is_told_which(
    hub: IotHubSimulator, clock: Clock
) -> None:
    source = entra_source(hub.host, FakeTokenCredential("a.b.c"), clock)
    reading = source.read(ANSWERS, TIME_NS)
    source.close()
    assert len(hub.requests) == 1
    assert len(reading.failures) == len(ANSWERS)
    assert "'IoT Hub Data Reader'" in str(reading.failures[0])
    assert "a.b.c" not in str(reading.failures[0])


def test_a_token_that_is_not_given_stops_the_reading(hub: IotHubSimulator, clock: Clock) -> None:
    credential = FakeTokenCredential(error=ClientAuthenticationError("AADSTS7000215: wrong secret"))
    reading = entra_source(hub.host, credential, clock).read(ANSWERS, TIME_NS)
    assert all(isinstance(failure, CredentialRefused) for failure in reading.failures)
    assert failed(reading) == [metric.field for metric in ANSWERS]
    assert "AADSTS7000215" in str(reading.failures[0])
    assert len(hub.requests) == 0
    assert len(credential.scopes) == 1


def test_a_token_that_no_header_may_hold_is_not_shown(hub: IotHubSimulator, clock: Clock) -> None:
    source = entra_source(hub.host, FakeTokenCredential("a.b\nc"), clock)
    failure = only_failure(source.read([DEVICE_COUNT], TIME_NS))
    source.close()
    assert isinstance(failure, SourceRefused)
    assert "a.b" not in str(failure)


def test_an_entra_id_that_does_not_answer_is_asked_again(
    hub: IotHubSimulator, clock: Clock
) -> None:
    credential = FakeTokenCredential(error=ServiceRequestError("no route"))
    reading = entra_source(hub.host, credential, clock).read([DEVICE_COUNT], TIME_NS)
    assert isinstance(only_failure(reading), SourceUnreachable)
    assert len(credential.scopes) == 2


def test_a_client_secret_goes_to_azure_identity_and_nowhere_else(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens there: azure-identity's own error, made by a real attempt.
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:9")
    monkeypatch.setenv("HUB_CLIENT_SECRET", "top-secret")
    entra = EntraIdSettings(
        host="127.0.0.1:9",
        tenant_id="11111111-1111-1111-1111-111111111111",
        client_id="22222222-2222-2222-2222-222222222222",
        client_secret=SecretReference(env="HUB_CLIENT_SECRET"),
    )
    source = AzureIotHub(AzureIotHubSettings(entra_id=entra, tries=1), clock.timing)
    failure = only_failure(source.read([DEVICE_COUNT], TIME_NS))
    source.close()
    assert "Entra ID" in str(failure)
    assert "top-secret" not in str(failure) + repr(source) + repr(entra)


# --- TLS ------------------------------------------------------------------------------------


def _self_signed(directory: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "simulated hub")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = directory / "hub.pem"
    path.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def _tls_hub(certificate: Path) -> AbstractContextManager[IotHubSimulator]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return IotHubSimulator(Fleet(sample_state()), tls=context)


def test_a_hub_with_a_private_certificate_is_trusted_through_ca_file(tmp_path: Path) -> None:
    certificate = _self_signed(tmp_path)
    with _tls_hub(certificate) as hub:
        reading = read(hub, tmp_path, DEVICE_COUNT, scheme="https", ca_file=certificate)
    assert values(reading) == {"device_count": 5}


def test_a_hub_with_a_certificate_nobody_vouches_for_is_not_spoken_to(tmp_path: Path) -> None:
    with _tls_hub(_self_signed(tmp_path)) as hub:
        failure = only_failure(read(hub, tmp_path, DEVICE_COUNT, scheme="https", tries=1))
        assert len(hub.requests) == 0
    assert isinstance(failure, SourceUnreachable)
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_ca_file_that_cannot_be_used_says_so(
    hub: IotHubSimulator, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    failure = only_failure(read(hub, tmp_path, DEVICE_COUNT, ca_file=file))
    assert "azure_iot_hub.ca_file" in str(failure)
    assert str(file) in str(failure)


# --- settings -------------------------------------------------------------------------------

REFERENCE = {"env": "HUB"}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({}, "exactly one of connection_string and entra_id"),
        ({"connection_string": REFERENCE, "entra_id": {"host": "h"}}, "exactly one of"),
        ({"connection_string": "HostName=h;SharedAccessKey=secret"}, "never written here"),
        ({"entra_id": {"host": "https://h"}}, "expected a host name"),
        ({"entra_id": {"host": "h", "client_secret": REFERENCE}}, "needs tenant_id and client_id"),
        ({"connection_string": REFERENCE, "scheme": "ftp"}, "scheme"),
        ({"connection_string": REFERENCE, "page_size": 0}, "page_size"),
        ({"connection_string": REFERENCE, "page_sise": 10}, "page_sise"),
    ],
)
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AzureIotHubSettings.model_validate(section)
    assert problem in str(caught.value)


def test_http_is_refused_for_any_host_but_this_machine(clock: Clock) -> None:
    source = entra_source("hub.azure-devices.net", FakeTokenCredential("t"), clock)
    reading = source.read([DEVICE_COUNT, CONNECTED_EDGE_DEVICE_COUNT], TIME_NS)
    assert failed(reading) == ["device_count", "connected_edge_device_count"]
    assert "in the clear" in str(reading.failures[0])


def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    hub: IotHubSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_proxy(monkeypatch, "http://127.0.0.1:9")
    assert values(read(hub, tmp_path, DEVICE_COUNT)) == {"device_count": 5}
