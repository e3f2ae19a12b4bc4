"""Azure Event Hubs as a stream of events: one reader per partition, from wherever it is told.

The consumer group's readers of a partition are of an epoch (Event Hubs calls it owner level): one
of a higher or the same epoch shuts out the others, so nothing is read by two at a time; one without
an epoch only looks on, where nobody has one. Sequence
numbers, sizes and times are the hub's; times in nanoseconds since the epoch.

Raises SourceUnreachable (no connection, no answer, the hub ends it), SourceThrottled (the hub asks
for 4 s), PartitionTaken, SourceRefused (no such hub or group, a position it never had),
CredentialRefused, UnexpectedReply, and ConfigurationError for settings that cannot be used.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from metrics_pipeline.access.azure_credentials import make_token_credential
from metrics_pipeline.access.event_hub_connection import IDLE_SECONDS, Hub, check_version
from metrics_pipeline.access.event_hub_credentials import (
    HubConnectionString,
    HubEntraId,
    parse_hub_connection_string,
)
from metrics_pipeline.access.event_hub_links import EventLink, ManagementLink
from metrics_pipeline.access.hosts import is_loopback
from metrics_pipeline.access.http_client import trusted_authorities
from metrics_pipeline.core.errors import ConfigurationError, SourceError
from metrics_pipeline.core.telemetry import BatchLimits, PartitionState, Position, RawEvent
from metrics_pipeline.sources.event_hub_settings import EventHubSettings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

NAME = "event_hub"
TURN_SECONDS = 0.5
"""So long `close` waits for a `receive` in another thread to end by itself."""

MOST_ANSWERS = 1_000
"""About partitions over one connection, which takes 80 bytes for each of them until it ends."""


class EventHubReader:
    """`PartitionReader` of one partition."""

    def __init__(self, link: EventLink, on_close: Callable[[EventHubReader], None]) -> None:
        self._link = link
        self._on_close = on_close
        self._turn = threading.Lock()
        self._is_open = False
        self._is_closing = False

    def receive(self, limits: BatchLimits) -> Sequence[RawEvent]:
        """The next events within `limits`; none if none came in time, or after `close`."""
        with self._turn:
            if self._is_closing:
                return ()
            try:
                if not self._is_open:
                    self._link.open()
                    self._is_open = True
                return self._link.receive(limits)
            except SourceError:
                if self._is_closing:
                    return ()
                raise

    def close(self) -> None:
        """End it; a `receive` in another thread is cut short if it does not end by itself."""
        self._is_closing = True
        if not self._turn.acquire(timeout=TURN_SECONDS):
            self._link.cut()
            self._turn.acquire()
        try:
            self._link.close()
        finally:
            self._turn.release()
            self._on_close(self)


class EventHubStream:
    """`EventStream` over an event hub."""

    def __init__(
        self,
        settings: EventHubSettings,
        token_credential: TokenCredential | None = None,
        *,
        idle_seconds: int = IDLE_SECONDS,
    ) -> None:
        """`token_credential` replaces the one azure-identity would make for `entra_id`.

        While events are read, the hub says every `idle_seconds` that it is there.
        """
        check_version()
        self._settings = settings
        self._idle_seconds = idle_seconds
        self._given_token_credential = token_credential
        self._hub = self._locate()
        self._asking = threading.Lock()
        self._management: ManagementLink | None = None
        self._readers: set[EventHubReader] = set()

    @property
    def name(self) -> str:
        """Where it is."""
        return f"event hub {self._hub.name}, consumer group {self.consumer_group}"

    @property
    def namespace(self) -> str:
        """The host."""
        return self._hub.host

    @property
    def hub(self) -> str:
        """The hub's own name."""
        return self._hub.hub

    @property
    def consumer_group(self) -> str:
        """In whose name it is read."""
        return self._settings.consumer_group

    def partitions(self) -> Mapping[str, PartitionState]:
        """Every partition there is now; asks over one connection, which is kept."""
        with self._asking:
            if self._management is not None and self._management.answers >= MOST_ANSWERS:
                self._forget()
            if self._management is not None:
                try:
                    return self._management.partitions()
                except SourceError:
                    is_silent = self._management.is_cut
                    self._forget()
                    if is_silent:
                        raise
            # Also after an error: the hub ends connections that are idle.
            return self._ask_anew()

    def open(self, partition: str, after: Position | None, epoch: int | None) -> EventHubReader:
        """A reader of what comes after `after`; connects at its first `receive`."""
        group, prefetch = self._settings.consumer_group, self._settings.prefetch
        link = EventLink(self._hub, group, partition, after, epoch=epoch, prefetch=prefetch)
        reader = EventHubReader(link, self._readers.discard)
        self._readers.add(reader)
        return reader

    def close(self) -> None:
        """Give back all connections, and the credential that was made here."""
        for reader in list(self._readers):
            reader.close()
        with self._asking:
            self._forget()
        if "_own_token_credential" in self.__dict__:
            getattr(self._own_token_credential, "close", lambda: None)()

    def _ask_anew(self) -> Mapping[str, PartitionState]:
        self._management = ManagementLink(self._hub)
        try:
            self._management.open()
            return self._management.partitions()
        except SourceError:
            self._forget()
            raise

    def _forget(self) -> None:
        if self._management is not None:
            self._management.close()
            self._management = None

    def _locate(self) -> Hub:
        entra_id = self._settings.entra_id
        if entra_id is None:
            return self._located(self._connection_string())
        hub = self._settings.hub or ""
        target = f"{entra_id.host}/{hub}"
        given = self._given_token_credential or self._own_token_credential
        credential = HubEntraId(NAME, target, given)
        trusted = trusted_authorities(self._settings.ca_file, f"{NAME}.ca_file")
        timeout, idle = self._settings.timeout_seconds, self._idle_seconds
        return Hub(NAME, entra_id.host, hub, credential, trusted, timeout, idle)

    def _connection_string(self) -> HubConnectionString:
        reference = self._settings.connection_string
        assert reference is not None
        return parse_hub_connection_string(reference.read(), str(reference))

    def _located(self, given: HubConnectionString) -> Hub:
        settings = self._settings
        hub = settings.hub or given.hub
        if not hub:
            raise ConfigurationError(
                f"{NAME}.hub",
                "the connection string has no EntityPath, and no hub is named",
                "Name the hub.",
            )
        if given.is_emulator:
            _check_loopback(given.host)
        trusted = (
            None if given.is_emulator else trusted_authorities(settings.ca_file, f"{NAME}.ca_file")
        )
        timeout, idle = settings.timeout_seconds, self._idle_seconds
        return Hub(NAME, given.host, hub, given.credential, trusted, timeout, idle)

    @functools.cached_property
    def _own_token_credential(self) -> TokenCredential:
        assert self._settings.entra_id is not None
        return make_token_credential(self._settings.entra_id, self._settings.timeout_seconds)


def _check_loopback(host: str) -> None:
    if not is_loopback(host.partition(":")[0]):
        raise ConfigurationError(
            f"{NAME}.connection_string",
            f"UseDevelopmentEmulator would send the credential to {host} in the clear",
            "Leave it out; it is for an emulator on this machine.",
        )
