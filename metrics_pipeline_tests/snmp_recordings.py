"""Recorded SNMP walks (.snmprec of snmpsim) as a device in memory: a session without a network.

A line is `OID|type|value`; the type is the ASN.1 tag, with `x` for a value in hexadecimal. What
snmpsim would compute (`2:numeric|rate=…`) is left out here. Each file is also what a real
`snmpsim` serves over UDP, so that the engines are tested against the same devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from metrics_pipeline.sources.snmp_session import Index, Oid, SnmpFailure, SnmpValue

RECORDINGS = Path(__file__).parent / "recordings" / "snmp"
INTEGERS = frozenset({"2", "65", "66", "67", "70"})
TEXTS = frozenset({"6", "64"})
OCTETS = frozenset({"4", "68"})


def parse_line(line: str) -> tuple[Oid, SnmpValue] | None:
    """One variable; None for NULL, comments, and what snmpsim computes."""
    oid, _, rest = line.partition("|")
    tag, _, text = rest.partition("|")
    if tag.rstrip("x") in OCTETS:
        return oid, bytes.fromhex(text) if tag.endswith("x") else text.encode("utf-8")
    if tag in INTEGERS:
        return oid, int(text)
    return (oid, text) if tag in TEXTS else None


def read_recording(path: Path) -> dict[Oid, SnmpValue]:
    """All variables of a recording."""
    lines = (parse_line(line) for line in path.read_text("utf-8").splitlines())
    return dict(line for line in lines if line is not None)


def recorded(name: str) -> RecordedSession:
    """The device of the recording `name`."""
    return RecordedSession(read_recording(RECORDINGS / f"{name}.snmprec"))


class RecordedSession:
    """Answers from `variables`, which a test may change; counts requests and can fail."""

    def __init__(self, variables: Mapping[Oid, SnmpValue]) -> None:
        self.variables = dict(variables)
        self.gets: list[list[Oid]] = []
        self.walks: list[list[Oid]] = []
        self.failures: dict[Oid, SnmpFailure] = {}
        """Raised when something at or below this OID is asked; "" is everything."""

    async def get(self, oids: Sequence[Oid]) -> Mapping[Oid, SnmpValue]:
        self.gets.append(list(oids))
        self._fail(oids)
        return {oid: self.variables[oid] for oid in oids if oid in self.variables}

    async def walk(self, columns: Sequence[Oid]) -> Mapping[Oid, Mapping[Index, SnmpValue]]:
        self.walks.append(list(columns))
        self._fail(columns)
        tables: dict[Oid, dict[Index, SnmpValue]] = {column: {} for column in columns}
        for oid, value in self.variables.items():
            for column in columns:
                if oid.startswith(f"{column}."):
                    tables[column][oid.removeprefix(f"{column}.")] = value
        return tables

    def _fail(self, oids: Sequence[Oid]) -> None:
        for start, failure in self.failures.items():
            if any(f"{oid}.".startswith(start) for oid in oids):
                raise failure

    def forget_requests(self) -> None:
        self.gets.clear()
        self.walks.clear()
