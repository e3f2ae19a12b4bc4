"""The simulated AWS, asked by AWS's own client: what boto3 accepts and signs is what AWS speaks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from metrics_pipeline.simulators.aws_iot import (
    INDEX_NOT_READY,
    THROTTLED,
    AwsIotSimulator,
    Deployment,
    Fleet,
    half_json,
)

CORES = {f"core{i}": "HEALTHY" if i % 2 else "UNHEALTHY" for i in range(130)}
DEPLOYMENTS = [Deployment(f"d{i}", "FAILED" if i % 3 else "ACTIVE", i < 120) for i in range(150)]
THINGS = [*(f"thing{i}" for i in range(300)), *CORES]
FLEET = Fleet(THINGS, CORES, THINGS[:210], DEPLOYMENTS)


@pytest.fixture
def simulator() -> Iterator[AwsIotSimulator]:
    with AwsIotSimulator(FLEET) as running:
        yield running


@functools.cache
def session() -> Any:
    """One for all tests: it reads the models of AWS's services once."""
    return boto3.session.Session()


def client(simulator: AwsIotSimulator, service: str, **changes: str) -> Any:
    account = simulator.account
    keys = {
        "region_name": account.region,
        "aws_access_key_id": account.access_key_id,
        "aws_secret_access_key": account.secret_access_key,
    }
    config = Config(retries={"total_max_attempts": 1})
    url = simulator.url
    return session().client(service, endpoint_url=url, config=config, **{**keys, **changes})


def all_rows(client: Any, operation: str, key: str, **parameters: Any) -> list[Any]:
    pages = client.get_paginator(operation).paginate(**parameters)
    return [row for page in pages for row in page[key]]


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_boto3_reads_all_pages_of_things(simulator: AwsIotSimulator) -> None:
    rows = all_rows(client(simulator, "iot"), "list_things", "things")
    assert [row["thingName"] for row in rows] == THINGS
    assert simulator.asked == ["ListThings"] * 2


def test_boto3_reads_all_pages_of_core_devices(simulator: AwsIotSimulator) -> None:
    rows = all_rows(client(simulator, "greengrassv2"), "list_core_devices", "coreDevices")
    assert {row["coreDeviceThingName"]: row["status"] for row in rows} == CORES


def test_core_devices_are_filtered_by_status(simulator: AwsIotSimulator) -> None:
    cores = client(simulator, "greengrassv2")
    rows = all_rows(cores, "list_core_devices", "coreDevices", status="HEALTHY")
    assert len(rows) == 65


@pytest.mark.parametrize(("history", "count"), [("LATEST_ONLY", 120), ("ALL", 150)])
def test_boto3_reads_all_pages_of_deployments(
    simulator: AwsIotSimulator, history: str, count: int
) -> None:
    deployments = client(simulator, "greengrassv2")
    rows = all_rows(deployments, "list_deployments", "deployments", historyFilter=history)
    assert len(rows) == count
    assert {row["deploymentStatus"] for row in rows} == {"ACTIVE", "FAILED"}


def test_a_search_keeps_to_max_results(simulator: AwsIotSimulator) -> None:
    iot = client(simulator, "iot")
    query = {"queryString": "connectivity.connected:true", "maxResults": 70}
    sizes = []
    while True:
        page = iot.search_index(**query)
        sizes.append(len(page["things"]))
        if not page.get("nextToken"):
            break
        query["nextToken"] = page["nextToken"]
    assert sizes == [70, 70, 70]


def test_page_tokens_hold_what_a_query_string_must_encode(simulator: AwsIotSimulator) -> None:
    token = client(simulator, "iot").list_things(maxResults=1)["nextToken"]
    assert {"+", "/"} <= set(token)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"queryString": "thingName:a*"}, "InvalidQueryException"),
        ({"maxResults": 101}, "InvalidRequestException"),
        ({"nextToken": "made up"}, "InvalidRequestException"),
    ],
)
def test_a_wrong_search_is_refused(
    simulator: AwsIotSimulator, parameters: dict[str, Any], code: str
) -> None:
    query = {"queryString": "connectivity.connected:true", **parameters}
    with pytest.raises(ClientError) as refused:
        client(simulator, "iot").search_index(**query)
    assert code_of(refused) == code


def test_without_an_index_there_is_no_search(simulator: AwsIotSimulator) -> None:
    simulator.fleet = Fleet(is_indexed=False)
    iot = client(simulator, "iot")
    with pytest.raises(ClientError) as refused:
        iot.search_index(queryString="connectivity.connected:true")
    assert code_of(refused) == "ResourceNotFoundException"
    modes = iot.get_indexing_configuration()["thingIndexingConfiguration"]
    assert modes == {"thingIndexingMode": "OFF", "thingConnectivityIndexingMode": "OFF"}


