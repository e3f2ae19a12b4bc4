"""The engine that sweeps: our own codec, and a few UDP sockets that all devices share.

Of our own, because `gufo-snmp` 0.13 takes as much CPU time for known instances and more for walks
(one column a request), and it cannot tell `tooBig`, `genErr` and an empty reply apart, panics in
its Rust code on an empty variable, cuts replies at 4,080 bytes, takes values under names that were
not asked, does not say why an SNMPv3 agent refuses, and needs a socket a device. pysnmp takes fifty
times as much (docs/decisions/0006).

SNMPv3: an agent's identity and clock are remembered by address, not by engine identifier, because
two devices may claim the same one. What an agent reports of its clock is believed: replies are
matched by identifiers that nobody can guess, so an old one cannot pass for the answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Self

from metrics_pipeline.access.snmp_ber import BerError
from metrics_pipeline.access.snmp_messages import (
    VERSION_1,
    VERSION_3,
    Pdu,
    Reply,
    ReplyPdu,
    decode_reply,
    encode_community_message,
    encode_request,
    read_pdu,
)
from metrics_pipeline.access.snmp_sockets import (
    Address,
    NoAnswer,
    Received,
    SnmpSockets,
    Unreachable,
)
from metrics_pipeline.access.snmp_usm import (
    NOBODY,
    Engine,
    Keys,
    SecuredReply,
    Undecipherable,
    User,
    encode_discovery,
    encode_message,
    read_message,
)
from metrics_pipeline.sources.snmp_engines.asking import AskingSession
from metrics_pipeline.sources.snmp_engines.spec import (
    Community,
    EngineSettings,
    SnmpUnreachable,
)
from metrics_pipeline.sources.snmp_session import (
    Oid,
    SnmpAuthFailed,
    SnmpMalformed,
    SnmpTimeout,
)

SECURITY_LEVEL = 3
MAX_REPORTS = 3
"""Who the agent is, then what time it has; a third for an agent that restarts meanwhile."""

USM_STATISTICS = "1.3.6.1.6.3.15.1.1."
REPORTS = {
    "1": "unsupported security level",
    "2": "not in time window",
    "3": "unknown user",
    "4": "unknown engine ID",
    "5": "wrong digest: is the password right, and the authentication protocol?",
    "6": "decryption error: is the password right, and the privacy protocol?",
}
CORRECTED = frozenset({"2", "4"})
"""Reports that tell what to say instead."""


class FastEngine:
    """A context manager for one sweep, or many in one event loop; any number of sessions at once.

    Remembers the keys of each user at each agent, and who each agent is.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.sockets = SnmpSockets(settings.timeout_seconds, settings.tries)
        self.agents: dict[Address, tuple[Engine, float]] = {}
        self._keys: dict[tuple[User, bytes], Keys] = {}

    async def __aenter__(self) -> Self:
        self.sockets.__enter__()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.sockets.__exit__(None, None, None)

    def session(self, address: Address, credential: Community | User) -> AskingSession:
        """A session with the device at `address`, a numeric one."""
        if isinstance(credential, User):
            exchange: _CommunityExchange | _UserExchange = _UserExchange(self, address, credential)
        else:
            exchange = _CommunityExchange(self, address, credential)
        settings = self._settings
        return AskingSession(exchange, settings.max_varbinds, settings.max_repetitions)

    def keys_for(self, user: User, engine_id: bytes) -> Keys:
        """The user's keys at an agent, remembered."""
        keys = self._keys.get((user, engine_id))
        if keys is None:
            keys = self._keys[user, engine_id] = user.keys_for(engine_id)
        return keys

    async def send(self, datagram: bytes, identifier: int, address: Address) -> Received:
        """The reply to a datagram. Raises SnmpFailure."""
        try:
            return await self.sockets.ask(datagram, identifier, address)
        except Unreachable as error:
            raise SnmpUnreachable(str(error)) from None
        except NoAnswer as error:
            if str(error):
                raise SnmpMalformed(f"what came cannot be read: {error}") from None
            tries, seconds = self._settings.tries, self._settings.timeout_seconds
            strays = f", and {error.strays} to other requests" if error.strays else ""
            raise SnmpTimeout(f"no answer in {tries} tries of {seconds:g} s{strays}") from None


