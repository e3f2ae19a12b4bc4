"""SNMP agents on loopback addresses: real UDP, version 2c, read-only, with figures that change.

Each address, `127.20.1.1` say, is an agent with a socket of its own; all have the same port. GET,
GETNEXT and GETBULK are answered as RFC 3416 section 4.2 says, SET is refused. Another version,
another community and bytes that are no request get no answer, as from net-snmp's agent.
"""

from __future__ import annotations

import asyncio
import bisect
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any, NamedTuple

from metrics_pipeline.access.snmp_ber import (
    END_OF_MIB_VIEW,
    NO_SUCH_INSTANCE,
    NO_SUCH_OBJECT,
    NULL,
    OBJECT_ID,
    OCTETS,
    SEQUENCE,
    BerError,
    decode_oid,
    encode,
    encode_integer,
    encode_oid,
    read_header,
    read_integer,
)
from metrics_pipeline.access.snmp_messages import (
    VERSION_2C,
    ErrorStatus,
    Pdu,
    encode_community_message,
    read_version,
)
from metrics_pipeline.simulators.loop_thread import LoopThread
from metrics_pipeline.simulators.loopback_ports import bind_all
from metrics_pipeline.simulators.snmp_objects import Identity, Objects, show
from metrics_pipeline.simulators.ssh_host import HostFigures

SET = 0xA3
MAX_REPLY_BYTES = 1472
"""What an Ethernet frame holds: a GETBULK gets no more, and a GET for more is `tooBig`."""
HEAD_BYTES = 128
"""More than version, community, identifier and headers take."""


class AgentManner(StrEnum):
    """How an agent answers. Whatever the manner, each reply is well-formed."""

    WELL = "well"
    WRONG_TYPES = "wrong types"
    """Numbers come as texts, and everything else as a number."""
    WRONG_REQUEST = "wrong request"
    """Its replies have another identifier than the requests."""
    CIRCLING = "circling"
    """What comes after an object is the same object again."""


Key = tuple[int, ...]
Variable = tuple[str, bytes]
"""A name, and its value with tag and length."""


class Request(NamedTuple):
    """What was asked. The two numbers are non-repeaters and repetitions of a GETBULK."""

    tag: int
    request_id: int
    non_repeaters: int
    repetitions: int
    oids: tuple[str, ...]


@dataclass(slots=True)
class SimulatedAgent:
    """An agent at an address. Figures and manners may be changed at any time, by any thread."""

    address: str
    identity: Identity
    figures: HostFigures = field(default_factory=HostFigures)
    delay_seconds: float = 0.0
    """How late each of its answers is."""
    is_silent: bool = False
    """Whether it answers nothing at all."""
    manner: AgentManner = AgentManner.WELL
    requests: int = 0
    """How many requests it has answered."""


class SnmpAgents(LoopThread):
    """Serves `agents` in a thread of its own while it is entered; there must be one at least.

    `port` 0 is any that is free. Raises OSError when this machine does not have the
    addresses, or the port is taken.
    """

    def __init__(self, agents: Iterable[SimulatedAgent], *, community: str, port: int = 0) -> None:
        self.agents = {agent.address: agent for agent in agents}
        self._community = community.encode()
        self._sockets = bind_all(list(self.agents), port, socket.SOCK_DGRAM)
        self.port: int = self._sockets[0].getsockname()[1]
        super().__init__("snmp-agents")

    async def _serve(self) -> None:
        transports = []
        for each in self._sockets:
            agent = self.agents[each.getsockname()[0]]
            transport, _ = await self._loop.create_datagram_endpoint(
                partial(_Endpoint, agent, self._community), sock=each
            )
            transports.append(transport)
        await self._stop.wait()
        for transport in transports:
            transport.close()


class _Endpoint(asyncio.DatagramProtocol):
    """One agent's socket."""

    def __init__(self, agent: SimulatedAgent, community: bytes) -> None:
        self._agent = agent
        self._community = community
        self._shown: tuple[HostFigures, AgentManner, Mib] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        agent = self._agent
        if agent.is_silent:
            return
        reply = answer(data, self._community, self._mib(), agent.manner)
        if reply is None:
            return
        agent.requests += 1
        if agent.delay_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(agent.delay_seconds, self._transport.sendto, reply, address)
        else:
            self._transport.sendto(reply, address)

    def _mib(self) -> Mib:
        """What the present figures look like, worked out once for as long as they stay."""
        figures, manner = self._agent.figures, self._agent.manner
        if self._shown is None or self._shown[0] is not figures or self._shown[1] is not manner:
            self._shown = figures, manner, _mib(show(self._agent.identity, figures), manner)
        return self._shown[2]


