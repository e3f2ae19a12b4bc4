"""A hostile SNMP agent: real UDP on loopback, and whatever replies a test wants. Not a real agent.

What real agents do is tested with `snmpd` and `snmpsim`; this is for what they never do.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from metrics_pipeline.access.snmp_ber import (
    INTEGER,
    NULL,
    OBJECT_ID,
    OCTETS,
    SEQUENCE,
    decode_oid,
    encode,
    encode_integer,
    encode_oid,
    read_header,
    read_integer,
)
from metrics_pipeline.access.snmp_messages import (
    ErrorStatus,
    Pdu,
    encode_community_message,
    read_version,
)

Address = tuple[str, int]
Variable = tuple[str, bytes]
"""A name, and the value with tag and length."""

NOTHING = encode(NULL, b"")
END_OF_MIB_VIEW, NO_SUCH_INSTANCE = b"\x82\x00", b"\x81\x00"


class Question(NamedTuple):
    """A request of version 1 or 2c. The second and third number mean repetitions in GET_BULK."""

    version: int
    community: bytes
    tag: Pdu
    identifier: int
    non_repeaters: int
    repetitions: int
    oids: tuple[str, ...]
    asker: Address = ("", 0)

    def reply(
        self, variables: Iterable[Variable], status: int = 0, index: int = 0, identifier: int = 0
    ) -> bytes:
        """A whole datagram, well formed."""
        return encode_community_message(
            self.version,
            self.community,
            encode(
                Pdu.RESPONSE,
                encode(INTEGER, (identifier or self.identifier).to_bytes(4, "big"))
                + encode_integer(status)
                + encode_integer(index)
                + encode(SEQUENCE, b"".join(map(variable, variables))),
            ),
        )

    def error(self, status: ErrorStatus, index: int = 0) -> bytes:
        """An error, with the variables that were asked."""
        return self.reply([(oid, NOTHING) for oid in self.oids], status, index)


Answer = Callable[[Question], bytes | Iterable[bytes] | None]
"""The datagrams to send back, if any."""


def variable(named: Variable) -> bytes:
    """One variable of a reply."""
    return encode(SEQUENCE, encode_oid(named[0]) + named[1])


def number(value: int) -> bytes:
    """An INTEGER."""
    return encode_integer(value)


def text(value: str) -> bytes:
    """An OCTET STRING."""
    return encode(OCTETS, value.encode())


@asynccontextmanager
async def hostile_agent(answer: Answer, delay_seconds: float = 0.0) -> AsyncIterator[Address]:
    """Answers with `answer` in this event loop, `delay_seconds` late; gives its address."""
    async with _endpoint(lambda: _Agent(answer, delay_seconds)) as (address, _):
        yield address


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    """Passes datagrams to the agent at `port`, which can be changed, and back."""
    async with _endpoint(Relay) as (address, protocol):
        found = cast("Relay", protocol)
        found.address, found.port = address, port
        yield found


@dataclass
class Mib:
    """An agent with a table of values that does as it is told, within limits that it is given."""

    values: Mapping[str, bytes]
    max_variables: int = 10_000
    """More in a reply are `tooBig`."""
    cut_at: int = 10_000
    """No more are sent, whatever was asked for."""
    repetitions: int | None = None
    """Rows that it sends, whatever was asked for."""
    questions: list[Question] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._names = sorted(self.values, key=numbers)
        self._keys = [numbers(name) for name in self._names]

    def __call__(self, question: Question) -> bytes:
        self.questions.append(question)
        variables = self._variables(question)
        if question.version == 0:
            for place, (_, value) in enumerate(variables, start=1):
                if value in {END_OF_MIB_VIEW, NO_SUCH_INSTANCE}:
                    return question.error(ErrorStatus.NO_SUCH_NAME, place)
        if len(variables) > self.max_variables:
            return question.reply([], ErrorStatus.TOO_BIG)
        return question.reply(variables[: self.cut_at])

    def _variables(self, question: Question) -> list[Variable]:
        if question.tag == Pdu.GET:
            return [(oid, self.values.get(oid, NO_SUCH_INSTANCE)) for oid in question.oids]
        rows = question.repetitions if question.tag == Pdu.GET_BULK else 1
        if question.tag == Pdu.GET_BULK and self.repetitions is not None:
            rows = self.repetitions
        places = [bisect.bisect_right(self._keys, numbers(oid)) for oid in question.oids]
        return [
            self._at(place + row, oid)
            for row in range(rows)
            for place, oid in zip(places, question.oids, strict=True)
        ]

    def _at(self, place: int, asked: str) -> Variable:
        if place < len(self._names):
            return self._names[place], self.values[self._names[place]]
        return self._names[-1] if self._names else asked, END_OF_MIB_VIEW


def numbers(oid: str) -> tuple[int, ...]:
    """What object identifiers are ordered by."""
    return tuple(map(int, oid.split(".")))


def read_question(data: bytes) -> Question:
    """What was asked."""
    version, at = read_version(data)
    start, at = read_header(data, at, OCTETS, len(data))
    community, tag = data[start:at], Pdu(data[at])
    at, _ = read_header(data, at, tag, len(data))
    identifier, at = read_integer(data, at, len(data))
    second, at = read_integer(data, at, len(data))
    third, at = read_integer(data, at, len(data))
    at, end = read_header(data, at, SEQUENCE, len(data))
    oids = []
    while at < end:
        start, at = read_header(data, at, SEQUENCE, end)
        start, stop = read_header(data, start, OBJECT_ID, at)
        oids.append(decode_oid(data[start:stop]))
    return Question(version, community, tag, identifier, second, third, tuple(oids))


class _Agent(asyncio.DatagramProtocol):
    def __init__(self, answer: Answer, delay_seconds: float) -> None:
        self._answer = answer
        self._delay_seconds = delay_seconds

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        answer = self._answer(read_question(data)._replace(asker=address))
        for datagram in [answer] if isinstance(answer, bytes) else answer or ():
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay_seconds, self._transport.sendto, datagram, address)


class Relay(asyncio.DatagramProtocol):
    """For one asker at a time; `port` is the agent's, which can be replaced by another."""

    address: Address
    port: int
    _asker: Address | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if address[1] == self.port:
            self._transport.sendto(data, self._asker)
        else:
            self._asker = address
            self._transport.sendto(data, ("127.0.0.1", self.port))


@asynccontextmanager
async def _endpoint(
    make: Callable[[], asyncio.DatagramProtocol],
) -> AsyncIterator[tuple[Address, asyncio.DatagramProtocol]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(make, local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname"), protocol
    finally:
        transport.close()
        await asyncio.sleep(0)
