"""CPU time of one point rendered to line protocol, against `influxdb-client`'s Point objects.

    python -m metrics_pipeline_tests.benchmarks.line_protocol [--json] [--points N] [--rounds N]

A point has two tags and one field, as in `device_metrics`. The points are made beforehand for us;
the peer's are made inside the measurement, because it has no other way to take tags and fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from influxdb_client.client.write import point as influxdb_client_point

from metrics_pipeline.core.line_protocol import render
from metrics_pipeline.core.points import Point
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.interleaved import measure_cpu_seconds

# The client's methods have no annotations.
PeerPoint: Any = influxdb_client_point.Point

START_NS = 1_700_000_000_000_000_000
METRIC_NAMES = ("cpu_utilization_percent", "memory_utilization_percent", "ping_rtt_ms")


def make_points(count: int) -> list[Point]:
    """`count` points of as many devices as a third of that, with values that are not round."""
    return [
        Point(
            "device_metrics",
            {"device_id": f"device-{i // 3:05d}", "metric_name": METRIC_NAMES[i % 3]},
            {"value": 100.0 * ((i * 7919) % 10007) / 10007},
            START_NS + i,
        )
        for i in range(count)
    ]


def render_like_the_peer(points: Sequence[Point]) -> bytes:
    """The same lines made with `influxdb-client`'s Point objects."""
    return "\n".join(_peer_line(point) for point in points).encode()


def _peer_line(point: Point) -> str:
    peer = PeerPoint(point.measurement)
    for key, tag in point.tags.items():
        peer.tag(key, tag)
    for key, value in point.fields.items():
        peer.field(key, value)
    line: str = peer.time(point.time_ns).to_line_protocol()
    return line


def measure(count: int, rounds: int) -> dict[str, Any]:
    """The benchmark's figures, in microseconds of CPU a point; both outputs must be equal."""
    points = make_points(count)
    if render(points) != render_like_the_peer(points):
        raise SystemExit("the two renderings differ: these figures would compare different work")
    seconds = measure_cpu_seconds(
        {"ours": lambda: render(points), "peer": lambda: render_like_the_peer(points)}, rounds
    )
    return {
        "points": count,
        "rounds": rounds,
        "cpu_us_per_point": round(seconds["ours"] / count * 1e6, 3),
        "peer_cpu_us_per_point": round(seconds["peer"] / count * 1e6, 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--points", type=int, default=20_000, help="points in a round (20000)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds to take the median of (9)")
    options = parser.parse_args(arguments)
    figures = measure(options.points, options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
