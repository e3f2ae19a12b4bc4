"""Telemetry in a temporary folder: an event hub on loopback, stores, and a Dagster instance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import Checkpoint, PartitionKey, Position
from metrics_pipeline.core.telemetry_assets import JOB
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.orchestration.telemetry_sensor import (
    BacklogWatch,
    build_telemetry_sensor,
)
from metrics_pipeline.settings import Settings
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline.storage import snapshots, tallies
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.telemetry_connections import open_telemetry

EUI = "FEEDFACE1000000"
OTHER_GROUP = "replay"
DEVICE = {"iothub-connection-auth-method": '{"scope":"device"}'}
WINDOW_SECONDS = 1.5
"""Shorter than settings may say, so that tests do not take long."""


def uplink(number: int, device: int = 0, **fields: Any) -> bytes:
    """An uplink of one of ten devices."""
    document = {"eui": f"{EUI}{device}", "fcnt": number, "rssi": -80, "gatewayid": "G1", **fields}
    return json.dumps(document).encode()


@dataclass(slots=True)
class Telemetry:
    """Runs and ticks, and what came of them."""

    folder: Path
    settings: Settings
    hub: EventHubServer
    instance: dg.DagsterInstance
    opened: ExitStack
    """Closed before the hub."""

    def send(self, count: int, partition: str = "0", first: int = 0) -> None:
        """So many good uplinks into one partition, numbered from `first`."""
        for number in range(first, first + count):
            self.send_body(uplink(number), partition)

    def send_body(self, body: bytes, partition: str = "0") -> int:
        """Anything at all."""
        return self.hub.append(body, partition=partition, annotations=DEVICE)

    def run(self) -> dg.ExecuteInProcessResult:
        """One run of the job, to the end of its window."""
        job = build_definitions(self.settings).resolve_job_def(JOB)
        return job.execute_in_process(instance=self.instance, raise_on_error=False)

    def stored(self) -> list[Point]:
        """All uplinks in the time-series store."""
        assert isinstance(self.settings.store, EmbeddedStoreSettings)
        with closing(EmbeddedStore(self.settings.store)) as store:
            return list(store.read("lorawan_uplink", 0, 2**63 - 1))

    def move_checkpoint(self, partition: str, number: int) -> None:
        """As if everything up to event `number` had been stored."""
        with open_telemetry(self.settings, "test") as opened:
            stream = opened.stream
            key = PartitionKey(stream.namespace, stream.hub, stream.consumer_group, partition)
            epoch = opened.checkpoints.claim([key])
            opened.checkpoints.rewind(key, None, Checkpoint(Position(str(number), number), epoch))

    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """By partition."""
        with open_telemetry(self.settings, "test") as opened:
            stream = opened.stream
            hub = (stream.namespace, stream.hub, stream.consumer_group)
            return opened.checkpoints.find_all(*hub)

    def snapshot(self, asset: str) -> snapshots.Snapshot | None:
        """What the exporter would read."""
        database = OperationalDatabase(self.settings.operational_database)
        with closing(database), database.reading() as connection:
            return snapshots.find(connection, asset)

    def totals(self) -> Mapping[str, Mapping[str, int]]:
        """The exporter's counters."""
        database = OperationalDatabase(self.settings.operational_database)
        with closing(database), database.reading() as connection:
            return tallies.totals(connection)

    def dead_letters(self) -> dict[str, int]:
        """How many there are, by reason."""
        with open_telemetry(self.settings, "test") as opened:
            return opened.dead_letters.counts()


class Ticks:
    """The sensor of one code location, tick after tick, with the cursor that the daemon keeps."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._instance = telemetry.instance
        self._watch = BacklogWatch(telemetry.settings)
        self._sensor = build_telemetry_sensor(self._watch)
        self.cursor: str | None = None
        telemetry.opened.callback(self._watch.close)

    def tick(self) -> tuple[list[str], str]:
        """The keys of the runs it asks for, and the reason it gives for none."""
        with dg.build_sensor_context(self._instance, cursor=self.cursor) as context:
            outcome = self._sensor.evaluate_tick(context)
        if outcome.cursor is not None:
            self.cursor = outcome.cursor
        keys = [request.run_key or "" for request in outcome.run_requests or []]
        return keys, outcome.skip_message or ""


@contextmanager
def telemetry(
    folder: Path, window_seconds: float = WINDOW_SECONDS, **sections: Any
) -> Iterator[Telemetry]:
    """Telemetry from a hub with two partitions, another consumer group, and no events.

    `sections` go into the settings, which are in a file as well.
    """
    with (
        serve_event_hub(partition_count=2, consumer_groups=[OTHER_GROUP]) as hub,
        dg.DagsterInstance.ephemeral() as instance,
        ExitStack() as opened,
    ):
        (folder / "event_hub").write_text(hub.connection_string)
        document = {
            "version": 1,
            "sources": {},
            **sections,
            "telemetry": {
                "source": {"connection_string": {"file": "event_hub"}, "timeout_seconds": 2},
                **sections.get("telemetry", {}),
            },
        }
        (folder / "settings.yaml").write_text(yaml.safe_dump(document))
        settings = Settings.model_validate(document, context={STATE_DIR_KEY: folder})
        assert settings.telemetry is not None
        window = {"window_seconds": window_seconds}
        short = settings.telemetry.model_copy(update=window)
        settings = settings.model_copy(update={"telemetry": short})
        yield Telemetry(folder, settings, hub, instance, opened)
