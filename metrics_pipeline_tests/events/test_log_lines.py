"""Events in the log: a line of JSON each."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from metrics_pipeline.core.events import connection_established, parse_event
from metrics_pipeline.events.log_lines import LOGGER, LogLines

ALONE = """
    from metrics_pipeline.events.log_lines import LogLines
    LogLines().send(["{}"])
"""


def test_a_line_is_a_record_of_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    event = connection_established("robot %s", connection_id="c", connected_at=1.0)
    log = LogLines()
    log.send([event.to_json()])
    assert [(r.name, r.levelname) for r in caplog.records] == [(LOGGER, "INFO")]
    assert parse_event(caplog.records[0].message) == event
    assert LOGGER in log.check()
    log.close()


def test_where_nobody_set_up_a_log_it_is_standard_error() -> None:
    command = [sys.executable, "-c", textwrap.dedent(ALONE)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "{}\n")
