"""Runs one decoder on inputs that grow towards code that was not reached yet (atheris, libFuzzer).

    python -m metrics_pipeline_tests.fuzz.snmp_messages --seconds 60
    python -m metrics_pipeline_tests.fuzz.snmp_messages --input FILE    # what failed, once more

Each module here is a target: a function that takes bytes and raises for nothing but a broken
promise. It fails when the target raises, takes longer than SLOWEST_SECONDS for an input, or the
process more memory than LIMIT_MB; the input is then kept, and its path is printed.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import atheris

SLOWEST_SECONDS = 10
LIMIT_MB = 512
LONGEST_INPUT_BYTES = 16_384


def instrumented() -> AbstractContextManager[None]:
    """What of the product is imported within it tells libFuzzer which code was reached."""
    imports: AbstractContextManager[None] = atheris.instrument_imports(
        include=["metrics_pipeline"], enable_loader_override=False
    )
    return imports


def instrument(module: ModuleType) -> None:
    """The same for one module of others: naming it above would take its whole package."""
    for made in vars(module).values():
        if inspect.isclass(made) and made.__module__ == module.__name__:
            for method in filter(inspect.isfunction, vars(made).values()):
                atheris.instrument_func(method)


def fuzz(target: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Run `target` as the command line says, beginning with `seeds`. Ends the process."""
    arguments = _parse_arguments()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus = arguments.corpus or folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-artifact_prefix={folder}/",
        f"-timeout={SLOWEST_SECONDS}",
        f"-rss_limit_mb={LIMIT_MB}",
        f"-max_len={LONGEST_INPUT_BYTES}",
        "-print_final_stats=1",
    ]
    if arguments.seconds is not None:
        options.append(f"-max_total_time={arguments.seconds}")
    if arguments.runs is not None:
        # The same inputs each time.
        options += [f"-runs={arguments.runs}", "-seed=1"]
    atheris.Setup([sys.argv[0], *options, str(arguments.input or corpus)], target)
    atheris.Fuzz()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz one decoder; Ctrl-C ends it.")
    parser.add_argument("--seconds", type=int, help="how long; without it until it fails")
    parser.add_argument("--runs", type=int, help="how many inputs")
    parser.add_argument("--corpus", type=Path, help="a folder to begin with and to add to")
    parser.add_argument("--input", type=Path, help="one file, once")
    return parser.parse_args()
