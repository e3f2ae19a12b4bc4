"""What Dagster loads in a stack whose samples are of test servers: see `sampled_stack.py`."""

import json
import os

import dagster as dg

from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline_tests.sampled_http import sampled_count

SAMPLED_VARIABLE = "METRICS_PIPELINE_TESTS_SAMPLED"
"""Names and URLs, as JSON."""


@dg.definitions
def defs() -> dg.Definitions:
    """Under the settings of this environment, but for what is sampled."""
    settings = load_settings()
    every_seconds = settings.platform.sample_every_seconds
    urls = json.loads(os.environ[SAMPLED_VARIABLE])
    sampled = [sampled_count(name, url, every_seconds, 4.0) for name, url in urls.items()]
    return build_definitions(settings, sampled)
