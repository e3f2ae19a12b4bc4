"""A store's file of an earlier version is changed before the stack starts anything."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import yaml

from metrics_pipeline.core.points import Point
from metrics_pipeline.storage.embedded_schema import SCHEMA_VERSION
from metrics_pipeline_tests.running_stack import running_stack
from metrics_pipeline_tests.storage.schema_1 import write_schema_1


def test_the_store_is_changed_before_anything_starts(tmp_path: Path) -> None:
    write_schema_1(tmp_path / "embedded.sqlite", [Point("polls", {}, {"up": True, "ms": 1.5}, 1)])
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({"version": 1, "sources": {}}))
    options = f"PORTS --no-simulator --state-dir {tmp_path} --settings {settings}"
    command = ["sh", "-c", f"exec {sys.executable} -m metrics_pipeline run {options}"]
    with running_stack(command, tmp_path, {}) as stack:
        stack.wait_until(lambda: "state in" in stack.output, "the stack begins")
        with closing(sqlite3.connect(tmp_path / "embedded.sqlite")) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert version == SCHEMA_VERSION
    assert stack.output.startswith("Changing 2 values of embedded store")
