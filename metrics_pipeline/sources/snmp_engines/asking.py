"""How a device is asked for what one request cannot bring: cutting, halving, continuing.

Sources: RFC 3416 section 4.2 (GET, GETNEXT, GETBULK and their errors), RFC 1157 section 4.1 (what
version 1 says instead). An engine supplies an Exchange: one request, one reply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol, Self

from metrics_pipeline.access.snmp_ber import REMEMBERED_OIDS
from metrics_pipeline.access.snmp_messages import ErrorStatus, Pdu, Reply
from metrics_pipeline.sources.snmp_session import (
    Index,
    Oid,
    SnmpFailure,
    SnmpMalformed,
    SnmpRefused,
    SnmpValue,
)

MAX_ROWS = 500_000
"""A table longer than this is one that never ends."""


class Exchange(Protocol):
    """One request and its reply, time-outs and tries included."""

    has_bulk: bool
    """Whether its version has GETBULK: all but version 1."""

    async def ask(self, tag: Pdu, oids: tuple[Oid, ...], repetitions: int = 0) -> Reply:
        """The reply to one request. Raises SnmpFailure."""
        ...

    async def close(self) -> None:
        """Give back what is this exchange's alone."""
        ...


class AskingSession:
    """An SnmpSession over an Exchange; a context manager.

    `max_varbinds` variables are in one GET, or one reply to GETBULK, at most; `max_repetitions`
    rows are asked for at once.
    """

    def __init__(self, exchange: Exchange, max_varbinds: int, max_repetitions: int) -> None:
        self._exchange = exchange
        self._max_varbinds = max_varbinds
        self._max_repetitions = max_repetitions if exchange.has_bulk else 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._exchange.close()

    async def get(self, oids: Sequence[Oid]) -> Mapping[Oid, SnmpValue]:
        """See SnmpSession."""
        answered: dict[Oid, SnmpValue] = {}
        size = self._max_varbinds
        left = [tuple(oids[at : at + size]) for at in range(0, len(oids), size)][::-1]
        statuses = set()
        try:
            while left:
                asked = left.pop()
                reply = await self._exchange.ask(Pdu.GET, asked)
                statuses.add(reply.error_status)
                if reply.error_status == ErrorStatus.NO_ERROR:
                    left.extend(_take(asked, reply, answered))
                else:
                    left.extend(_without_the_blamed(asked, reply))
            if statuses == {ErrorStatus.NO_ACCESS}:
                raise SnmpRefused("noAccess to everything that was asked")
        except SnmpFailure as failure:
            failure.answered = answered
            raise
        return answered

    async def walk(self, columns: Sequence[Oid]) -> Mapping[Oid, Mapping[Index, SnmpValue]]:
        """See SnmpSession."""
        walked = [_Column(oid) for oid in dict.fromkeys(columns)]
        pace = _Pace(self._max_varbinds, self._max_repetitions)
        while unfinished := [column for column in walked if not column.is_done]:
            together = unfinished[: pace.columns]
            asked = tuple(column.last for column in together)
            reply = await self._ask_for_rows(asked, pace.repetitions(len(asked)))
            if reply.error_status == ErrorStatus.NO_ERROR:
                _take_rows(together, reply)
            else:
                _take_blame(together, reply, pace)
        return {column.oid: column.rows for column in walked}

    async def _ask_for_rows(self, asked: tuple[Oid, ...], repetitions: int) -> Reply:
        if self._exchange.has_bulk:
            return await self._exchange.ask(Pdu.GET_BULK, asked, repetitions)
        return await self._exchange.ask(Pdu.GET_NEXT, asked)