class Mib:
    """The objects of an agent at one moment, in their order."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._names, self._keys = _in_order(tuple(objects))

    def get(self, oid: str) -> Variable:
        """The value of `oid`, or which kind of absence it is (RFC 3416 section 4.2.1)."""
        value = self._objects.get(oid)
        if value is not None:
            return oid, value
        column = _key(oid)[:-1]
        place = bisect.bisect_left(self._keys, column)
        has_column = place < len(self._keys) and self._keys[place][: len(column)] == column
        return oid, encode(NO_SUCH_INSTANCE if has_column else NO_SUCH_OBJECT, b"")

    def next(self, oid: str) -> Variable:
        """The object after `oid`; the end of the view where there is none."""
        place = bisect.bisect_right(self._keys, _key(oid))
        if place == len(self._names):
            return oid, encode(END_OF_MIB_VIEW, b"")
        name = self._names[place]
        return name, self._objects[name]


class CirclingMib(Mib):
    """The same, but what comes after an object is that object again."""

    def next(self, oid: str) -> Variable:
        """`oid` itself if there is such an object."""
        return self.get(oid) if oid in self._objects else super().next(oid)


def _mib(objects: Objects, manner: AgentManner) -> Mib:
    if manner is AgentManner.CIRCLING:
        return CirclingMib(objects)
    if manner is AgentManner.WRONG_TYPES:
        return Mib({oid: _mistype(value) for oid, value in objects.items()})
    return Mib(objects)


def _mistype(value: bytes) -> bytes:
    """Octets and names as a number, numbers as a text."""
    if value[0] in {OCTETS, OBJECT_ID}:
        return encode_integer(len(value))
    return encode(OCTETS, b"about " + value[2:].hex().encode())


def answer(
    data: bytes, community: bytes, mib: Mib, manner: AgentManner = AgentManner.WELL
) -> bytes | None:
    """The datagram that answers `data`, or None for what gets no answer."""
    try:
        request = read_request(data, community)
    except BerError:
        return None
    if request is None:
        return None
    if manner is AgentManner.WRONG_REQUEST:
        request = request._replace(request_id=request.request_id ^ 1)
    if request.tag == SET:
        unchanged = [(oid, encode(NULL, b"")) for oid in request.oids]
        return _reply(community, request, unchanged, ErrorStatus.NO_ACCESS, index=1)
    if request.tag == Pdu.GET_BULK:
        return _reply(community, request, _fitting(_bulk(mib, request)))
    look = mib.get if request.tag == Pdu.GET else mib.next
    reply = _reply(community, request, [look(oid) for oid in request.oids])
    if len(reply) > MAX_REPLY_BYTES:
        return _reply(community, request, [], ErrorStatus.TOO_BIG)
    return reply


def read_request(data: bytes, community: bytes) -> Request | None:
    """The request in `data`; None for another version, community or PDU. Raises BerError."""
    version, at = read_version(data)
    if version != VERSION_2C:
        return None
    start, at = read_header(data, at, OCTETS, len(data))
    if data[start:at] != community or at >= len(data):
        return None
    tag = data[at]
    if tag not in {Pdu.GET, Pdu.GET_NEXT, Pdu.GET_BULK, SET}:
        return None
    at, end = read_header(data, at, tag, len(data))
    request_id, at = read_integer(data, at, end)
    non_repeaters, at = read_integer(data, at, end)
    repetitions, at = read_integer(data, at, end)
    oids = tuple(_read_names(data, *read_header(data, at, SEQUENCE, end)))
    return Request(tag, request_id, non_repeaters, repetitions, oids)


def _read_names(data: bytes, at: int, end: int) -> Iterable[str]:
    while at < end:
        start, at = read_header(data, at, SEQUENCE, end)
        start, stop = read_header(data, start, OBJECT_ID, at)
        yield decode_oid(data[start:stop])


def _bulk(mib: Mib, request: Request) -> Iterable[Variable]:
    """The variables of RFC 3416 section 4.2.3, until all repeaters are at the end."""
    count = max(0, request.non_repeaters)
    for oid in request.oids[:count]:
        yield mib.next(oid)
    row = list(request.oids[count:])
    for _ in range(max(0, request.repetitions) if row else 0):
        found = [mib.next(oid) for oid in row]
        yield from found
        if all(value[0] == END_OF_MIB_VIEW for _, value in found):
            return
        row = [name for name, _ in found]


def _fitting(variables: Iterable[Variable]) -> Sequence[Variable]:
    """As many of the first `variables` as a reply holds."""
    room = MAX_REPLY_BYTES - HEAD_BYTES
    fitting = []
    for variable in variables:
        room -= len(_encode_variable(variable))
        if room < 0:
            break
        fitting.append(variable)
    return fitting


def _reply(
    community: bytes,
    request: Request,
    variables: Iterable[Variable],
    status: int = ErrorStatus.NO_ERROR,
    index: int = 0,
) -> bytes:
    content = encode(SEQUENCE, b"".join(map(_encode_variable, variables)))
    head = encode_integer(request.request_id) + encode_integer(status) + encode_integer(index)
    return encode_community_message(VERSION_2C, community, encode(Pdu.RESPONSE, head + content))


def _encode_variable(variable: Variable) -> bytes:
    name, value = variable
    return encode(SEQUENCE, encode_oid(name) + value)


@lru_cache(1024)
def _in_order(names: tuple[str, ...]) -> tuple[Sequence[str], Sequence[Key]]:
    """An agent has the same names from one moment to the next."""
    ordered = sorted(names, key=_key)
    return ordered, [_key(name) for name in ordered]


@lru_cache(65_536)
def _key(oid: str) -> Key:
    """What object identifiers are ordered by."""
    return tuple(map(int, oid.split(".")))
