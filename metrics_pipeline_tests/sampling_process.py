"""Samples what the settings of this environment name, until its standard input ends.

A process of its own, so that a test can kill it; without Dagster, which would be slow to start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.platform_sources import find_sampled
from metrics_pipeline.sampling import Sampling
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.storage.open import open_writer
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.writer import Writer
from metrics_pipeline_tests.servers import STOP_SECONDS


@contextmanager
def sampling_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One with the settings in `folder`; it ends by itself what it has begun, unless killed."""
    names = {STATE_DIR_VARIABLE: str(folder), SETTINGS_VARIABLE: str(folder / "settings.yaml")}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, env={**os.environ, **names}
    )
    try:
        yield process
        process.communicate(timeout=STOP_SECONDS)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Hold the sampling, as the daemon's ticks do."""
    settings = load_settings()

    def open_stores() -> tuple[Writer, OperationalDatabase]:
        writer = open_writer(settings.store, settings.operational_database, settings.catalog())
        return writer, OperationalDatabase(settings.operational_database)

    with closing(Sampling(find_sampled(settings), open_stores)) as sampling:
        # What a killed one held is free after a while.
        while sampling.hold():
            time.sleep(0.2)
        sys.stdin.read()


if __name__ == "__main__":
    main()
