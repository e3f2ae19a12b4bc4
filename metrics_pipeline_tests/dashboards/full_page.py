"""A real Prometheus with ten minutes of every family, from two exporters that show the same, and of
what the rules record for the dashboards.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metrics_pipeline.core.catalog import Family, MetricType
from metrics_pipeline.dashboards.families import families
from metrics_pipeline.dashboards.queries import SCRAPED_AS
from metrics_pipeline.dashboards.recordings import recordings
from metrics_pipeline_tests.dashboards.exported import JOB
from metrics_pipeline_tests.servers import prometheus_over_blocks, require

BEGIN_SECONDS, LENGTH_SECONDS, STEP_SECONDS = 1_700_000_000, 600, 15
END_SECONDS = BEGIN_SECONDS + LENGTH_SECONDS
TIMES = range(BEGIN_SECONDS, END_SECONDS + 1, STEP_SECONDS)
AGE_SECONDS = 100
"""What a family of a moment tells, is so long ago."""

OF_LABELS = {
    "asset": ("fleet/device_counts", "telemetry/lorawan_uplinks"),
    "measurement": ("lorawan_uplink", "device_metrics"),
    "outcome": ("sampled", "missed_busy"),
    "source": ("inventory", "devices/device_status"),
    "status": ("success", "failed"),
    "success": ("true", "false"),
}
"""Values that a query asks for by name: the first, and another. Of other labels anything."""
OF_ONE_ROASTER = {"roaster_id": ("roaster_id 0", "roaster_id 0")}
FLAGS = ("device_up", "device_ping_status", "service_healthy", "postgres_slot_active")


@contextmanager
def full_prometheus(folder: Path) -> Iterator[str]:
    """The URL of a Prometheus that was scraped from BEGIN_SECONDS to END_SECONDS."""
    page = folder / "page.txt"
    page.write_text("".join(f"{line}\n" for line in _lines()) + "# EOF\n")
    command = [
        require("promtool"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(page),
        str(folder / "data"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    with prometheus_over_blocks(folder) as url:
        yield url


def _lines() -> Iterator[str]:
    for family in families().values():
        for which in (0, 1) if family.labels else (0,):
            for instance in ("exporter-1", "exporter-2"):
                for at in TIMES:
                    yield from _samples(family, which, instance, at)
    for name, labels in recordings().items():
        own = "".join(f',{label}="{label} 0"' for label in labels if label != "job")
        yield from (f'{name}{{job="{JOB}"{own}}} 7 {at}' for at in TIMES)


def _samples(family: Family, which: int, instance: str, at: int) -> Iterator[str]:
    labels = f'job="{JOB}",instance="{instance}"'
    own = OF_LABELS | OF_ONE_ROASTER if family.name == "roaster_scrape_runs" else OF_LABELS
    for label in family.labels:
        value = own.get(label, (f"{label} 0", f"{label} 1"))[which]
        scraped_as = SCRAPED_AS.get(label, label)
        labels += f',{scraped_as}="{value}"'
    if family.type is MetricType.HISTOGRAM:
        for bound, share in (("0.5", 1), ("+Inf", 2)):
            bucket = f'{family.name}_bucket{{{labels},le="{bound}"}}'
            yield f"{bucket} {share * (at - BEGIN_SECONDS)} {at}"
        return
    yield f"{family.name}{{{labels}}} {_value(family, which, at)} {at}"


def _value(family: Family, which: int, at: int) -> int:
    if family.type is MetricType.COUNTER:
        return (which + 1) * (at - BEGIN_SECONDS)
    if family.name in FLAGS:
        return 1 - which
    if family.name.endswith("_timestamp_seconds") or family.name == "postgres_start_time_seconds":
        return at - AGE_SECONDS
    return 7 + which