def test_without_connectivity_in_the_index_a_search_finds_nothing(
    simulator: AwsIotSimulator,
) -> None:
    simulator.fleet = Fleet(connected=["a"], is_connectivity_indexed=False)
    found = client(simulator, "iot").search_index(queryString="connectivity.connected:true")
    assert found["things"] == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
        ({"aws_access_key_id": "AKIAUNKNOWN"}, "UnrecognizedClientException"),
        ({"aws_session_token": "not ours"}, "UnrecognizedClientException"),
        ({"region_name": "eu-west-2"}, "InvalidSignatureException"),
    ],
)
@pytest.mark.parametrize("operation", ["list_things", "list_core_devices"])
def test_a_wrong_signature_is_refused(
    simulator: AwsIotSimulator, operation: str, changes: dict[str, str], code: str
) -> None:
    service = "iot" if operation == "list_things" else "greengrassv2"
    with pytest.raises(ClientError) as refused:
        getattr(client(simulator, service, **changes), operation)()
    assert code_of(refused) == code


def test_the_session_token_is_part_of_the_credential() -> None:
    with AwsIotSimulator(FLEET, session_token="of the hour") as simulator:
        assert client(simulator, "iot", aws_session_token="of the hour").list_things()["things"]
        with pytest.raises(ClientError) as refused:
            client(simulator, "iot").list_things()
    assert code_of(refused) == "UnrecognizedClientException"


def signed(
    simulator: AwsIotSimulator, service: str = "iot", target: str = "/things?maxResults=5"
) -> tuple[str, dict[str, str]]:
    account = simulator.account
    request = AWSRequest("GET", simulator.url + target)
    keys = Credentials(account.access_key_id, account.secret_access_key)
    SigV4Auth(keys, service, account.region).add_auth(request)
    return str(request.url), dict(request.headers.items())


def test_a_signed_request_is_answered(simulator: AwsIotSimulator) -> None:
    url, headers = signed(simulator)
    assert len(httpx.get(url, headers=headers).json()["things"]) == 5


def test_a_request_changed_after_signing_is_refused(simulator: AwsIotSimulator) -> None:
    url, headers = signed(simulator)
    reply = httpx.get(url.replace("=5", "=6"), headers=headers)
    assert reply.headers["x-amzn-errortype"].startswith("InvalidSignatureException:")


def test_a_signature_for_another_service_is_refused(simulator: AwsIotSimulator) -> None:
    url, headers = signed(simulator, "greengrass")
    assert httpx.get(url, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("Authorization", "", "MissingAuthenticationTokenException"),
        ("Authorization", "Bearer abc", "IncompleteSignatureException"),
        ("X-Amz-Date", "20200101T000000Z", "InvalidSignatureException"),
        ("X-Amz-Date", "yesterday", "InvalidSignatureException"),
        ("X-Amz-Meta", "not signed", "InvalidSignatureException"),
    ],
)
def test_a_request_signed_in_part_or_long_ago_is_refused(
    simulator: AwsIotSimulator, header: str, value: str, code: str
) -> None:
    url, headers = signed(simulator)
    if header == "X-Amz-Date":
        today = headers["X-Amz-Date"][:8]
        headers["Authorization"] = headers["Authorization"].replace(today, value[:8])
    reply = httpx.get(url, headers={**headers, header: value})
    assert (reply.status_code, reply.headers["x-amzn-errortype"].split(":")[0]) == (403, code)


def test_the_secret_is_not_shown(simulator: AwsIotSimulator) -> None:
    assert simulator.account.secret_access_key not in repr(simulator.account)


def test_scripted_faults_are_used_up_and_standing_ones_stay(simulator: AwsIotSimulator) -> None:
    iot = client(simulator, "iot")
    simulator.script("ListThings", [THROTTLED, None])
    simulator.always("ListThings", INDEX_NOT_READY)
    codes = []
    for _ in range(4):
        try:
            iot.list_things()
            codes.append("fine")
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])
    last = "IndexNotReadyException"
    assert codes == ["ThrottlingException", "fine", last, last]


def test_half_a_json_is_half_of_the_truth(simulator: AwsIotSimulator) -> None:
    simulator.script("ListThings", [half_json])
    url, headers = signed(simulator)
    half = httpx.get(url, headers=headers).content
    whole = httpx.get(url, headers=headers).content
    assert whole.startswith(half)
    assert len(half) == len(whole) // 2


def test_an_unknown_path_is_not_found(simulator: AwsIotSimulator) -> None:
    url, headers = signed(simulator, target="/jobs")
    assert httpx.get(url, headers=headers).status_code == 404
