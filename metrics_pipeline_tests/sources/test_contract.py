"""What every source there is does: one suite, run over the registry."""

from __future__ import annotations

import base64
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.access.inventory_tables import INVENTORY
from metrics_pipeline.core.catalog import CATALOG, Metric
from metrics_pipeline.core.errors import SourceError, SourceRefused, SourceUnreachable
from metrics_pipeline.core.ports import Reading, SnapshotSource
from metrics_pipeline.core.validation import validate
from metrics_pipeline.simulators import aws_iot as simulated_aws
from metrics_pipeline.simulators.iot_hub import IotHubSimulator
from metrics_pipeline.sources.registry import SOURCES
from metrics_pipeline.sources.spec import SourceSpec
from metrics_pipeline_tests.postgresql import PostgresqlDatabase
from metrics_pipeline_tests.raw_server import Talk, raw_server
from metrics_pipeline_tests.sources.iot_hub_fixtures import fleet_of, standard_devices

TIME_NS = 1_700_000_000_123_456_789
WRONG_SECRET = base64.b64encode(b"the secret of nobody").decode()

HASTY = {"tries": 1, "request_timeout_seconds": 0.2, "deadline_seconds": 0.5}
"""Limits of the sources over HTTP, so that what fails does so soon."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a source reads: address and secret, and more that its settings need."""

    address: str
    secret: str
    details: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Settings of sources over HTTP; any at all means that the service is to be given up soon."""


# --- the table: how each source is set up ---------------------------------------------------------


def iot_hub_settings(service: Service, file: Path) -> dict[str, Any]:
    policy = f"SharedAccessKeyName=metrics;SharedAccessKey={service.secret}"
    file.write_text(f"HostName={service.address};{policy}")
    return {"connection_string": {"file": str(file)}, "scheme": "http", **service.limits}


def aws_settings(service: Service, file: Path) -> dict[str, Any]:
    file.write_text(service.secret)
    return {
        "region": "eu-west-1",
        "iot_endpoint_url": f"http://{service.address}",
        "greengrass_endpoint_url": f"http://{service.address}",
        "access_key_id": service.details.get("access_key_id", "AKIAIOSFODNN7EXAMPLE"),
        "secret_access_key": {"file": str(file)},
        **service.limits,
    }


def inventory_settings(service: Service, file: Path) -> dict[str, Any]:
    file.write_text(service.secret)
    url = f"postgresql://postgres@{service.address}/{service.details.get('database', 'inventory')}"
    connect_timeout_seconds = 1 if service.limits else 30
    return {
        "database": {
            "url": url,
            "password": {"file": str(file)},
            "connect_timeout_seconds": connect_timeout_seconds,
        }
    }


@contextmanager
def iot_hub(_request: pytest.FixtureRequest) -> Iterator[Service]:
    with IotHubSimulator(fleet_of(*standard_devices(5, connected=2))) as hub:
        yield Service(hub.host, base64.b64encode(hub.policy.key).decode())


@contextmanager
def aws(_request: pytest.FixtureRequest) -> Iterator[Service]:
    fleet = simulated_aws.Fleet(things=["a", "b"], cores={"c": "HEALTHY"}, connected=["a"])
    with simulated_aws.AwsIotSimulator(fleet) as account_of:
        account = account_of.account
        details = {"access_key_id": account.access_key_id}
        yield Service(account_of.host, account.secret_access_key, details)


@contextmanager
def inventory(request: pytest.FixtureRequest) -> Iterator[Service]:
    database: PostgresqlDatabase = request.getfixturevalue("postgresql")
    engine = sa.create_engine(database.url)
    INVENTORY.create_all(engine)
    engine.dispose()
    url = sa.engine.make_url(database.url)
    yield Service(f"{url.host}:{url.port}", database.password, {"database": str(url.database)})


@dataclass(frozen=True, slots=True)
class SetUp:
    """`settings` for a service, with its secret in a file; and a service that works."""

    settings: Callable[[Service, Path], dict[str, Any]]
    service: Callable[[pytest.FixtureRequest], Any]


SET_UPS: Mapping[str, SetUp] = {
    "azure_iot_hub": SetUp(iot_hub_settings, iot_hub),
    "aws_iot": SetUp(aws_settings, aws),
    "inventory": SetUp(inventory_settings, inventory),
}


# --- what all tests need --------------------------------------------------------------------------


@pytest.fixture(params=SOURCES.values(), ids=list(SOURCES))
def spec(request: pytest.FixtureRequest) -> SourceSpec:
    """Every source of the registry; one that is missing in the table fails here."""
    assert isinstance(request.param, SourceSpec)
    return request.param


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.fixture
def service(spec: SourceSpec, request: pytest.FixtureRequest) -> Iterator[Service]:
    with SET_UPS[spec.name].service(request) as service:
        yield service


def build(spec: SourceSpec, service: Service, secret_file: Path) -> SnapshotSource:
    settings = SET_UPS[spec.name].settings(service, secret_file)
    return spec.build(spec.settings_type.model_validate(settings))


@contextmanager
def built(spec: SourceSpec, service: Service, secret_file: Path) -> Iterator[SnapshotSource]:
    source = build(spec, service, secret_file)
    try:
        yield source
    finally:
        source.close()


def read(
    spec: SourceSpec,
    service: Service,
    secret_file: Path,
    metrics: Sequence[Metric] | None = None,
) -> Reading:
    with built(spec, service, secret_file) as source:
        return source.read(spec.answers if metrics is None else metrics, TIME_NS)


def fields(metrics: Sequence[Metric]) -> list[str]:
    return sorted(metric.field for metric in metrics)


def assert_all_failed(spec: SourceSpec, reading: Reading, kind: type[SourceError]) -> None:
    """Each metric is one failure, and none is a point."""
    assert reading.points == ()
    assert sorted(failure.target for failure in reading.failures) == fields(spec.answers)
    for failure in reading.failures:
        assert isinstance(failure, kind), failure
        assert failure.source == spec.name
        assert failure.fix


def hasty(address: str) -> Service:
    """What is at `address` is given up soon, and nobody's secret is used there."""
    return Service(address, WRONG_SECRET, limits=HASTY)