class _Pace:
    """How much of a table is asked for at once; less after each `tooBig`."""

    def __init__(self, max_varbinds: int, max_repetitions: int) -> None:
        self.columns = max_varbinds
        self._varbinds = max_varbinds
        self._repetitions = max_repetitions

    def repetitions(self, columns: int) -> int:
        """Rows to ask for of so many columns."""
        return max(1, min(self._repetitions, self._varbinds // columns))

    def slow_down(self, columns: int) -> bool:
        """Ask for half as much next time; False when less is not possible."""
        rows = self.repetitions(columns)
        if rows > 1:
            self._repetitions = rows // 2
        else:
            self.columns = columns // 2
        return self.columns > 0


class _Column:
    """One column while it is walked. `last` is the OID that the next row comes after."""

    def __init__(self, oid: Oid) -> None:
        self.oid = self.last = oid
        self.is_done = False
        self.rows: dict[Index, SnmpValue] = {}
        self._prefix = f"{oid}."
        self._last_index: tuple[int, ...] = ()

    def take(self, oid: Oid, value: SnmpValue | None) -> None:
        """The next variable: a row, or one after the last row."""
        if self.is_done:
            return
        if not oid.startswith(self._prefix):
            self.is_done = True
            if value is not None and _numbers(oid) <= _numbers(self.last):
                raise SnmpMalformed(f"after {self.last} comes {oid}, which does not increase")
            return
        index = oid[len(self._prefix) :]
        numbers = _numbers(index)
        if numbers > self._last_index:
            self._add(oid, index, value)
            self._last_index = numbers
        elif value is None:  # endOfMibView under the name that was asked
            self.is_done = True
        else:
            raise SnmpMalformed(f"after {self.last} comes {oid}, which does not increase")

    def _add(self, oid: Oid, index: Index, value: SnmpValue | None) -> None:
        if len(self.rows) >= MAX_ROWS:
            raise SnmpMalformed(f"{self.oid} has more than {MAX_ROWS} rows and does not end")
        if value is not None:
            self.rows[index] = value
        self.last = oid


def _take(
    asked: tuple[Oid, ...], reply: Reply, answered: dict[Oid, SnmpValue]
) -> list[tuple[Oid, ...]]:
    """Keep the values that came; what is left to ask, when the agent answered a part alone."""
    names, values = reply.names, reply.values
    came = len(names)
    if not 0 < came <= len(asked):
        raise SnmpMalformed(f"{came} variables in the reply to {len(asked)}")
    if names is not asked and tuple(names) != asked[:came]:
        told = next((a, b) for a, b in zip(asked, names, strict=False) if a != b)
        raise SnmpMalformed(f"asked for {told[0]}, told of {told[1]}")
    found = zip(names, values, strict=True)
    if None in values:
        answered.update({name: value for name, value in found if value is not None})
    else:
        answered.update(found)  # type: ignore[arg-type]  # the usual one, without a loop of ours
    return [asked[came:]] if came < len(asked) else []


def _without_the_blamed(asked: tuple[Oid, ...], reply: Reply) -> list[tuple[Oid, ...]]:
    """What is to be asked again after an error: without the variable it blames, or in halves."""
    if reply.error_status == ErrorStatus.AUTHORIZATION:
        raise SnmpRefused("authorizationError")
    if len(asked) == 1:
        return []
    at = reply.error_index - 1
    if reply.error_status != ErrorStatus.TOO_BIG and 0 <= at < len(asked):
        return [asked[:at] + asked[at + 1 :]]
    half = len(asked) // 2
    return [asked[half:], asked[:half]]


def _take_rows(columns: Sequence[_Column], reply: Reply) -> None:
    if not reply.names:
        raise SnmpMalformed("a reply without variables to a walk")
    takes: list[Callable[[Oid, SnmpValue | None], None]] = [column.take for column in columns]
    for at, (oid, value) in enumerate(zip(reply.names, reply.values, strict=True)):
        takes[at % len(takes)](oid, value)


def _take_blame(columns: Sequence[_Column], reply: Reply, pace: _Pace) -> None:
    """After an error: ask for less, or be done with the column it blames."""
    if reply.error_status == ErrorStatus.AUTHORIZATION:
        raise SnmpRefused("authorizationError")
    blamed = _blamed(columns, reply)
    if blamed is None:
        if not pace.slow_down(len(columns)):
            raise SnmpMalformed(f"one cell after {columns[0].last} is tooBig")
        return
    blamed.is_done = True
    if blamed.rows and reply.error_status != ErrorStatus.NO_SUCH_NAME:
        status = reply.error_status
        raise SnmpMalformed(f"error status {status} within the table, after {blamed.last}")


def _blamed(columns: Sequence[_Column], reply: Reply) -> _Column | None:
    """The column an error is about; None when it is about the request's size, or about nothing."""
    if reply.error_status == ErrorStatus.TOO_BIG:
        return None
    if 0 < reply.error_index <= len(columns):
        return columns[reply.error_index - 1]
    return columns[0] if len(columns) == 1 else None


@lru_cache(REMEMBERED_OIDS)
def _numbers(oid: Oid) -> tuple[int, ...]:
    return tuple(map(int, oid.split(".")))
