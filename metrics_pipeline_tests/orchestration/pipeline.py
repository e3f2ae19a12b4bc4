"""A whole pipeline in a temporary folder: simulated hub, inventory, stores, Dagster instance."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from metrics_pipeline.access.database import open_engine
from metrics_pipeline.access.inventory_tables import CONCENTRATORS, INVENTORY
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.points import FieldValue, Point
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.settings import Settings
from metrics_pipeline.simulators.fleet import Concentrator, Deployment, Device, Fleet, FleetState
from metrics_pipeline.simulators.iot_hub import IotHubSimulator
from metrics_pipeline.storage import tallies
from metrics_pipeline.storage.embedded import EmbeddedStore, EmbeddedStoreSettings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import OperationalDatabase

FLEET = FleetState(
    devices=(
        *(Device(f"device-{n}", is_connected=n < 9) for n in range(15)),
        *(Device(f"edge-{n}", is_edge=True, is_connected=n < 2) for n in range(4)),
    ),
    concentrators=tuple(
        Concentrator(f"station-{n}", f"Station {n}", f"{n:016X}", is_connected=n < 2)
        for n in range(3)
    ),
    deployments=(Deployment("base", failed_on=frozenset({"edge-0", "edge-1"})),),
)

COUNTS = {
    "device_count": 15,
    "connected_device_count": 9,
    "edge_device_count": 4,
    "connected_edge_device_count": 2,
    "failed_deployment_count": 2,
    "concentrator_count": 3,
    "connected_concentrator_count": 2,
}
"""What there is to count in `FLEET`."""


@dataclass(slots=True)
class Pipeline:
    """Runs the job, and looks at what came of it the way the exporter does."""

    settings: Settings
    folder: Path
    hub: IotHubSimulator
    fleet: Fleet
    instance: dg.DagsterInstance

    def run(self, *assets: str, tags: Mapping[str, str] | None = None) -> dg.ExecuteInProcessResult:
        """One run of the job, or of some assets of it; a failure is in the result."""
        job = build_definitions(self.settings).resolve_job_def(JOB)
        return job.execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(["fleet", asset]) for asset in assets] or None,
            tags=tags,
        )

    def lose_hub(self) -> None:
        """From now on nothing listens where the hub was."""
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        text = self.hub.connection_string.replace(self.hub.host, f"127.0.0.1:{port}")
        (self.folder / "connection_string").write_text(text)

    def latest(self) -> dict[str, FieldValue]:
        """The values an exporter would show."""
        return {k: v for point in self.latest_points() for k, v in point.fields.items()}

    def totals(self) -> dict[str, dict[str, int]]:
        """What an exporter's counters are made of."""
        with (
            closing(OperationalDatabase(self.settings.operational_database)) as database,
            database.reading() as connection,
        ):
            return tallies.totals(connection)

    def latest_points(self) -> list[Point]:
        """The points of all snapshots."""
        writer = open_writer(self.settings.store, self.settings.operational_database, CATALOG)
        try:
            snapshots = [writer.latest(asset.key) for asset in self.settings.fleet_assets()]
        finally:
            writer.close()
        return [point for snapshot in snapshots if snapshot for point in snapshot.points]

    def history(self) -> tuple[Point, ...]:
        """Everything in the time-series store."""
        assert isinstance(self.settings.store, EmbeddedStoreSettings)
        store = EmbeddedStore(self.settings.store)
        try:
            return store.read("fleet_counts", 0, 2**63 - 1)
        finally:
            store.close()


@contextmanager
def pipeline(folder: Path, state: FleetState = FLEET, **sections: Any) -> Iterator[Pipeline]:
    """A pipeline over a hub with the fleet `state`; `sections` replace those of its settings."""
    fleet = Fleet(state)
    with IotHubSimulator(fleet) as hub, dg.DagsterInstance.ephemeral() as instance:
        settings = make_settings(folder, hub, **sections)
        list_concentrators(settings, state.concentrators)
        yield Pipeline(settings, folder, hub, fleet, instance)


def make_settings(folder: Path, hub: IotHubSimulator, **sections: Any) -> Settings:
    """Settings for `hub`; a request is tried once."""
    secret = folder / "connection_string"
    secret.write_text(hub.connection_string)
    document = {
        "version": 1,
        "sources": {
            "azure_iot_hub": {
                "connection_string": {"file": str(secret)},
                "scheme": "http",
                "tries": 1,
                "request_timeout_seconds": 2,
            },
            "inventory": {"database": {"url": "sqlite:///inventory.sqlite"}},
        },
        **sections,
        "fleet": {"retry_delay_seconds": 0, **sections.get("fleet", {})},
    }
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


def list_concentrators(settings: Settings, concentrators: tuple[Concentrator, ...]) -> None:
    """Make the inventory name exactly these."""
    engine = open_engine(settings.source("inventory").database)  # type: ignore[union-attr]
    INVENTORY.create_all(engine)
    rows = [{"id": c.id, "name": c.name, "eui": c.eui} for c in concentrators]
    with engine.begin() as connection:
        connection.execute(sa.delete(CONCENTRATORS))
        if rows:
            connection.execute(sa.insert(CONCENTRATORS), rows)
    engine.dispose()


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    """What the UI shows of the steps that failed."""
    events = [event for event in result.all_events if event.is_step_failure]
    return "\n".join(
        data.user_failure_data.description or ""
        for event in events
        if (data := event.step_failure_data).user_failure_data
    )
