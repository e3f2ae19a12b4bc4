"""What the process is from which runs are forked: everything is imported, and nothing is open.

Imported there (`warm_runs`) before the first fork, and nowhere else. Taken over are code, and the
definitions under the settings of this moment, which are those of the code server; each run reads
secrets, opens what it needs, and begins its threads itself.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module

from metrics_pipeline.access.garbage_collection import importing, keep_what_is_there

with importing():
    import metrics_pipeline.orchestration.instance_storage
    import metrics_pipeline.warm_runs  # noqa: F401 (both are for the runs)
    from metrics_pipeline.definitions import definitions
    from metrics_pipeline.settings import Settings
    from metrics_pipeline.settings_file import load_settings
    from metrics_pipeline.sources.probe_registry import PROBES
    from metrics_pipeline.storage.influx import InfluxStoreSettings

THERE, HELD = os.pipe()
"""`HELD` is open in the template alone (a run closes its own), so `THERE` says when it has died."""

LATE = (
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.system_config.composite_descent",
    "dagster._core.utility_ops",
    "upath.implementations.local",
    "anyio._backends._asyncio",
    "httpcore",
)
"""What Dagster and httpx import when it is first needed, which is in each run."""


def late_imports(settings: Settings) -> Iterator[str]:
    """The modules that each run under `settings` would import by itself.

    Clients of stores and sources take up to 0.3 s of CPU, and are left to who opens one, as most
    processes never do.
    """
    yield from LATE
    if settings.polls_devices:
        names = {settings.sweeps.status_by, *settings.sweeps.metrics_by}
        yield from (PROBES[name].module for name in names if name in PROBES)
    if settings.telemetry is not None:
        yield "metrics_pipeline.sources.event_hub"
    if isinstance(settings.store, InfluxStoreSettings) and settings.store.api == "v2":
        yield from ("urllib3", "influxdb_client.client.influxdb_client")


# Who ends the whole process group ends the runs, too; they are not to be told twice.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

# The code server tells of what is wrong, whatever it is.
with suppress(Exception), importing():
    definitions().get_repository_def().get_all_jobs()
    for module in late_imports(load_settings()):
        with suppress(ImportError):  # the runs that need it tell of it
            import_module(module)

# What a collection of garbage does not touch stays one copy for all.
keep_what_is_there()