# --- the registry ---------------------------------------------------------------------------------


def test_the_registry_says_what_is_shown_of_a_source(spec: SourceSpec) -> None:
    assert SOURCES[spec.name] is spec
    assert spec.name.isidentifier()
    assert spec.name == spec.name.lower()
    assert spec.title
    assert spec.kinds
    assert spec.reads.startswith(f"{spec.name}/")
    assert (spec.settings_type.__doc__ or "").strip()


def test_a_source_answers_metrics_of_the_catalogue(spec: SourceSpec) -> None:
    assert spec.answers
    assert len(set(spec.answers)) == len(spec.answers)
    assert set(spec.answers) <= set(CATALOG)


def test_settings_do_not_change_and_have_no_unknown_keys(spec: SourceSpec) -> None:
    assert spec.settings_type.model_config.get("frozen")
    assert spec.settings_type.model_config.get("extra") == "forbid"


# --- a source that works --------------------------------------------------------------------------


def test_every_point_is_fit_to_be_stored(
    spec: SourceSpec, service: Service, secret_file: Path
) -> None:
    reading = read(spec, service, secret_file)
    assert reading.failures == ()
    for point in reading.points:
        assert validate(point, CATALOG, TIME_NS) == point
        assert point.time_ns == TIME_NS
        assert point.tags["provider"] == spec.name


def test_every_metric_of_its_answers_is_answered_once(
    spec: SourceSpec, service: Service, secret_file: Path
) -> None:
    reading = read(spec, service, secret_file)
    assert sorted(name for point in reading.points for name in point.fields) == fields(spec.answers)


def test_no_more_is_answered_than_was_asked(
    spec: SourceSpec, service: Service, secret_file: Path
) -> None:
    for metric in spec.answers:
        (point,) = read(spec, service, secret_file, [metric]).points
        assert list(point.fields) == [metric.field]
    assert read(spec, service, secret_file, []) == Reading(())


