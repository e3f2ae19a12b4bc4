"""What telemetry reads from and writes to, opened as the settings say and closed together.

The runs, the sensor, the commands and `check` all open it here. The one writer of points is not
among it: in Dagster it is a resource that all assets share.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property

from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.ports import CheckpointStore, EventStream
from metrics_pipeline.settings import Settings, TelemetrySettings
from metrics_pipeline.sources.streams import open_stream
from metrics_pipeline.storage.dead_letters import DeadLetters
from metrics_pipeline.storage.open import open_checkpoints
from metrics_pipeline.storage.operational import OperationalDatabase


class TelemetryConnections:
    """Each is opened when it is first asked for; made by `open_telemetry`.

    To be asked for by one thread at a time; what is opened may then be shared between threads.
    """

    def __init__(
        self, settings: Settings, telemetry: TelemetrySettings, owner: str, opened: ExitStack
    ) -> None:
        self.settings = settings
        self.telemetry = telemetry
        self._owner = owner
        self._opened = opened

    @cached_property
    def stream(self) -> EventStream:
        """The hub; ConfigurationError for a connection string that cannot be used."""
        return self._opened.enter_context(closing(open_stream(self.telemetry.source)))

    @cached_property
    def checkpoints(self) -> CheckpointStore:
        """As the owner writes them; ConfigurationError where they need an extra that is missing."""
        database = self.settings.operational_database
        checkpoints = open_checkpoints(self.telemetry.checkpoints, database, self._owner)
        return self._opened.enter_context(closing(checkpoints))

    @cached_property
    def database(self) -> OperationalDatabase:
        """The operational database, for what is not a checkpoint."""
        database = OperationalDatabase(self.settings.operational_database)
        return self._opened.enter_context(closing(database))

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """Those of the stream's hub and consumer group; ConfigurationError as of `stream`."""
        hub = (self.stream.namespace, self.stream.hub, self.stream.consumer_group)
        return DeadLetters(self.database, self.telemetry.dead_letters, *hub)


@contextmanager
def open_telemetry(settings: Settings, owner: str) -> Iterator[TelemetryConnections]:
    """What the settings' section `telemetry` names; ConfigurationError if there is none.

    `owner` is who moves checkpoints, such as a run's id; others are told it.
    """
    if settings.telemetry is None:
        raise ConfigurationError(
            "telemetry", "there is no such section in the settings", "Add it, with a hub."
        )
    with ExitStack() as opened:
        yield TelemetryConnections(settings, settings.telemetry, owner, opened)
