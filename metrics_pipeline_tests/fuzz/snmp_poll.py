"""Target: polls of a device that answers whatever the fuzzer wants, and remembers nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import atheris

from metrics_pipeline_tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from metrics_pipeline.core.devices import HOST_METRICS
    from metrics_pipeline.sources import snmp_facts as facts
    from metrics_pipeline.sources.snmp_memory import DeviceMemory
    from metrics_pipeline.sources.snmp_poll import RANGES, poll_values
    from metrics_pipeline.sources.snmp_session import (
        Index,
        Oid,
        SnmpAuthFailed,
        SnmpFailure,
        SnmpMalformed,
        SnmpRefused,
        SnmpTimeout,
        SnmpValue,
    )
    from metrics_pipeline.sources.snmp_ways import VENDORS

FAILURES = (SnmpTimeout, SnmpAuthFailed, SnmpRefused, SnmpMalformed)
TEXTS = ("", "10.0.0.1", "1.3.6.1.2.1.25.2.1.2", "1.3.6.1.2.1.25.2.1.4", "1.3.6.1.2.1.99.9")
MAKERS = ("", "1.3.6.1.4.1.311.1", *(f"{prefix}.1" for prefix in VENDORS))
NUMBERS = (0, 1, 2, 6, 8, 9, 100, 2**31 - 1, 2**32 - 1, 2**64 - 1, -1, 10**400)
POLLS = 3
RARELY = 30


class FuzzedSession:
    """Answers each question with what the fuzzer's bytes say; nothing once they are used up."""

    def __init__(self, provider: atheris.FuzzedDataProvider) -> None:
        self._provider = provider

    async def get(self, oids: Sequence[Oid]) -> Mapping[Oid, SnmpValue]:
        found: dict[Oid, SnmpValue] = {}
        for oid in oids:
            self._fail(found)
            if (value := self._value(oid)) is not None:
                found[oid] = value
        return found

    async def walk(self, columns: Sequence[Oid]) -> Mapping[Oid, Mapping[Index, SnmpValue]]:
        self._fail({})
        rows = range(1, self._provider.ConsumeIntInRange(0, 4) + 1)
        return {
            column: {str(i): value for i in rows if (value := self._value(column)) is not None}
            for column in columns
        }

    def _fail(self, answered: Mapping[Oid, SnmpValue]) -> None:
        if self._provider.remaining_bytes() and self._provider.ConsumeIntInRange(0, RARELY) == 1:
            raise FAILURES[self._provider.ConsumeIntInRange(0, 3)]("it fails", dict(answered))

    def _value(self, oid: Oid) -> SnmpValue | None:
        provider = self._provider
        if not provider.remaining_bytes():
            return None
        if oid == facts.SYS_OBJECT_ID:
            at: int = provider.ConsumeIntInRange(0, len(MAKERS) - 1)
            return MAKERS[at]
        value: SnmpValue | None = KINDS[provider.ConsumeIntInRange(0, len(KINDS) - 1)](provider)
        return value


KINDS: Sequence[Callable[[Any], Any]] = (
    lambda provider: None,
    lambda provider: TEXTS[provider.ConsumeIntInRange(0, len(TEXTS) - 1)],
    lambda provider: NUMBERS[provider.ConsumeIntInRange(0, len(NUMBERS) - 1)],
    lambda provider: provider.ConsumeFloat(),
    lambda provider: provider.ConsumeBytes(provider.ConsumeIntInRange(0, 8)),
    lambda provider: provider.ConsumeInt(2),
)
"""What a value may be; the provider's types are not annotated."""


def check(data: bytes) -> None:
    """Nothing but SnmpFailure is raised; each metric has a value in its range, or a miss."""
    session, memory = FuzzedSession(atheris.FuzzedDataProvider(data)), DeviceMemory()
    for _ in range(POLLS):
        check_poll(session, memory)
        memory = DeviceMemory.from_json(memory.to_json())


def check_poll(session: FuzzedSession, memory: DeviceMemory) -> None:
    """One poll, driven by hand: the session never waits, so there is nothing to wait for."""
    try:
        poll_values(session, HOST_METRICS, memory).send(None)
        raise AssertionError("the poll waits")
    except SnmpFailure:
        return
    except StopIteration as end:
        polled = end.value
    assert set(polled.values) | set(polled.misses) == set(HOST_METRICS)
    assert not set(polled.values) & set(polled.misses)
    for metric, value in polled.values.items():
        lowest, highest = RANGES[metric]
        assert type(value) is float
        assert lowest <= value <= highest, metric


def seeds() -> list[bytes]:
    """Plain bytes: the structure is the session's."""
    return [bytes(range(256)) * 4, bytes((5, 1, 0)) * 300, bytes((4,)) * 1000, bytes((250,)) * 2000]


if __name__ == "__main__":
    fuzz(check, seeds())
