"""A hub in a process of its own: prints its connection string, then takes commands (`commands`).

It ends at the end of its input, or at SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Sequence

from metrics_pipeline.simulators.event_hub.commands import carry_out
from metrics_pipeline.simulators.event_hub.server import serve_event_hub


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to end. Raises OSError when the port is taken."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        _serve(options)
    return 0


def _serve(options: argparse.Namespace) -> None:
    with serve_event_hub(
        name=options.name,
        partition_count=options.partitions,
        consumer_groups=options.consumer_group,
        port=options.port,
    ) as hub:
        print(json.dumps({"connection_string": hub.connection_string}), flush=True)
        for line in sys.stdin:
            print(carry_out(hub, line), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m metrics_pipeline.simulators.event_hub",
        description="An Azure Event Hub on loopback, for development and tests.",
    )
    parser.add_argument("--name", default="telemetry", help="the hub's name")
    parser.add_argument("--partitions", type=int, default=4, help="how many (default 4)")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 is any free one")
    parser.add_argument(
        "--consumer-group", action="append", default=[], help="besides $default; may be repeated"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
