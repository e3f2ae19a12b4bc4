"""The simulated hub refuses what the service refuses, and serves a fleet to the whole product."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from metrics_pipeline.access.azure_credentials import sign
from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.access.inventory_tables import CONCENTRATORS
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.simulators.fleet import Concentrator, Fleet, FleetSize, make_fleet
from metrics_pipeline.simulators.fleet_inventory import mirror_concentrators
from metrics_pipeline.simulators.iot_hub import (
    IotHubSimulator,
    Policy,
    serve_fleet,
    throttled,
)
from metrics_pipeline.simulators.loopback_server import Answer, NoAnswer
from metrics_pipeline.sources.azure_iot_hub import ANSWERS, AzureIotHub, AzureIotHubSettings
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.sources.iot_hub_fixtures import TIME_NS, sample_state, values

COUNT_ALL = "SELECT COUNT() AS n FROM devices"
NOW = 1_700_000_000


@pytest.fixture
def hub() -> Iterator[IotHubSimulator]:
    with IotHubSimulator(Fleet(sample_state()), epoch_seconds=lambda: NOW) as simulator:
        yield simulator


def signature(hub: IotHubSimulator, **changes: Any) -> str:
    given = {
        "host": hub.host,
        "policy": hub.policy.name,
        "key": hub.policy.key,
        "expiry": NOW + 60,
        **changes,
    }
    return sign(**given)


def ask(
    hub: IotHubSimulator,
    query: Any = COUNT_ALL,
    authorization: str | None = None,
    path: str = "/devices/query?api-version=2021-04-12",
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    return httpx.post(
        f"http://{hub.host}{path}",
        json={"query": query},
        headers={"authorization": authorization or signature(hub), **(headers or {})},
    )


def get(hub: IotHubSimulator, path: str) -> httpx.Response:
    return httpx.get(f"http://{hub.host}{path}", headers={"authorization": signature(hub)})


def test_a_signed_query_is_answered(hub: IotHubSimulator) -> None:
    answer = ask(hub)
    assert answer.status_code == 200
    assert answer.json() == [{"n": 12}]
    assert answer.headers["x-ms-item-type"] == "Raw"


@pytest.mark.parametrize(
    "changes",
    [
        {"key": b"another"},
        {"host": "other.azure-devices.net"},
        {"policy": "other"},
        {"expiry": NOW},
        {"expiry": NOW - 1},
    ],
    ids=str,
)
def test_a_signature_that_is_wrong_in_any_part_is_refused(
    hub: IotHubSimulator, changes: Mapping[str, Any]
) -> None:
    answer = ask(hub, authorization=signature(hub, **changes))
    assert answer.status_code == 401
    assert answer.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"
    assert answer.json()["Message"].startswith("ErrorCode:IotHubUnauthorizedAccess;")
    assert answer.json()["ExceptionMessage"].startswith("Tracking ID:")


def test_a_signature_whose_expiry_was_put_off_is_refused(hub: IotHubSimulator) -> None:
    changed = signature(hub).replace(f"se={NOW + 60}", f"se={NOW + 61}")
    assert ask(hub, authorization=changed).status_code == 401


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer x",
        "Bearer",
        "SharedAccessSignature",
        "SharedAccessSignature sr=&sig=&se=&skn=",
        "SharedAccessSignature sr&sig&se=9&skn",
        f"SharedAccessSignature se={'9' * 5000}",
    ],
)
def test_an_authorization_that_is_none_is_refused(hub: IotHubSimulator, authorization: str) -> None:
    answer = ask(hub, authorization=authorization or "none")
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("right", "statuses"), [("ServiceConnect", (200, 401)), ("RegistryRead", (401, 200))]
)
def test_each_path_needs_its_right(
    hub: IotHubSimulator, right: str, statuses: tuple[int, int]
) -> None:
    hub.policy = Policy(rights=frozenset({right}))
    configurations = get(hub, "/configurations?api-version=2021-04-12")
    assert (ask(hub).status_code, configurations.status_code) == statuses


def test_a_bad_query_is_answered_as_the_service_does(hub: IotHubSimulator) -> None:
    answer = ask(hub, "SELECT COUNT() AS n FROM devices WHERE (")
    assert answer.status_code == 400
    assert answer.json()["Message"] == "ErrorCode:ArgumentInvalid;expected a name at character 40"


@pytest.mark.parametrize("query", [None, 12, ["SELECT"]])
def test_a_request_without_a_query_is_bad(hub: IotHubSimulator, query: Any) -> None:
    assert ask(hub, query).status_code == 400


def test_a_body_that_is_not_json_is_bad(hub: IotHubSimulator) -> None:
    answer = httpx.post(
        f"http://{hub.host}/devices/query?api-version=2021-04-12",
        content=b"{",
        headers={"authorization": signature(hub)},
    )
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/devices/query?api-version=2021-04-12", 200),
        ("/devices/query", 400),
        ("/devices/query?api-version=2016-01-01", 400),
        ("/devices?api-version=2021-04-12", 404),
        ("/configurations?api-version=2021-04-12", 404),
        ("/?api-version=2021-04-12", 404),
    ],
)
def test_only_the_paths_of_the_service_are_there(
    hub: IotHubSimulator, path: str, status: int
) -> None:
    assert ask(hub, path=path).status_code == status


def test_pages_are_joined_by_continuations_that_belong_to_their_query() -> None:
    with IotHubSimulator(
        Fleet(sample_state()), epoch_seconds=lambda: NOW, pages_before_rows=1
    ) as hub:
        first = ask(hub)
        assert first.json() == []
        headers = {"x-ms-continuation": first.headers["x-ms-continuation"]}
        second = ask(hub, headers=headers)
        assert second.json() == [{"n": 12}]
        assert "x-ms-continuation" not in second.headers
        assert ask(hub, COUNT_ALL + " ", headers=headers).status_code == 400
        assert ask(hub, headers={"x-ms-continuation": "forged"}).status_code == 400


@pytest.mark.parametrize(("size", "status"), [("1", 200), ("1000", 200), ("0", 400), ("1001", 400)])
def test_a_page_has_1_to_1000_rows(hub: IotHubSimulator, size: str, status: int) -> None:
    assert ask(hub, headers={"x-ms-max-item-count": size}).status_code == status


def test_configurations_are_limited_by_top_and_by_the_hub(hub: IotHubSimulator) -> None:
    path = "/configurations?api-version=2021-04-12"
    assert [each["id"] for each in get(hub, path).json()] == ["base", "layer"]
    assert len(get(hub, f"{path}&top=1").json()) == 1
    assert len(get(hub, f"{path}&top=100000").json()) == 2
    assert get(hub, f"{path}&top=0").status_code == 400


def test_faults_come_once_each_and_in_order(hub: IotHubSimulator) -> None:
    hub.faults += [throttled(9), None, Answer(200, b"<html>", {"Content-Type": "text/html"})]
    answers = [ask(hub) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 200, 200, 200]
    assert answers[0].headers["Retry-After"] == "9"
    assert answers[2].text == "<html>"
    assert answers[3].json() == [{"n": 12}]
    assert len(hub.requests) == 4


def test_a_hub_that_is_asked_something_it_will_not_answer_still_closes() -> None:
    with IotHubSimulator(Fleet(sample_state())) as hub:
        hub.faults.append(NoAnswer())
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"http://{hub.host}/configurations", timeout=0.1)


def test_a_connection_is_kept_for_the_next_request(hub: IotHubSimulator) -> None:
    with httpx.Client() as client:
        for _ in range(3):
            client.get(f"http://{hub.host}/nowhere")
    with httpx.Client() as client:
        assert client.get(f"http://{hub.host}/{quote('ä')}").status_code == 401


def test_a_hub_shows_no_key(hub: IotHubSimulator) -> None:
    assert repr(hub.policy.key) not in repr(hub.policy)


# --- the inventory --------------------------------------------------------------------------


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_engine(DatabaseSettings(url=f"sqlite:///{tmp_path}/inventory.sqlite"))
    yield engine
    engine.dispose()


def concentrator_ids(engine: sa.Engine) -> list[str]:
    with engine.begin() as connection:
        query = sa.select(CONCENTRATORS.c.id).order_by(CONCENTRATORS.c.id)
        return list(connection.execute(query).scalars())


def concentrator(number: int) -> Concentrator:
    return Concentrator(f"simulated-{number}", f"Number {number}", f"FEEDFACE{number:08X}")


def test_the_inventory_follows_the_fleet(inventory: sa.Engine) -> None:
    mirror_concentrators(inventory, [concentrator(1), concentrator(2)])
    assert concentrator_ids(inventory) == ["simulated-1", "simulated-2"]
    mirror_concentrators(inventory, [concentrator(2), concentrator(3)])
    assert concentrator_ids(inventory) == ["simulated-2", "simulated-3"]
    mirror_concentrators(inventory, [])
    assert concentrator_ids(inventory) == []


def test_a_row_that_stays_is_not_written_again(inventory: sa.Engine) -> None:
    mirror_concentrators(inventory, [concentrator(1)])
    with inventory.begin() as connection:
        connection.execute(sa.update(CONCENTRATORS).values(name="renamed", enabled=False))
    mirror_concentrators(inventory, [concentrator(1)])
    with inventory.begin() as connection:
        row = connection.execute(sa.select(CONCENTRATORS)).one()
    assert (row.name, row.enabled) == ("renamed", False)


def test_the_operators_rows_are_never_touched(inventory: sa.Engine) -> None:
    own = {"id": "roof", "name": "Roof", "eui": concentrator(1).eui, "enabled": True}
    mirror_concentrators(inventory, [concentrator(2)])
    with inventory.begin() as connection:
        connection.execute(sa.insert(CONCENTRATORS), [own])
        before = connection.execute(sa.select(CONCENTRATORS).filter_by(id="roof")).one()
    mirror_concentrators(inventory, [concentrator(1), concentrator(3)])
    assert concentrator_ids(inventory) == ["roof", "simulated-3"], "1 has the EUI of the roof's"
    with inventory.begin() as connection:
        assert connection.execute(sa.select(CONCENTRATORS).filter_by(id="roof")).one() == before


# --- the process ----------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


@contextmanager
def served(directory: Path, inventory: sa.Engine, step_seconds: float) -> Iterator[Path]:
    """A fleet served from a thread; gives the file of its connection string."""
    file = directory / "simulator" / "connection_string"
    file.unlink(missing_ok=True)
    stop = threading.Event()
    options = {
        "port": 0,
        "connection_string_file": file,
        "inventory": inventory,
        "step_seconds": step_seconds,
        "seed": 1,
        "stop": stop,
    }
    thread = threading.Thread(target=serve_fleet, kwargs=options)
    thread.start()
    try:
        wait_until(file.exists)
        yield file
    finally:
        stop.set()
        thread.join()


def test_a_served_fleet_can_be_counted(tmp_path: Path, inventory: sa.Engine) -> None:
    with served(tmp_path, inventory, step_seconds=3600) as file:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        reference = SecretReference(file=file)
        source = AzureIotHub(AzureIotHubSettings(connection_string=reference, scheme="http"))
        found = values(source.read(ANSWERS, TIME_NS))
        source.close()
    size = FleetSize()
    assert found["device_count"] == size.devices
    assert found["edge_device_count"] == size.edge_devices
    assert found["concentrator_count"] == size.concentrators == len(concentrator_ids(inventory))
    assert 0 < found["connected_device_count"] <= size.devices


def test_a_served_fleet_changes(tmp_path: Path, inventory: sa.Engine) -> None:
    with served(tmp_path, inventory, step_seconds=0.01):
        first = concentrator_ids(inventory)
        wait_until(lambda: concentrator_ids(inventory) != first)


def test_a_served_fleet_can_be_started_again(tmp_path: Path, inventory: sa.Engine) -> None:
    gone = [concentrator(1)]
    mirror_concentrators(inventory, gone)
    for _ in range(2):
        with served(tmp_path, inventory, step_seconds=3600):
            pass
    expected = make_fleet(FleetSize(), Random(1)).snapshot().concentrators
    assert concentrator_ids(inventory) == sorted(each.id for each in expected)


def test_a_served_fleet_survives_a_locked_inventory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/locked.sqlite", connect_args={"timeout": 0.01})
    try:
        with engine.connect() as blocker:
            blocker.exec_driver_sql("BEGIN EXCLUSIVE")
            with served(tmp_path, engine, step_seconds=3600) as file:
                assert file.read_text().startswith("HostName=127.0.0.1:")
            blocker.rollback()
    finally:
        engine.dispose()
    assert "database is locked" in caplog.text