def test_a_metric_of_another_source_is_a_failure_and_costs_no_other(
    spec: SourceSpec, service: Service, secret_file: Path
) -> None:
    others = [metric for metric in CATALOG if metric not in spec.answers]
    reading = read(spec, service, secret_file, [*others, *spec.answers])
    assert sorted(failure.target for failure in reading.failures) == fields(others)
    assert len(reading.points) == len(spec.answers)


def test_a_source_may_be_closed_twice_and_before_its_first_use(
    spec: SourceSpec, service: Service, secret_file: Path
) -> None:
    build(spec, service, secret_file).close()
    with built(spec, service, secret_file) as source:
        assert source.name == spec.name
        source.read(spec.answers, TIME_NS)
        source.close()


# --- a source that does not -----------------------------------------------------------------------


def test_an_address_where_nobody_is_makes_failures(spec: SourceSpec, secret_file: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but not listening
        reading = read(spec, hasty(f"127.0.0.1:{bound.getsockname()[1]}"), secret_file)
    assert_all_failed(spec, reading, SourceUnreachable)


def test_building_connects_to_nobody(spec: SourceSpec, secret_file: Path) -> None:
    with raw_server(Talk.say_nothing) as server:
        build(spec, hasty(server.host), secret_file).close()
        assert server.connections == 0


def test_a_server_that_accepts_and_says_nothing_is_left(
    spec: SourceSpec, secret_file: Path
) -> None:
    # That this ends at all is the test: the server says nothing for as long as the test takes.
    with raw_server(Talk.say_nothing) as server:
        reading = read(spec, hasty(server.host), secret_file)
        assert 0 < server.connections <= len(spec.answers)
    assert_all_failed(spec, reading, SourceUnreachable)


def dribble(talk: Talk) -> None:
    talk.answer(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    talk.repeat(b"x")


def test_a_server_that_dribbles_is_left(spec: SourceSpec, secret_file: Path) -> None:
    with raw_server(dribble) as server:
        reading = read(spec, hasty(server.host), secret_file)
        assert server.was_left.wait(30)
    assert_all_failed(spec, reading, SourceUnreachable)


def test_a_server_that_speaks_another_language_makes_failures(
    spec: SourceSpec, secret_file: Path
) -> None:
    with raw_server(lambda talk: talk.answer(b"220 mail.example ESMTP\r\n")) as server:
        reading = read(spec, hasty(server.host), secret_file)
    assert_all_failed(spec, reading, SourceUnreachable)


def test_a_secret_that_is_not_there_makes_failures_that_name_it(
    spec: SourceSpec, service: Service, secret_file: Path
) -> None:
    with built(spec, service, secret_file) as source:
        secret_file.unlink()
        reading = source.read(spec.answers, TIME_NS)
    assert_all_failed(spec, reading, SourceRefused)
    for failure in reading.failures:
        assert f"file {secret_file}" in str(failure)
        assert not failure.retry_helps


def test_a_secret_that_comes_later_needs_no_new_source(
    spec: SourceSpec, service: Service, secret_file: Path
) -> None:
    with built(spec, service, secret_file) as source:
        right = secret_file.read_text()
        secret_file.write_text(right.replace(service.secret, WRONG_SECRET))
        assert_all_failed(spec, source.read(spec.answers, TIME_NS), SourceRefused)
        secret_file.write_text(right)
        assert source.read(spec.answers, TIME_NS).failures == ()


def test_no_secret_is_shown(spec: SourceSpec, service: Service, secret_file: Path) -> None:
    settings = SET_UPS[spec.name].settings(service, secret_file)
    section = spec.settings_type.model_validate(settings)
    shown = [f"{section!r} {section} {section.model_dump_json()} {spec!r}"]
    with built(spec, service, secret_file) as source:
        source.read(spec.answers, TIME_NS)
        shown.append(f"{source!r} {source} {source.name}")
    wrong = Service(service.address, WRONG_SECRET, service.details)
    for failure in read(spec, wrong, secret_file).failures:
        shown += traceback.format_exception(failure)
    assert service.secret not in "".join(shown)
    assert WRONG_SECRET not in "".join(shown)