class _CommunityExchange:
    """Versions 1 and 2c."""

    def __init__(self, engine: FastEngine, address: Address, credential: Community) -> None:
        self.has_bulk = credential.version != VERSION_1
        self._engine = engine
        self._address = address
        self._version = credential.version
        self._community = credential.community.encode()

    async def ask(self, tag: Pdu, oids: tuple[Oid, ...], repetitions: int = 0) -> Reply:
        identifier = self._engine.sockets.new_id()
        pdu = encode_request(tag, identifier, oids, repetitions)
        datagram = encode_community_message(self._version, self._community, pdu)
        received = await self._engine.send(datagram, identifier, self._address)
        if received.version != self._version or received.pdu is None:
            raise SnmpMalformed(f"asked in {self._version}, answered in {received.version}")
        try:
            return decode_reply(received.data, received.pdu, oids if tag == Pdu.GET else ())
        except BerError as error:
            raise SnmpMalformed(str(error)) from None

    async def close(self) -> None:
        """Nothing is its own."""


class _UserExchange:
    """Version 3."""

    has_bulk = True

    def __init__(self, engine: FastEngine, address: Address, user: User) -> None:
        self._engine = engine
        self._address = address
        self._user = user

    async def ask(self, tag: Pdu, oids: tuple[Oid, ...], repetitions: int = 0) -> Reply:
        if self._address not in self._engine.agents:
            await self._discover()
        for _ in range(MAX_REPORTS):
            reply, pdu = await self._ask_once(tag, oids, repetitions)
            if pdu.tag == Pdu.RESPONSE:
                return self._checked(reply, pdu, oids if tag == Pdu.GET else ())
            self._heed(_report(reply, pdu), reply.engine)
        raise SnmpAuthFailed("the agent reports a new identity or time at each request")

    async def close(self) -> None:
        """Nothing is its own."""

    async def _discover(self) -> None:
        identifier = self._engine.sockets.new_id()
        pdu = encode_request(Pdu.GET, identifier, (), 0)
        received = await self._send(encode_discovery(identifier, pdu), identifier)
        reply, _ = self._read(received, NOBODY)
        if not reply.engine.engine_id:
            raise SnmpMalformed("the agent does not say its engine ID")
        self._remember(reply.engine)

    async def _ask_once(
        self, tag: Pdu, oids: tuple[Oid, ...], repetitions: int
    ) -> tuple[SecuredReply, ReplyPdu]:
        identifier = self._engine.sockets.new_id()
        agent = self._agent_now()
        keys = self._engine.keys_for(self._user, agent.engine_id)
        pdu = encode_request(tag, identifier, oids, repetitions)
        datagram = encode_message(identifier, self._user, keys, agent, pdu)
        reply, answer = self._read(await self._send(datagram, identifier), self._user)
        if answer.tag == Pdu.RESPONSE and answer.request_id != identifier:
            raise SnmpMalformed("the reply is for another request")
        return reply, answer

    async def _send(self, datagram: bytes, identifier: int) -> Received:
        return await self._engine.send(datagram, identifier, self._address)

    def _read(self, received: Received, user: User) -> tuple[SecuredReply, ReplyPdu]:
        if received.version != VERSION_3:
            raise SnmpMalformed(f"asked in version 3, answered in {received.version}")

        def keys_of(engine_id: bytes) -> Keys:
            return self._engine.keys_for(user, engine_id)

        try:
            reply = read_message(received.data, received.at, user, keys_of)
            return reply, read_pdu(reply.data, reply.start, reply.stop)
        except BerError as error:
            raise SnmpMalformed(str(error)) from None
        except Undecipherable as error:
            raise SnmpAuthFailed(f"the agent answered, but {error}") from None

    def _checked(self, reply: SecuredReply, pdu: ReplyPdu, asked: tuple[Oid, ...]) -> Reply:
        if reply.flags & SECURITY_LEVEL != self._user.flags:
            raise SnmpAuthFailed("the agent answered with less protection than it was asked with")
        if reply.engine.engine_id != self._agent_now().engine_id:
            raise SnmpAuthFailed("the agent answered under another engine ID")
        try:
            return decode_reply(reply.data, pdu, asked)
        except BerError as error:
            raise SnmpMalformed(str(error)) from None

    def _heed(self, report: str, agent: Engine) -> None:
        if report not in CORRECTED or not agent.engine_id:
            words = REPORTS.get(report, f"report {report}")
            raise SnmpAuthFailed(f"the agent says: {words}")
        self._remember(agent)

    def _remember(self, agent: Engine) -> None:
        self._engine.agents[self._address] = agent, asyncio.get_running_loop().time()

    def _agent_now(self) -> Engine:
        agent, heard_at = self._engine.agents[self._address]
        passed = int(asyncio.get_running_loop().time() - heard_at)
        return replace(agent, time_seconds=agent.time_seconds + passed) if passed else agent


def _report(reply: SecuredReply, pdu: ReplyPdu) -> str:
    """Which of USM's statistics a report is about: the number in its place there."""
    try:
        names = decode_reply(reply.data, pdu).names
    except BerError as error:
        raise SnmpMalformed(str(error)) from None
    name = names[0] if names else ""
    return name.removeprefix(USM_STATISTICS).removesuffix(".0")
