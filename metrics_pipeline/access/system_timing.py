"""The clock, sleep and dice of this machine: what `core.backoff` gets where no test stands in."""

from __future__ import annotations

import random
import time

from metrics_pipeline.core.backoff import Timing

SYSTEM_TIMING = Timing(time.monotonic, time.sleep, random.random)
"""Real time; `monotonic` is in seconds since a moment of no meaning."""
