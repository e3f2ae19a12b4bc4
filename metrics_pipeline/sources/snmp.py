"""SNMP: a device's metrics from its agent, version 1, 2c or 3.

How agents are asked is in `snmp_engines`, what their values mean in `snmp_poll`. Of a host name
with several addresses, the next is asked when nobody answers at one.

The defaults fit a sweep of thousands: an agent that is not there costs `tries` times
`timeout_seconds`, during which everything else goes on.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Self

from pydantic import ValidationError

from metrics_pipeline.access.host_addresses import HostAddresses, NameNotFound
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.snmp_messages import VERSION_1, VERSION_2C
from metrics_pipeline.access.snmp_usm import MIN_PASSWORD_CHARACTERS, User
from metrics_pipeline.core.devices import Device, DeviceReading, Miss
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.ports import Trace
from metrics_pipeline.sources.snmp_engines.fast import FastEngine
from metrics_pipeline.sources.snmp_engines.spec import (
    Community,
    EngineSettings,
    SnmpEngine,
    SnmpUnreachable,
)
from metrics_pipeline.sources.snmp_memory import DeviceMemory
from metrics_pipeline.sources.snmp_poll import REDISCOVER_AFTER, poll_values
from metrics_pipeline.sources.snmp_session import (
    Index,
    Oid,
    SnmpFailure,
    SnmpSession,
    SnmpTimeout,
    SnmpValue,
)
from metrics_pipeline.sources.snmp_settings import SnmpCommunity, SnmpCredential, SnmpSettings

NAME = "snmp"
PORT = 161


class Snmp:
    """Device probe. `credentials` are by the name the inventory gives as `credential`.

    What a poll remembers of a device for the next is kept as JSON: unpacked it is eight times as
    much, and only those devices need it that are being asked.
    """

    name = NAME

    def __init__(
        self,
        settings: SnmpSettings,
        credentials: Mapping[str, SnmpCredential],
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._resolved: dict[str, Community | User] = {}
        self._memories: dict[str, bytes] = {}
        self._engine = _engine(settings)

    def load_memories(self, memories: Mapping[str, bytes]) -> None:
        """Know the devices as `dump_memories` did; what cannot be read is forgotten."""
        self._memories.update(memories)

    def dump_memories(self) -> Mapping[str, bytes]:
        """1 to 3 kB of JSON for each device, more with detail, by its id."""
        return dict(self._memories)

    async def __aenter__(self) -> Self:
        """Open the engine. Secrets are read anew: they may have changed since the last sweep."""
        self._resolved.clear()
        self._addresses = HostAddresses(self._settings.resolve_timeout_seconds)
        await self._engine.__aenter__()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._addresses.close()
        await self._engine.__aexit__(None, None, None)

    async def poll(
        self, device: Device, metrics: Collection[str], trace: Trace | None = None
    ) -> DeviceReading:
        """Read `metrics` (of HOST_METRICS and DETAILS) of `device`."""
        try:
            credential = self._credential(device.credential)
            addresses = await self._addresses.find(device.address)
        except ConfigurationError as error:
            return _nothing(device, metrics, Miss.CREDENTIAL, str(error))
        except NameNotFound as error:
            return _nothing(
                device, metrics, Miss.RESOLVE, f"{device.address!r} has no address: {error}"
            )
        failure: SnmpFailure | None = None
        for address in addresses:
            with_port = address.with_port(device.port or PORT)
            try:
                return await self._poll_at(with_port, credential, device, metrics, trace)
            except SnmpFailure as error:
                failure = error
                if trace is not None:
                    trace(f"{with_port[0]} port {with_port[1]}: {error.miss}: {error}")
                if _has_answered(error):
                    break
        assert failure is not None
        return _nothing(device, metrics, failure.miss, str(failure), _has_answered(failure))

    async def _poll_at(
        self,
        address: tuple[object, ...],
        credential: Community | User,
        device: Device,
        metrics: Collection[str],
        trace: Trace | None,
    ) -> DeviceReading:
        memory = self._recall(device)
        try:
            async with self._engine.session(address, credential) as session:
                asked: SnmpSession = session if trace is None else _TracedSession(session, trace)
                polled = await poll_values(asked, metrics, memory, trace)
        finally:
            self._memories[device.id] = memory.to_json()
        return DeviceReading(
            device.id,
            is_up=True,
            values=polled.values,
            misses=polled.misses,
            details=polled.details,
        )

    def _recall(self, device: Device) -> DeviceMemory:
        """What is known of `device`; nothing if it cannot be read, as after an upgrade perhaps."""
        known = self._memories.get(device.id)
        try:
            return _new_memory(device) if known is None else DeviceMemory.from_json(known)
        except ValidationError:
            return _new_memory(device)

    def _credential(self, name: str) -> Community | User:
        resolved = self._resolved.get(name)
        if resolved is None:
            if name not in self._credentials:
                raise ConfigurationError(
                    "the inventory", f"no SNMP credential is called {name!r}", "Define it."
                )
            resolved = self._resolved[name] = resolve(self._credentials[name])
        return resolved


def _new_memory(device: Device) -> DeviceMemory:
    """Of a device that is new; its polls are counted from a number of its own.

    Otherwise a fleet that was listed at once would be discovered anew at once, again and again.
    """
    return DeviceMemory(polls=zlib.crc32(device.id.encode()) % REDISCOVER_AFTER)


class _TracedSession:
    """Says what is asked and what comes back."""

    def __init__(self, session: SnmpSession, trace: Trace) -> None:
        self._session = session
        self._trace = trace

    async def get(self, oids: Sequence[Oid]) -> Mapping[Oid, SnmpValue]:
        """See SnmpSession."""
        found = await self._session.get(oids)
        self._trace(f"get of {len(oids)} variables: {len(found)} are there")
        for oid, value in found.items():
            self._trace(f"  {oid} = {value!r}")
        return found

    async def walk(self, columns: Sequence[Oid]) -> Mapping[Oid, Mapping[Index, SnmpValue]]:
        """See SnmpSession."""
        found = await self._session.walk(columns)
        for column, rows in found.items():
            self._trace(f"walk of {column}: {len(rows)} rows")
        return found


def _engine(settings: SnmpSettings) -> SnmpEngine:
    limits = EngineSettings(
        timeout_seconds=settings.timeout_seconds,
        tries=settings.tries,
        max_varbinds=settings.max_varbinds,
        max_repetitions=settings.max_repetitions,
    )
    if settings.engine == "fast":
        return FastEngine(limits)
    # pysnmp takes half a second to import: only who asks for it waits.
    from metrics_pipeline.sources.snmp_engines.reference import ReferenceEngine  # noqa: PLC0415

    return ReferenceEngine(limits)


def _has_answered(failure: SnmpFailure) -> bool:
    return not isinstance(failure, SnmpTimeout | SnmpUnreachable)


def _nothing(
    device: Device, metrics: Collection[str], reason: Miss, detail: str, is_up: bool = False
) -> DeviceReading:
    misses = dict.fromkeys(metrics, reason)
    return DeviceReading(device.id, is_up, misses=misses, reason=reason, detail=detail)


def resolve(credential: SnmpCredential) -> Community | User:
    """`credential` with its secrets; ConfigurationError if one is not there, or too short."""
    if isinstance(credential, SnmpCommunity):
        version = VERSION_1 if credential.version == "1" else VERSION_2C
        return Community(version, credential.community.read())
    return User(
        credential.user,
        credential.auth,
        _password(credential.auth_password),
        credential.privacy,
        _password(credential.privacy_password),
    )


def _password(secret: SecretReference | None) -> str:
    password = "" if secret is None else secret.read()
    if secret is not None and len(password) < MIN_PASSWORD_CHARACTERS:
        raise ConfigurationError(
            str(secret),
            f"an SNMPv3 password has {MIN_PASSWORD_CHARACTERS} characters at least (RFC 3414)",
            "Set the whole of it.",
        )
    return password
