"""The SNMP probe as a sweep and `devices probe` use it: net-snmp's agent, and agents that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.snmp_messages import VERSION_2C
from metrics_pipeline.core.devices import CPU_UTILIZATION, HOST_METRICS, UPTIME, Device, Miss
from metrics_pipeline.sources.snmp import Snmp, resolve
from metrics_pipeline.sources.snmp_engines.spec import Community
from metrics_pipeline.sources.snmp_memory import DeviceMemory
from metrics_pipeline.sources.snmp_settings import (
    SnmpCommunity,
    SnmpCredential,
    SnmpSettings,
    SnmpUser,
)
from metrics_pipeline_tests.hostile_snmp_agent import hostile_agent
from metrics_pipeline_tests.snmp_agents import (
    AUTHENTICATION_PASSWORD,
    COMMUNITY,
    PRIVACY_PASSWORD,
    snmpd,
    user,
)

HASTY = SnmpSettings(timeout_seconds=0.2, tries=1)
USER = user("sha256", "aes128")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an snmpd that knows USER and the community `public`."""
    with snmpd(tmp_path_factory.mktemp("snmpd"), [USER]) as port:
        yield port


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, SnmpCredential]:
    """One of each kind, their secrets in the environment."""
    secrets = {
        "TEST_COMMUNITY": COMMUNITY,
        "TEST_AUTH": AUTHENTICATION_PASSWORD,
        "TEST_PRIVACY": PRIVACY_PASSWORD,
        "TEST_SHORT": "short",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    community, auth = SecretReference(env="TEST_COMMUNITY"), SecretReference(env="TEST_AUTH")
    privacy, short = SecretReference(env="TEST_PRIVACY"), SecretReference(env="TEST_SHORT")
    return {
        "v1": SnmpCommunity(version="1", community=community),
        "v2c": SnmpCommunity(community=community),
        "v3": SnmpUser(
            user=USER.name,
            auth="sha256",
            auth_password=auth,
            privacy="aes128",
            privacy_password=privacy,
        ),
        "stranger": SnmpUser(user="stranger", auth="sha256", auth_password=auth),
        "short": SnmpUser(user=USER.name, auth="sha256", auth_password=short),
        "no secret": SnmpCommunity(community=SecretReference(env="TEST_NOT_THERE")),
    }


def device(port: int, credential: str = "v2c", address: str = "127.0.0.1") -> Device:
    return Device("d1", "d1", address, "server", "snmp", port, credential)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("credential", ["v1", "v2c", "v3"])
def test_a_device_gives_its_metrics_over_every_version_and_both_engines(
    agent: int, credentials: Mapping[str, SnmpCredential], engine: str, credential: str
) -> None:
    snmp = Snmp(SnmpSettings.model_validate({"engine": engine}), credentials)

    async def run() -> None:
        async with snmp:
            for _ in range(2):
                reading = await snmp.poll(device(agent, credential), HOST_METRICS)
                assert reading.is_up
                assert reading.reason is None
                assert set(reading.values) | set(reading.misses) == set(HOST_METRICS)
                assert reading.values[UPTIME] >= 0

    asyncio.run(run())
    assert set(snmp.dump_memories()) == {"d1"}


@pytest.mark.parametrize("known", [b"not JSON", b"{}", b'{"plans": 7}'])
def test_a_memory_that_cannot_be_read_is_as_none(
    agent: int, credentials: Mapping[str, SnmpCredential], known: bytes
) -> None:
    fresh, upgraded = (Snmp(SnmpSettings(), credentials) for _ in range(2))
    upgraded.load_memories({"d1": known, "d2": known, "somebody else": b"{}"})

    async def counts(snmp: Snmp) -> list[int]:
        async with snmp:
            for name in ("d1", "d2"):
                one = replace(device(agent), id=name)
                assert UPTIME in (await snmp.poll(one, [UPTIME])).values
        kept = snmp.dump_memories()
        return [DeviceMemory.from_json(kept[name]).polls for name in ("d1", "d2")]

    begun = asyncio.run(counts(upgraded))
    assert begun == asyncio.run(counts(fresh))
    assert begun[0] != begun[1]  # else all would be discovered in step from then on
    assert upgraded.dump_memories()["somebody else"] == b"{}"


def test_a_probe_can_be_entered_for_one_sweep_after_another(
    agent: int, credentials: Mapping[str, SnmpCredential]
) -> None:
    snmp = Snmp(SnmpSettings(), credentials)

    async def run() -> bool:
        async with snmp:
            return (await snmp.poll(device(agent, "v3"), [UPTIME])).is_up

    assert asyncio.run(run())
    assert asyncio.run(run())


def read(
    port: int,
    credentials: Mapping[str, SnmpCredential],
    credential: str = "v2c",
    address: str = "127.0.0.1",
) -> tuple[bool, Miss | None, str]:
    """What polling a device with little patience comes to."""

    async def run() -> tuple[bool, Miss | None, str]:
        async with Snmp(HASTY, credentials) as snmp:
            asked = device(port, credential, address)
            reading = await snmp.poll(asked, [UPTIME, CPU_UTILIZATION])
        assert reading.values == {}
        assert set(reading.misses.values()) == {reading.reason}
        return reading.is_up, reading.reason, reading.detail

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("credential", "outcome", "words"),
    [
        ("stranger", (True, Miss.AUTH), "unknown user"),
        ("short", (False, Miss.CREDENTIAL), "8 characters"),
        ("no secret", (False, Miss.CREDENTIAL), "TEST_NOT_THERE"),
        ("of somebody else", (False, Miss.CREDENTIAL), "of somebody else"),
    ],
)
def test_a_credential_that_does_not_do_is_named(
    agent: int,
    credentials: Mapping[str, SnmpCredential],
    credential: str,
    outcome: tuple[bool, Miss],
    words: str,
) -> None:
    found = read(agent, credentials, credential)
    assert found[:2] == outcome
    assert words in found[2]


