"""Events in a stream of Redis or Valkey: an entry each, with one field `event`, its JSON.

A batch is one transaction, so that it is there whole or not at all. Where the connection ends
before the answer, it is sent again: then its events may be there twice, with the same ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import hiredis

from metrics_pipeline.access.redis_address import parse_address
from metrics_pipeline.events.redis_failures import no_address, unavailable
from metrics_pipeline.events.redis_wire import Command, RedisWire
from metrics_pipeline.events.settings import RedisStreamSettings

FIELD = "event"


class Client(Protocol):
    """What is needed of one."""

    def ask(self, *command: str) -> object:
        """What the server answers to one command."""
        ...

    def transact(self, commands: Sequence[Command]) -> None:
        """Do all of them, or none."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class RedisStream:
    """Adds to the stream, and has Redis trim it to about `max_length`."""

    def __init__(self, settings: RedisStreamSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self.name = f"Redis stream {settings.stream} ({settings.url})"
        """The stream and its server, which is known by its address when that was read."""

    def send(self, lines: Sequence[str]) -> None:
        """Add all; raises TransportUnavailable or ConfigurationError."""
        stream, length = self._settings.stream, str(self._settings.max_length)
        with self._use() as client:
            client.transact(
                [("XADD", stream, "MAXLEN", "~", length, "*", FIELD, line) for line in lines]
            )

    def check(self) -> str:
        """Ask how long the stream is, which also tells what is no stream."""
        with self._use() as client:
            return f"{self.name}: {client.ask('XLEN', self._settings.stream)} events are kept"

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @contextmanager
    def _use(self) -> Iterator[Client]:
        """The client; after a failure it is closed, so that the next use begins anew."""
        try:
            if self._client is None:
                self._client = self._open(self._settings.url.read())
            yield self._client
        # The last for a name that cannot be one, such as `redis..svc`.
        except (hiredis.HiredisError, OSError, UnicodeError) as error:
            self.close()
            is_connection = not isinstance(error, hiredis.HiredisError)
            raise unavailable(self.name, error, is_connection=is_connection) from error

    def _open(self, url: str) -> Client:
        try:
            address = parse_address(url)
        except ValueError:
            raise no_address(self._settings) from None
        if address is None:
            # Its import takes a tenth of a second; it knows all the options.
            from metrics_pipeline.events.redis_client import RedisConnection  # noqa: PLC0415

            return RedisConnection(self._settings)
        self.name = f"Redis stream {self._settings.stream} at {address}"
        return RedisWire(address, self._settings.timeout_seconds)
