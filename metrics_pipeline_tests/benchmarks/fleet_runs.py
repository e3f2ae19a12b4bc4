"""Runs over a whole fleet of which a part is dead: do they end in time, and are they right?

    python -m metrics_pipeline_tests.benchmarks.fleet_runs [--devices N] [--dead-share X] [--json]

A process of its own loads the definitions and makes `devices/device_status` (one sweep over SNMP)
and `devices/snmp_metrics` as a run does: inventory, probe, sweep, embedded store, latest values,
Dagster's events. Every device has an SNMP agent, or none (`snmp_responder`, not counted).

| key | |
|---|---|
| `status_sweep_s` | wall time of the sweep, which has to fit a slot of 30 s |
| `metrics_sweep_s` | wall time of the sweep of the metrics, of a process that knows the devices |
| `status_cpu_s`, `metrics_cpu_s` | CPU time of the whole runs, all threads |
| `rss_mb` | the most memory of the process, Dagster included |
| `wrong_statuses`, `wrong_values` | in the latest values; of devices that are dead there are none |
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from metrics_pipeline.access.database import open_engine
from metrics_pipeline.access.inventory_schema import upgrade_inventory
from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.device_assets import STATUS, metrics_asset
from metrics_pipeline.core.device_points import statuses_in
from metrics_pipeline.core.devices import HOST_METRICS
from metrics_pipeline.core.points import Point
from metrics_pipeline.orchestration.assets.devices import build_device_assets
from metrics_pipeline.orchestration.resources import build_resources
from metrics_pipeline.orchestration.status_grid import StatusGrid
from metrics_pipeline.settings import Settings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.snmp import GENERATION, agents
from metrics_pipeline_tests.benchmarks.snmp_fleet import (
    COMMUNITY,
    Generation,
    address_of,
    expected,
    is_dead,
)

SNMP = metrics_asset("snmp")


class OneSlot(StatusGrid):
    """A run that sweeps once, now."""

    def slots(self, now_seconds: float) -> Any:
        """The present."""
        yield int(now_seconds)


def make_settings(folder: Path) -> Settings:
    """The defaults, with smaller requests, and status over SNMP."""
    (folder / "community").write_text(COMMUNITY)
    snmp = {
        "max_varbinds": 28,  # 4 requests for 110 variables, as in the benchmark `snmp`
        "credentials": {"community": {"community": {"file": "community"}}},
    }
    document = {
        "version": 1,
        "sources": {"inventory": {"database": {"url": "sqlite:///inventory.sqlite"}}},
        "polling": {"enabled": True, "status_by": "protocol", "snmp": snmp},
    }
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


def fill_inventory(settings: Settings, devices: int, port: int) -> None:
    """One row a device."""
    engine = open_engine(settings.source("inventory").database)  # type: ignore[union-attr]
    upgrade_inventory(engine)
    rows = [
        {
            "id": str(at),
            "hostname": f"host-{at}",
            "ip_address": address_of(at),
            "mac_address": "",
            "device_type": "switch",
            "protocol": "snmp",
            "port": port,
            "credential": "community",
            "enabled": True,
            "labels": {},
        }
        for at in range(devices)
    ]
    with engine.begin() as connection:
        connection.execute(DEVICES.insert(), rows)
    engine.dispose()


def run_assets(folder: Path, dead_every: int, generation: Generation) -> dict[str, Any]:
    """A status run and a run of metrics, in this process, and what they took."""
    settings = make_settings(folder)
    found: dict[str, Any] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        for name, key in (("status", STATUS), ("first", SNMP), ("metrics", SNMP)):
            generation.advance()
            cpu = time.process_time()
            metadata = _run(settings, key, instance)
            found[f"{name}_cpu_s"] = round(time.process_time() - cpu, 2)
            found[f"{name}_sweep_s"] = metadata["sweep_seconds"]
    found["rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    devices = metadata["devices"]
    alive = {str(at) for at in range(devices) if not is_dead(at, dead_every)}
    online = {d for d, is_online in statuses_in(_latest(settings, STATUS)).items() if is_online}
    found["wrong_statuses"] = len(alive ^ online)
    found["wrong_values"] = _count_wrong(_latest(settings, SNMP), alive, generation.now())
    return found


def _run(settings: Settings, key: str, instance: dg.DagsterInstance) -> dict[str, Any]:
    wanted = dg.AssetKey.from_user_string(key)
    result = dg.materialize(
        [a for a in build_device_assets(settings, OneSlot(30)) if a.key == wanted],
        instance=instance,
        resources=dict(build_resources(settings)),
    )
    [event] = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def _latest(settings: Settings, key: str) -> tuple[Point, ...]:
    writer = open_writer(settings.store, settings.operational_database, CATALOG)
    try:
        snapshot = writer.latest(key)
    finally:
        writer.close()
    return snapshot.points if snapshot else ()


def _count_wrong(points: Sequence[Point], alive: set[str], generation: int) -> int:
    right = 0
    for point in points:
        device, metric = point.tags["device_id"], point.tags["metric_name"]
        truth = expected(int(device), generation)[metric]
        right += device in alive and abs(float(point.fields["value"]) - truth) <= 1e-9 * truth
    return max(len(points), len(alive) * len(HOST_METRICS)) - right


def measure(devices: int, dead_share: float) -> dict[str, Any]:
    """The benchmark's figures."""
    dead_every = round(1 / dead_share) if dead_share else 0
    with (
        tempfile.TemporaryDirectory() as folder,
        agents(dead_every, Path(folder) / GENERATION) as port,
    ):
        fill_inventory(make_settings(Path(folder)), devices, port)
        module = "metrics_pipeline_tests.benchmarks.fleet_runs"
        argv = [sys.executable, "-m", module, "--child", folder, str(dead_every)]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"devices": devices, "dead_share": dead_share, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--devices", type=int, default=1000, help="devices of the fleet (1000)")
    parser.add_argument("--dead-share", type=float, default=0.5, help="share that is silent (0.5)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        folder, dead_every = options.child
        with Generation(Path(folder) / GENERATION) as generation:
            print(json.dumps(run_assets(Path(folder), int(dead_every), generation)))
        return
    figures = measure(options.devices, options.dead_share)
    show(figures, options)


if __name__ == "__main__":
    main()