def test_a_host_name_without_an_address_is_a_miss(
    credentials: Mapping[str, SnmpCredential],
) -> None:
    assert read(1, credentials, address="no-such-host.invalid")[:2] == (False, Miss.RESOLVE)


def test_silence_is_a_time_out_and_a_closed_port_a_refusal(
    credentials: Mapping[str, SnmpCredential],
) -> None:
    async def run() -> tuple[Miss | None, Miss | None, Miss | None]:
        async with Snmp(HASTY, credentials) as snmp:
            async with hostile_agent(lambda _: None) as (_, port):
                silent = await snmp.poll(device(port), [UPTIME])
            async with hostile_agent(lambda _: [b"not SNMP"]) as (_, other):
                babbling = await snmp.poll(device(other), [UPTIME])
            closed = await snmp.poll(device(port), [UPTIME])
        assert (silent.is_up, babbling.is_up, closed.is_up) == (False, True, False)
        return silent.reason, babbling.reason, closed.reason

    assert asyncio.run(run()) == (Miss.TIMEOUT, Miss.PARSE, Miss.REFUSED)


def test_a_name_with_two_addresses_is_asked_at_the_second_when_the_first_is_silent(
    agent: int, credentials: Mapping[str, SnmpCredential], monkeypatch: pytest.MonkeyPatch
) -> None:
    from metrics_pipeline.access import host_addresses

    found = tuple(
        address
        for host in ("127.9.9.9", "127.0.0.1")
        if (address := host_addresses.literal_address(host))
    )
    monkeypatch.setattr(host_addresses, "_look_up", lambda _: found)

    async def run() -> bool:
        async with Snmp(HASTY, credentials) as snmp:
            return (await snmp.poll(device(agent, address="two.example"), [UPTIME])).is_up

    assert asyncio.run(run())


def test_two_devices_at_one_address_each_have_their_reading(
    agent: int, credentials: Mapping[str, SnmpCredential]
) -> None:
    twins = [replace(device(agent, credential), id=credential) for credential in ("v2c", "v3")]

    async def run() -> None:
        async with Snmp(SnmpSettings(), credentials) as snmp:
            for _ in range(2):
                readings = await asyncio.gather(*(snmp.poll(each, HOST_METRICS) for each in twins))
                assert [reading.device_id for reading in readings] == ["v2c", "v3"]
                assert all(UPTIME in reading.values for reading in readings)

    asyncio.run(run())


def test_the_trace_tells_each_step_without_a_secret(
    agent: int, credentials: Mapping[str, SnmpCredential]
) -> None:
    told: list[str] = []

    async def run() -> None:
        async with Snmp(SnmpSettings(engine="reference"), credentials) as snmp:
            await snmp.poll(device(agent, "v3"), HOST_METRICS, told.append)

    asyncio.run(run())
    assert any(line.startswith("get of") for line in told)
    assert any(line.startswith("walk of 1.3.6.1") for line in told)
    assert not any(AUTHENTICATION_PASSWORD in line or PRIVACY_PASSWORD in line for line in told)


@pytest.mark.parametrize(
    "given",
    [
        {"user": "u", "auth": "sha256"},
        {"user": "u", "auth_password": {"env": "X"}},
        {"user": "u", "privacy": "aes128", "privacy_password": {"env": "X"}},
        {"user": "u", "auth": "sha3", "auth_password": {"env": "X"}},
        {"user": "", "auth": "sha1", "auth_password": {"env": "X"}},
        {"user": "u", "auth": "sha1", "auth_password": "a password that is written here"},
    ],
)
def test_a_user_whose_parts_do_not_fit_is_refused_without_showing_a_secret(
    given: Mapping[str, object],
) -> None:
    with pytest.raises(ValidationError) as refused:
        SnmpUser.model_validate(given)
    assert "a password that" not in str(refused.value)


def test_no_secret_is_in_what_is_shown(credentials: Mapping[str, SnmpCredential]) -> None:
    shown = "".join(
        repr(credentials[name]) + repr(resolve(credentials[name])) for name in ("v2c", "v3")
    )
    assert AUTHENTICATION_PASSWORD not in shown
    assert PRIVACY_PASSWORD not in shown
    assert f"'{COMMUNITY}'" not in shown


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "community").write_text("from a file\n")
    secret = SecretReference(file=tmp_path / "community")
    assert resolve(SnmpCommunity(community=secret)) == Community(VERSION_2C, "from a file")
