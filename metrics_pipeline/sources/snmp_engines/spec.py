"""What an engine is given, and what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from metrics_pipeline.access.snmp_sockets import Address
from metrics_pipeline.access.snmp_usm import User
from metrics_pipeline.sources.snmp_engines.asking import AskingSession
from metrics_pipeline.sources.snmp_session import SnmpRefused


@dataclass(frozen=True, slots=True)
class Community:
    """Who asks in version 1 (0 on the wire) or 2c (1)."""

    version: int
    community: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Seconds from one try to the next, tries, and how much is asked for at once."""

    timeout_seconds: float = 2.0
    tries: int = 2
    max_varbinds: int = 60
    max_repetitions: int = 25


class SnmpUnreachable(SnmpRefused):
    """The network or the host says that nobody listens there; no agent answered."""


class SnmpEngine(Protocol):
    """Entered once for a sweep; sessions are opened in it, many at once."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def session(self, address: Address, credential: Community | User) -> AskingSession:
        """A session with the device at a numeric address; a context manager."""
        ...
