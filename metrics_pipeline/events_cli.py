"""The options of `metrics-pipeline events`; what they do is in `events_commands.py`."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from metrics_pipeline.core.events import EVENT_TYPES
from metrics_pipeline.devices_cli import AddParser

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DEFAULT_SINCE = "10m"


def add_events(commands: Any, add: AddParser) -> None:
    """Add `events` and what is below it to `commands`."""
    about, example = "Follow the events of collections and robots.", "events follow --since 1h"
    actions = add(commands, "events", about, example).add_subparsers(
        required=True, metavar="ACTION"
    )
    parser = add(
        actions,
        "follow",
        "Print events as they come, each once, until Ctrl-C; where the settings send them: a "
        "stream of Redis, or a file. Goes on through rotations and restarts.",
        "events follow --type metrics.aggregation_failed --json",
        below=True,
    )
    parser.add_argument(
        "--since",
        type=moment,
        default=DEFAULT_SINCE,
        metavar="TIME",
        help="begin with those of so long ago (90s, 10m, 2h, 1d), or since a time of ISO 8601 "
        f"(default {DEFAULT_SINCE})",
    )
    parser.add_argument(
        "--type",
        type=_type,
        action="append",
        default=[],
        dest="types",
        metavar="TYPE",
        help="only of this type; may have a *, and may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="whole, as JSON, one a line")
    parser.add_argument("--once", action="store_true", help="print those there are, and end")
    parser.set_defaults(command=_follow)


def moment(given: str) -> float:
    """Seconds since the epoch; ArgumentTypeError for what is neither an age nor a time."""
    age = re.fullmatch(r"(\d{1,9})([smhd])", given, re.ASCII)
    if age:
        return max(0.0, time.time() - int(age[1]) * UNIT_SECONDS[age[2]])
    try:
        return max(0.0, datetime.fromisoformat(given).astimezone().timestamp())
    except (ValueError, OverflowError, OSError):
        problem = f"expected 90s, 10m, 2h, 1d or 2026-11-21T18:00:00Z, got {given!r}"
        raise argparse.ArgumentTypeError(problem) from None


def _type(given: str) -> str:
    if any(fnmatchcase(known, given) for known in EVENT_TYPES):
        return given
    raise argparse.ArgumentTypeError(f"expected some of {', '.join(EVENT_TYPES)}, got {given!r}")


def _follow(options: argparse.Namespace) -> int:
    from metrics_pipeline import events_commands  # noqa: PLC0415

    return events_commands.follow_events(options)
