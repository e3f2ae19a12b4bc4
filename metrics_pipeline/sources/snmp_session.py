"""The seam between the engines that speak SNMP and the formulas that know what its values mean.

An engine (`pysnmp`, the reference; the fast one, our own) gives one SnmpSession for one device;
`snmp_poll` asks it and computes metrics. An engine knows datagrams, time-outs, retries, `tooBig`,
repetitions, versions and credentials, and no MIB; `snmp_poll` knows MIBs and no datagram.

Object identifiers are dotted strings without a leading dot: turning the 110 of a usual device into
tuples costs 0.2 ms, and looking tuples up costs twice as much, as a string remembers its hash
(measured with CPython 3.11).

SnmpFailure: what a session raises; `miss` is the label it is counted under
├── SnmpTimeout     no answer in time, after the engine's retries
├── SnmpAuthFailed  the agent knows us not: user, key, time window, engine id
├── SnmpRefused     the agent, or its host, says no: authorizationError, noAccess, port unreachable
└── SnmpMalformed   it answered what cannot be right: BER, types, OIDs that do not increase
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol

from metrics_pipeline.core.devices import Miss
from metrics_pipeline.core.errors import MetricsPipelineError

Oid = str
"""`1.3.6.1.2.1.1.3.0`: decimal numbers, no leading dot, no leading zeros."""

Index = str
"""What follows a table's column in a cell's OID: `1`, or `10.0.0.1.5`. Written like an Oid."""

SnmpValue = int | float | bytes | str
"""What a variable holds, by its type on the wire:

- int: INTEGER, Counter32, Gauge32, TimeTicks, Counter64. Signed as decoded; no engine mends it.
- bytes: OCTET STRING, and Opaque that is not a number.
- str: OBJECT IDENTIFIER (an Oid) and IpAddress (`10.0.0.1`). Who asks knows which it is.
- float: Opaque float and double of net-snmp.

NULL, noSuchObject, noSuchInstance and endOfMibView are no values: the variable is absent.
"""

NOTHING: Mapping[Oid, SnmpValue] = MappingProxyType({})


class SnmpSession(Protocol):
    """Asks one device. Not for two askers at once. The caller bounds all of it by cancelling."""

    async def get(self, oids: Sequence[Oid]) -> Mapping[Oid, SnmpValue]:
        """The values of `oids` (instances, any number of them) that the device has.

        The engine cuts them into as many requests as it must, and halves one that is `tooBig`. A
        variable the agent has not, or blames with noSuchName, genErr or noAccess for a request
        that fails, is absent and the others are asked again without it. No OIDs, no request.
        Raises SnmpFailure; its `answered` is what earlier requests of this call brought.
        """
        ...

    async def walk(self, columns: Sequence[Oid]) -> Mapping[Oid, Mapping[Index, SnmpValue]]:
        """All rows of table `columns`, each of them a key, its rows in the agent's order.

        A column the agent has not is an empty mapping; rows need not be the same in all columns.
        Columns are walked side by side where the version can. Raises SnmpFailure, and gives no
        part of a table then: a sum over half of the rows would be wrong. OIDs that do not increase
        are SnmpMalformed.
        """
        ...


class SnmpFailure(MetricsPipelineError):
    """A request had no usable answer. The text says what came back, without a secret."""

    miss: ClassVar[Miss]

    def __init__(self, detail: str, answered: Mapping[Oid, SnmpValue] = NOTHING) -> None:
        super().__init__(detail)
        self.answered = answered
        """What the same `get` had been told before this."""


class SnmpTimeout(SnmpFailure):
    """No answer in time. What a wrong community looks like, too: agents drop those in silence."""

    miss = Miss.TIMEOUT


class SnmpAuthFailed(SnmpFailure):
    """An SNMPv3 report: unknown user, wrong digest, decryption error, not in time window."""

    miss = Miss.AUTH


class SnmpRefused(SnmpFailure):
    """authorizationError, noAccess for everything, or ICMP port unreachable."""

    miss = Miss.REFUSED


class SnmpMalformed(SnmpFailure):
    """An answer that cannot be decoded, is for another question, or never ends."""

    miss = Miss.PARSE
