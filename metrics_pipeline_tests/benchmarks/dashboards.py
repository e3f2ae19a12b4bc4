"""How long every query of every dashboard takes over days of a real Prometheus.

    python -m metrics_pipeline_tests.benchmarks.dashboards [--json] [--devices N] [--days N]

A real exporter with everything on (`everything.py`) is scraped once by a real Prometheus with the
shipped configuration and rules. The series that it has then, those that the rules record included,
are written for all the days as OpenMetrics, every value another than the one before but for those
that are 1 or 0, and made blocks of by promtool. A second Prometheus has them, and is asked every
query as Grafana asks it: over all days with a point each `days / 400` (Grafana rounds that up, to
fewer points), or for the end alone where the panel does. Variables have values that are there.

Series have a sample each `--scrape-seconds`, 15 as shipped. But of families with series for each
device that no panel reads over time, all but the device that is shown in detail are written for
the last 26 hours alone, and but for those that a query reads a day of, each `--wide-seconds`: 16 of
17 thousand series, of which no query reads more than that. In full they would be 650 of 690 million
samples, an hour and a half of promtool's. A query that reads such a family over time gets it in
full. `samples` is what was written.

Each query is asked `--rounds` times, the queries in turns. `slowest_ms` is the slowest query's
median, `first_ms` the slowest of the first round, in which blocks come from the disk's cache or the
disk. The times are Prometheus's, with loopback HTTP and nobody drawing.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from metrics_pipeline.dashboards.panels import MOST_POINTS
from metrics_pipeline_tests.alert_rules.running_prometheus import (
    loaded_rules,
    names,
    shipped_prometheus,
)
from metrics_pipeline_tests.benchmarks.command_line import parser_of, show
from metrics_pipeline_tests.benchmarks.everything import device_name
from metrics_pipeline_tests.benchmarks.exporter import prepare
from metrics_pipeline_tests.dashboards.exported import SELECTOR, Query, queries
from metrics_pipeline_tests.exporter.exporter_process import fresh_exporter_process
from metrics_pipeline_tests.servers import PLAIN_HTTP, prometheus_over_blocks, require, wait_until

BLOCK_SECONDS = 7200
"""As long as Prometheus's first blocks; promtool reads its input once for each."""
DAY_SECONDS = 86_400
MS = 1000.0
JOB = "metrics_pipeline"
ROASTER = "roaster-00"
SCRAPE_SECONDS = 15
ANSWER_SECONDS = 120.0
WIDE_HISTORY_SECONDS = DAY_SECONDS + BLOCK_SECONDS
WIDE_SHARE = 0.5
"""A family with a series for so many of the devices is wide."""
FLAGS = ("device_up", "device_ping_status", "service_healthy", "postgres_healthy", "up")
COUNTERS = ("_total", "_bucket", "_sum", "_count")
WINDOWED = re.compile(r"(\w+)\{[^}]*\}\[")
"""A family that is read for a length of time, and not for its newest samples alone."""
PATTERNS = 16
"""So many different courses of values; a series takes one of them."""

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Extent:
    """What is written: from when to when, in seconds since the epoch, and how often."""

    begin: int
    end: int
    scrape_seconds: int
    wide_seconds: int

    @classmethod
    def of_days(cls, days: float, scrape_seconds: int, wide_seconds: int) -> Extent:
        """The days before now, in whole blocks."""
        end = int(time.time()) // BLOCK_SECONDS * BLOCK_SECONDS
        blocks = max(1, round(days * DAY_SECONDS / BLOCK_SECONDS))
        return cls(end - blocks * BLOCK_SECONDS, end, scrape_seconds, wide_seconds)

    @property
    def step_seconds(self) -> int:
        """Between two points of a panel."""
        return max(self.scrape_seconds, (self.end - self.begin) // MOST_POINTS)


def scraped_series(devices: int, folder: Path) -> Sequence[Labels]:
    """What Prometheus has, by the shipped configuration and rules, of an exporter that has all."""
    prepare(folder, devices)
    with (
        fresh_exporter_process(folder) as exporter,
        shipped_prometheus(folder, urlsplit(exporter.url).netloc, "5s") as url,
    ):
        records = {rule["name"] for rule in loaded_rules(url) if rule["type"] == "recording"}
        used = {name for query in queries() for name, _ in SELECTOR.findall(query.expression)}
        wait_until(lambda: records & used <= names(url), f"it has {records & used}")
        everything = {"query": '{__name__=~".+"}'}
        reply = PLAIN_HTTP.post(f"{url}/api/v1/query", data=everything, timeout=ANSWER_SECONDS)
        rows = reply.json()["data"]["result"]
    return [row["metric"] for row in rows]


def wide_families(found: Sequence[Labels], devices: int) -> set[str]:
    """The families with a series for each device that no panel reads over time as a whole."""
    counts = Counter(labels["__name__"] for labels in found)
    read = {
        name
        for query in queries()
        if not query.is_instant
        for name, matchers in SELECTOR.findall(query.expression)
        if "$device" not in matchers
    }
    return {name for name, n in counts.items() if n >= WIDE_SHARE * devices} - read


def write_block(
    file: Path, found: Sequence[Labels], wide: set[str], begin: int, extent: Extent
) -> int:
    """The samples of the block from `begin` on, as OpenMetrics; gives how many."""
    end = min(begin + BLOCK_SECONDS, extent.end)
    windowed = {name for query in queries() for name in WINDOWED.findall(query.expression)}
    often = _Courses(range(begin, end, extent.scrape_seconds), extent)
    seldom = _Courses(range(begin, end, extent.wide_seconds), extent)
    written = 0
    with file.open("w") as out:
        for number, labels in enumerate(found):
            name = labels["__name__"]
            is_wide = name in wide and labels.get("device_id") != device_name(0)
            if is_wide and begin < extent.end - WIDE_HISTORY_SECONDS:
                continue
            is_seldom = is_wide and name not in windowed
            course = (seldom if is_seldom else often).course(name, number)
            head = f"{name}{{{_in_braces(labels)}}}"
            out.write(head + head.join(course))
            written += len(course)
        out.write("# EOF\n")
    return written


def _in_braces(labels: Labels) -> str:
    return ",".join(f'{label}="{value}"' for label, value in labels.items() if label != "__name__")


class _Courses:
    """Ways in which values move over `times`: what stands behind the name of a series."""

    def __init__(self, times: range, extent: Extent) -> None:
        self._flags = [f" 1 {at}\n" for at in times]
        self._moments = [f" {at - 7} {at}\n" for at in times]
        self._counters = [
            [f" {1000 + (at - extent.begin) * (n + 1) // 3} {at}\n" for at in times]
            for n in range(PATTERNS)
        ]
        self._gauges = [
            [f" {(at // 15 * 37 + n * 11) % 1000 / 10} {at}\n" for at in times]
            for n in range(PATTERNS)
        ]

    def course(self, name: str, number: int) -> Sequence[str]:
        """That of the series `number`, which is called `name`."""
        if name in FLAGS:
            return self._flags
        if name.endswith("_timestamp_seconds"):
            return self._moments
        courses = self._counters if name.endswith(COUNTERS) else self._gauges
        return courses[number % PATTERNS]


def fill(folder: Path, found: Sequence[Labels], wide: set[str], extent: Extent) -> int:
    """Make blocks of all of it in `folder`; gives the number of samples."""
    folder.mkdir()
    text = folder / "block.txt"
    written = 0
    for begin in range(extent.begin, extent.end, BLOCK_SECONDS):
        written += write_block(text, found, wide, begin, extent)
        command = [require("promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
        subprocess.run([*command, str(text), str(folder / "data")], check=True)
    text.unlink()
    return written


def ask_as_grafana(url: str, query: Query, extent: Extent) -> tuple[float, int]:
    """Milliseconds until the answer to `query` was there, and how many series it has."""
    rate_seconds = max(extent.step_seconds + extent.scrape_seconds, 4 * extent.scrape_seconds)
    values = {
        "$job": JOB,
        "$device": device_name(0),
        "$roaster": ROASTER,
        "$__rate_interval": f"{rate_seconds}s",
    }
    text = query.expression
    for name, value in values.items():
        text = text.replace(name, value)
    last = extent.end - extent.scrape_seconds
    path, times = "query", {"time": str(last)}
    if not query.is_instant:
        path = "query_range"
        times = {"start": str(extent.begin), "end": str(last), "step": str(extent.step_seconds)}
    began = time.perf_counter()
    reply = PLAIN_HTTP.post(
        f"{url}/api/v1/{path}", data={"query": text, **times}, timeout=ANSWER_SECONDS
    )
    took_ms = (time.perf_counter() - began) * MS
    assert reply.status_code == 200, (query, reply.text)
    return took_ms, len(reply.json()["data"]["result"])


def measure(devices: int, extent: Extent, rounds: int) -> dict[str, object]:
    """The benchmark's figures."""
    asked = list(queries())
    times: list[list[float]] = [[] for _ in asked]
    silent: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = scraped_series(devices, folder)
        began = time.monotonic()
        written = fill(folder / "filled", found, wide_families(found, devices), extent)
        fill_seconds = time.monotonic() - began
        with prometheus_over_blocks(folder / "filled") as url:
            for _ in range(rounds):
                for query, its_times in zip(asked, times, strict=True):
                    took_ms, answers = ask_as_grafana(url, query, extent)
                    its_times.append(took_ms)
                    if not answers:
                        silent.add(query.panel)
    medians = [statistics.median(each) for each in times]
    slowest = sorted(zip(medians, asked, strict=True), key=lambda pair: -pair[0])
    return {
        "queries": len(asked),
        "slowest_ms": round(slowest[0][0], 1),
        "slowest_query": slowest[0][1].panel,
        "median_ms": round(statistics.median(medians), 1),
        "first_ms": round(max(each[0] for each in times), 1),
        "over_one_second": [query.panel for ms, query in slowest if ms >= MS],
        "slowest_five": {query.panel: round(ms, 1) for ms, query in slowest[:5]},
        "without_data": sorted(silent),
        "series": len(found),
        "samples": written,
        "fill_s": round(fill_seconds),
        "days": (extent.end - extent.begin) / DAY_SECONDS,
        "step_s": extent.step_seconds,
        "devices": devices,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--devices", type=int, default=1000, help="polled, and LoRaWAN (1000)")
    parser.add_argument("--days", type=float, default=7, help="length of the range (7)")
    parser.add_argument("--scrape-seconds", type=int, default=SCRAPE_SECONDS, help="15 as shipped")
    parser.add_argument("--wide-seconds", type=int, default=300, help="see above (300)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is asked (5)")
    options = parser.parse_args(arguments)
    extent = Extent.of_days(options.days, options.scrape_seconds, options.wide_seconds)
    figures = measure(options.devices, extent, options.rounds)
    show(figures, options)


if __name__ == "__main__":
    main()
