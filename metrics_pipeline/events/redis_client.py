"""redis-py, for what `redis_wire` does not do: reading a stream, and addresses with options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from metrics_pipeline.events.redis_failures import no_address, unavailable
from metrics_pipeline.events.redis_wire import CLIENT_NAME, Command
from metrics_pipeline.events.settings import RedisStreamSettings


class RedisConnection:
    """One connection, opened at first use, with the secret read then; failures are translated."""

    def __init__(self, settings: RedisStreamSettings) -> None:
        self.settings = settings
        self.name = f"Redis stream {settings.stream} ({settings.url})"
        self._client: redis.Redis | None = None

    @contextmanager
    def use(self) -> Iterator[Any]:
        """The client; after a failure it is closed, so that the next use begins anew."""
        try:
            yield self._connect()
        # The last for a name that cannot be one, such as `redis..svc`.
        except (redis.RedisError, OSError, UnicodeError) as error:
            self.close()
            away = redis.ConnectionError | redis.TimeoutError | OSError | UnicodeError
            rights = redis.AuthenticationError | redis.exceptions.NoPermissionError
            raise unavailable(
                self.name,
                error,
                is_connection=isinstance(error, away),
                is_right=isinstance(error, rights),
            ) from error

    def ask(self, *command: str) -> object:
        """What the server answers to one command."""
        with self.use() as client:
            return client.execute_command(*command)

    def transact(self, commands: Sequence[Command]) -> None:
        """Do all of them, or none."""
        with self.use() as client, client.pipeline(transaction=True) as batch:
            for command in commands:
                batch.execute_command(*command)
            batch.execute()

    def close(self) -> None:
        """Close it."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> redis.Redis:
        if self._client is None:
            self._client = self._open(self.settings.url.read())
            # By now it is known who that is.
            self.name = f"Redis stream {self.settings.stream} at {_address_of(self._client)}"
        return self._client

    def _open(self, url: str) -> redis.Redis:
        try:
            return redis.Redis.from_url(
                url,
                socket_timeout=self.settings.timeout_seconds,
                socket_connect_timeout=self.settings.timeout_seconds,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),  # whoever uses this has pauses of their own
                client_name=CLIENT_NAME,
            )
        except ValueError:
            raise no_address(self.settings) from None


def _address_of(client: redis.Redis) -> str:
    known = client.connection_pool.connection_kwargs
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")
