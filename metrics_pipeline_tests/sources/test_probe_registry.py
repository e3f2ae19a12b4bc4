"""What every process imports of the probes, and that each is where its spec says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from metrics_pipeline.settings import PollingSettings
from metrics_pipeline.sources.probe_registry import PROBES

CLIENTS = {
    "asyncssh",
    "azure",
    "botocore",
    "cryptography",
    "influxdb_client",
    "numpy",
    "pandas",
    "psycopg2",
    "pyasn1",
    "pypsrp",
    "pysnmp",
    "requests",
    "spnego",
}
"""What probes, sources and stores need to ask: some tenths of a second and tens of MB together."""


@pytest.mark.parametrize("module", ["settings", "exporter.serve", "definitions"])
def test_who_polls_nothing_imports_no_client(module: str) -> None:
    program = f"import sys, metrics_pipeline.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    loaded = {name.partition(".")[0] for name in done.stdout.decode().split()}
    assert "pydantic" in loaded
    assert loaded & CLIENTS == set()


@pytest.mark.parametrize("name", PROBES)
def test_a_spec_builds_the_probe_of_its_name(name: str) -> None:
    section = getattr(PollingSettings(), name)
    assert PROBES[name].build(section, {}).name == name
