"""What `metrics-pipeline events …` does: each function takes the options, gives the exit status.

Events are printed to standard output, what is wrong with the place to standard error. What a
terminal would obey is escaped.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from metrics_pipeline.core.events import Event
from metrics_pipeline.core.numerals import in_digits
from metrics_pipeline.events.following import follow, open_follower
from metrics_pipeline.settings_file import load_settings

TYPE_COLUMNS = 32
NAMED = ("job_id", "robot_id")
"""The keys of a payload that come first, without their names."""


def follow_events(options: argparse.Namespace) -> int:
    """Print until Ctrl-C, or until nobody reads any more: both are a good end."""
    follower = open_follower(load_settings().events.transport, options.since)
    with closing(follower):
        try:
            for event in follow(follower, options.types, _tell, once=options.once):
                print(event.to_json() if options.json else in_words(event), flush=True)
        except KeyboardInterrupt:
            return 0
        except BrokenPipeError:
            # Else Python would try again to print, and complain, when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    return 0


def in_words(event: Event) -> str:
    """On one line: when (UTC), what, of whom, and the rest of the payload."""
    payload = dict(event.payload)
    who = " ".join(_shown(payload.pop(key)) for key in NAMED if key in payload)
    rest = [
        f"{_shown(key)}={_shown(value)}"
        for key, value in payload.items()
        if not key.endswith("_at")
    ]
    run = event.meta.correlation_id
    words = (
        _when(event.timestamp),
        f"{_shown(event.type):<{TYPE_COLUMNS}}",
        who,
        *rest,
        *([f"run={_shown(run)}"] if run else []),
    )
    return " ".join(word for word in words if word)


def _when(timestamp: float) -> str:
    try:
        return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return "(no such time)"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{_shown(k)}:{_shown(v)}" for k, v in value.items())
    if isinstance(value, float):
        return in_digits(value)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _tell(news: str) -> None:
    print(_shown(news), file=sys.stderr, flush=True)
