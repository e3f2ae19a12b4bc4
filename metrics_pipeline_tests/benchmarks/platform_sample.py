"""CPU time of one sample of the platform: the health pages of four services.

    python -m metrics_pipeline_tests.benchmarks.platform_sample [--json] [--samples N] [--rounds N]

The services are a process of their own, whose CPU is not counted. Ours is all of this process: its
connections are kept, as between two samples of the sampler. `PARTS` is what is measured, each part
by itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metrics_pipeline.core.service_counters import HEALTHY, KNOWN_COUNTERS
from metrics_pipeline.simulators.platform_services import serve_platform_services
from metrics_pipeline.sources.service_health import ServiceHealth
from metrics_pipeline.sources.service_health_settings import ServiceSettings
from metrics_pipeline_tests.benchmarks.interleaved import measure_cpu_seconds

TIME_NS = 1_700_000_000_000_000_000
READY = "ready"

Sample = Callable[[], object]


@contextmanager
def four_services() -> Iterator[Sample]:
    """One reading of four services; it has to find all of them healthy."""
    with ExitStack() as running:
        directory = Path(running.enter_context(TemporaryDirectory()))
        running.enter_context(_serving(directory))
        services = {
            name: ServiceSettings.model_validate({"url_from": {"file": directory / f"{name}_url"}})
            for name in KNOWN_COUNTERS
        }
        source = running.enter_context(closing(ServiceHealth(services)))

        def sample() -> None:
            reading = source.read(TIME_NS)
            if [point.fields[HEALTHY] for point in reading.points] != [1] * len(services):
                raise SystemExit(f"not all services were healthy: {reading.failures}")

        yield sample


PARTS: Mapping[str, Callable[[], Any]] = {"services": four_services}
"""What a sample is made of, by the beginning of its figure's name."""


@contextmanager
def _serving(directory: Path) -> Iterator[None]:
    command = [sys.executable, "-m", __spec__.name, "--serve", str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        if server.stdout.readline().strip() != READY:
            raise SystemExit("the simulated services did not start")
        yield
        server.stdin.close()


def serve(directory: Path) -> None:
    """Be the four services until there is nothing more to read from standard input."""
    with serve_platform_services(directory=directory, step_seconds=3600, seed=1):
        print(READY, flush=True)
        sys.stdin.read()


def measure(samples: int, rounds: int) -> dict[str, Any]:
    """The figures, in milliseconds of CPU a sample, of each part and of all."""
    with ExitStack() as running:
        parts = {name: running.enter_context(part()) for name, part in PARTS.items()}
        contenders = {name: _repeated(sample, samples) for name, sample in parts.items()}
        seconds = measure_cpu_seconds(contenders, rounds)
    each = {f"{name}_cpu_ms": round(spent / samples * 1e3, 3) for name, spent in seconds.items()}
    total = round(sum(seconds.values()) / samples * 1e3, 3)
    return {"samples": samples, "rounds": rounds, **each, "cpu_ms_per_sample": total}


def _repeated(sample: Sample, times: int) -> Sample:
    def repeat() -> None:
        for _ in range(times):
            sample()

    return repeat


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures, for people or as one JSON object."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50, help="samples in a round (50)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds to take the median of (9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        serve(options.serve)
        return
    figures = measure(options.samples, options.rounds)
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
