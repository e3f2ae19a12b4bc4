"""What a process that ingests imports late: imported here once for all that are forked from it."""

import influxdb_client  # noqa: F401

from metrics_pipeline.access.http_client import trusted_authorities
from metrics_pipeline.storage import blob_checkpoints, influx_v2  # noqa: F401

trusted_authorities(None, "")
