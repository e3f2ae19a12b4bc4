"""The reference: pysnmp, whose codec and security are nobody's of ours.

What the fast engine is compared with, and what `devices probe` uses. It costs some fifty times as
much CPU time, so it is not for sweeps. Its own ways that show here:

- ObjectType makes pysnmp look names up in MIBs, even when it is told not to: names go in as text.
- At 100 requests in flight it loses datagrams and calls live devices dead; 30 are safe.
- SNMPv3: each session has an engine of its own (some 0.1 s), because pysnmp keeps clocks by engine
  identifier, and two devices may claim the same one.
- It looks for time-outs twice a second, and does not hear that a port is unreachable.
- Integers that do not fit their type (an INTEGER beyond 32 bits) make it refuse the whole reply.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable
from typing import Any, Self

from metrics_pipeline.access.snmp_ber import decode_opaque
from metrics_pipeline.access.snmp_messages import VERSION_1, Pdu, Reply
from metrics_pipeline.access.snmp_sockets import IPV4_PARTS, Address
from metrics_pipeline.access.snmp_usm import User
from metrics_pipeline.sources.snmp_engines.asking import AskingSession
from metrics_pipeline.sources.snmp_engines.spec import Community, EngineSettings
from metrics_pipeline.sources.snmp_session import (
    Oid,
    SnmpAuthFailed,
    SnmpFailure,
    SnmpMalformed,
    SnmpTimeout,
    SnmpValue,
)

with warnings.catch_warnings():
    # pysnmp 7.1 imports names that pysmi 1.6, where it is installed, calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyasn1.error import PyAsn1Error
    from pyasn1.type.univ import Integer, Null, ObjectIdentifier, OctetString
    from pysnmp.error import PySnmpError
    from pysnmp.hlapi.v1arch import asyncio as v1arch
    from pysnmp.hlapi.v3arch import asyncio as v3arch
    from pysnmp.hlapi.v3arch.asyncio.cmdgen import VB_PROCESSOR
    from pysnmp.proto import errind, rfc1155, rfc1902

MAX_IN_FLIGHT = 30
TIMER_SECONDS = 1.0
"""So late pysnmp may be with its own time-out."""

AUTHENTICATION: dict[str | None, Any] = {
    None: v3arch.USM_AUTH_NONE,
    "md5": v3arch.USM_AUTH_HMAC96_MD5,
    "sha1": v3arch.USM_AUTH_HMAC96_SHA,
    "sha224": v3arch.USM_AUTH_HMAC128_SHA224,
    "sha256": v3arch.USM_AUTH_HMAC192_SHA256,
    "sha384": v3arch.USM_AUTH_HMAC256_SHA384,
    "sha512": v3arch.USM_AUTH_HMAC384_SHA512,
}
PRIVACY: dict[str | None, Any] = {
    None: v3arch.USM_PRIV_NONE,
    "des": v3arch.USM_PRIV_CBC56_DES,
    "aes128": v3arch.USM_PRIV_CFB128_AES,
    "aes256": v3arch.USM_PRIV_CFB256_AES_BLUMENTHAL,
    "aes256c": v3arch.USM_PRIV_CFB256_AES,
}


class ReferenceEngine:
    """A context manager; any number of sessions, of which 30 requests are in flight."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    async def __aenter__(self) -> Self:
        self.in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Each session has closed what it opened."""

    def session(self, address: Address, credential: Community | User) -> AskingSession:
        """A session with the device at `address`, a numeric one."""
        if isinstance(credential, User):
            exchange: _CommunityExchange | _UserExchange = _UserExchange(self, address, credential)
        else:
            exchange = _CommunityExchange(self, address, credential)
        return AskingSession(exchange, self.settings.max_varbinds, self.settings.max_repetitions)


class _Dispatcher(v1arch.SnmpDispatcher):  # type: ignore[misc]
    """pysnmp's, that keeps what it cannot read from ending in the event loop's log."""

    problem = ""

    def close(self) -> None:
        """As pysnmp does, but it cannot end requests that nobody waits for any more."""
        self._pendingReqs.clear()
        super().close()

    def _recv_callback(self, *arguments: Any) -> Any:
        try:
            return super()._recv_callback(*arguments)
        except (PyAsn1Error, PySnmpError) as error:
            self.problem = str(error).partition("\n")[0] or type(error).__name__
            return b""


class _CommunityExchange:
    """Versions 1 and 2c."""

    def __init__(self, engine: ReferenceEngine, address: Address, credential: Community) -> None:
        self.has_bulk = credential.version != VERSION_1
        self._engine = engine
        self._address = address
        self._dispatcher = _Dispatcher()
        self._credential = v1arch.CommunityData(credential.community, mpModel=credential.version)

    async def ask(self, tag: Pdu, oids: tuple[Oid, ...], repetitions: int = 0) -> Reply:
        command, numbers = _command(v1arch, tag, repetitions)
        names = [(oid, Null("")) for oid in oids]
        self._dispatcher.problem = ""
        async with self._engine.in_flight:
            target = await _target(v1arch, self._address, self._engine.settings)
            asking = command(self._dispatcher, self._credential, target, *numbers, *names)
            answer = await _within(asking, self._engine.settings)
        if answer[0] is not None and self._dispatcher.problem:
            raise SnmpMalformed(f"what came cannot be read: {self._dispatcher.problem}")
        return _reply(*answer)

    async def close(self) -> None:
        self._dispatcher.close()
        await asyncio.sleep(0)  # its tasks hear that they are cancelled


class _UserExchange:
    """Version 3."""

    has_bulk = True

    def __init__(self, engine: ReferenceEngine, address: Address, user: User) -> None:
        self._engine = engine
        self._address = address
        self._snmp_engine = _quiet_engine()
        self._user = v3arch.UsmUserData(
            user.name,
            user.authentication_password or None,
            user.privacy_password or None,
            authProtocol=AUTHENTICATION[user.authentication],
            privProtocol=PRIVACY[user.privacy],
        )

    async def ask(self, tag: Pdu, oids: tuple[Oid, ...], repetitions: int = 0) -> Reply:
        command, numbers = _command(v3arch, tag, repetitions)
        names = [(oid, Null("")) for oid in oids]
        engine, user, context = self._snmp_engine, self._user, v3arch.ContextData()
        async with self._engine.in_flight:
            target = await _target(v3arch, self._address, self._engine.settings)
            asking = command(engine, user, target, context, *numbers, *names, lookupMib=False)
            answer = await _within(asking, self._engine.settings)
        return _reply(*answer)

    async def close(self) -> None:
        self._snmp_engine.close_dispatcher()
        await asyncio.sleep(0)  # its tasks hear that they are cancelled


def _quiet_engine() -> Any:
    """An engine that has met its first name, at which pysnmp calls what pysmi deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        engine = v3arch.SnmpEngine()
        VB_PROCESSOR.make_varbinds(engine.cache, [("1.3.6.1", Null(""))])
    return engine


