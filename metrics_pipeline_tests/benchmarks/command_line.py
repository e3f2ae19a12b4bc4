"""What the command lines of benchmarks have in common: `--json`, and how figures are printed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping


def parser_of(document: str | None) -> argparse.ArgumentParser:
    """For the benchmark that `document` describes; `show` takes what it parses."""
    assert document is not None
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line")
    return parser


def show(figures: Mapping[str, object], options: argparse.Namespace) -> None:
    """Print the figures, for people or as one JSON object."""
    if options.json:
        print(json.dumps(figures))
        return
    width = max(map(len, figures))
    print("\n".join(f"{name:{width}} {value}" for name, value in figures.items()))
