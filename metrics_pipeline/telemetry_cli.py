"""The options of `metrics-pipeline telemetry`; what they do is in `telemetry_commands.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from metrics_pipeline.devices_cli import AddParser

MAX_LISTED = 100_000
MAX_GROUP_CHARACTERS = 50


def add_telemetry(commands: Any, add: AddParser) -> None:
    """Add `telemetry` and everything below it to `commands`."""
    parser = add(
        commands,
        "telemetry",
        "Look at what cannot be decoded or stored; store events again.",
        "telemetry dead-letters --reason not_json",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_dead_letters(actions, add)
    _add_replay(actions, add)


def _add_dead_letters(actions: Any, add: AddParser) -> None:
    parser = add(
        actions,
        "dead-letters",
        "List the events that could not be decoded or stored, the oldest first; show one; delete "
        "old ones.",
        "telemetry dead-letters --show 17",
        below=True,
    )
    _add_choice(parser)
    parser.add_argument(
        "--limit", type=_number(1, MAX_LISTED), default=50, metavar="N", help="list N (50)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, one a line, with the body")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--show", type=_number(1), metavar="ID", help="one with its body, of which 1 kB is kept"
    )
    what.add_argument(
        "--purge-older-than",
        type=_number(0),
        metavar="DAYS",
        help="delete those that were kept more than DAYS ago",
    )
    parser.set_defaults(command=_later("dead_letters"))


def _add_replay(actions: Any, add: AddParser) -> None:
    parser = add(
        actions,
        "replay",
        "Read events from the hub once more and store them again, which changes nothing where they "
        "are stored already. No checkpoint moves and no run is disturbed. While a run reads the "
        "partition the hub lets nobody else in of its consumer group: name another. Status 1 if "
        "events are gone from the hub, or were refused by the decoding or by the store.",
        "telemetry replay --partition 0 --from 1200 --to 1300 --consumer-group replay",
        below=True,
    )
    _add_choice(parser)
    parser.add_argument(
        "--from", type=_number(0), dest="first", metavar="NUMBER", help="the first sequence number"
    )
    parser.add_argument(
        "--to", type=_number(0), dest="last", metavar="NUMBER", help="the last; default: the newest"
    )
    parser.add_argument(
        "--consumer-group",
        type=_group_name,
        metavar="NAME",
        help="read in this consumer group, which must exist; default: that of the runs",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--dead-letters",
        action="store_true",
        help="only events with a dead letter (of --reason, --partition); those that can be decoded "
        "and stored now are, and their dead letters deleted",
    )
    how.add_argument(
        "--move-checkpoint",
        action="store_true",
        help="store nothing here, but move the checkpoint back (or on) to just before --from: a "
        "run that is on its way lets the partition go, and the next one reads from there, or from "
        "the first that the hub still has",
    )
    parser.set_defaults(command=_later("replay"))


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="WORD", help="only of this reason, such as not_json")
    parser.add_argument("--partition", metavar="ID", help="only of this partition")


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    """The command called `name`, whose module is heavy: `--help` should answer at once."""

    def run(options: argparse.Namespace) -> int:
        from metrics_pipeline import telemetry_commands  # noqa: PLC0415

        status: int = getattr(telemetry_commands, name)(options)
        return status

    return run


def _group_name(given: str) -> str:
    if 1 <= len(given) <= MAX_GROUP_CHARACTERS:
        return given
    problem = f"expected a name of 1 to {MAX_GROUP_CHARACTERS} characters, got {len(given)}"
    raise argparse.ArgumentTypeError(problem)


def _number(minimum: int, maximum: int = 2**63 - 1) -> Callable[[str], int]:
    def parse(given: str) -> int:
        digits = given.isascii() and given.isdigit() and len(given) <= len(str(maximum))
        if digits and minimum <= int(given) <= maximum:
            return int(given)
        raise argparse.ArgumentTypeError(f"expected a number from {minimum} on, got {given!r}")

    return parse