def _command(architecture: Any, tag: Pdu, repetitions: int) -> tuple[Any, tuple[int, ...]]:
    """What of pysnmp sends such a PDU, and the numbers it takes before the names."""
    if tag == Pdu.GET_BULK:
        return architecture.bulk_cmd, (0, repetitions)
    return architecture.get_cmd if tag == Pdu.GET else architecture.next_cmd, ()


async def _target(architecture: Any, address: Address, settings: EngineSettings) -> Any:
    is_ipv4 = len(address) == IPV4_PARTS
    kind = architecture.UdpTransportTarget if is_ipv4 else architecture.Udp6TransportTarget
    seconds, retries = settings.timeout_seconds, settings.tries - 1
    return await kind.create(address[:2], timeout=seconds, retries=retries)


async def _within(asking: Awaitable[Any], settings: EngineSettings) -> Any:
    """pysnmp's answer, or a time-out: it forgets a request whose reply it cannot read."""
    seconds = settings.timeout_seconds * settings.tries + TIMER_SECONDS
    try:
        return await asyncio.wait_for(asking, seconds)
    except TimeoutError:
        return errind.requestTimedOut, 0, 0, ()


def _reply(indication: Any, status: Any, index: Any, variables: Any) -> Reply:
    if indication is not None:
        raise _failure(indication)
    names = [str(name) for name, _ in variables]
    return Reply(int(status), int(index), names, [_value(value) for _, value in variables])


def _failure(indication: Any) -> SnmpFailure:
    if isinstance(indication, errind.RequestTimedOut):
        return SnmpTimeout("no answer in time")
    if isinstance(indication, errind.DeserializationError):
        return SnmpMalformed(str(indication))
    return SnmpAuthFailed(f"the agent says: {indication}")


def _value(value: Any) -> SnmpValue | None:
    """pysnmp's object as what SnmpValue says. Null is what all the absent ones derive from."""
    if isinstance(value, Null):
        return None
    if isinstance(value, rfc1155.IpAddress | rfc1902.IpAddress):
        return ".".join(map(str, bytes(value)))
    if isinstance(value, rfc1155.Opaque | rfc1902.Opaque):
        return decode_opaque(bytes(value))
    if isinstance(value, Integer):
        return int(value)
    if isinstance(value, ObjectIdentifier):
        return str(value)
    if isinstance(value, OctetString):
        return bytes(value)
    raise SnmpMalformed(f"pysnmp knows no value in a {type(value).__name__}")
