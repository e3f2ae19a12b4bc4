"""Looks up every locked package in the advisory database, with pip-audit.

Exit status 1 if one has a known hole, or could not be looked up while others could. Where the
database does not answer at all, this says so and ends with 0: nothing was audited then.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).parents[1] / "constraints-image.txt"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Packages by what was found of them."""

    clean: list[str]
    holes: list[str]
    skipped: list[str]


def read_report(text: str) -> Outcome:
    """The outcome in pip-audit's JSON."""
    clean, holes, skipped = [], [], []
    for package in json.loads(text)["dependencies"]:
        if "skip_reason" in package:
            skipped.append(package["name"])
        elif package["vulns"]:
            ids = ", ".join(hole["id"] for hole in package["vulns"])
            holes.append(f"{package['name']} {package['version']}: {ids}")
        else:
            clean.append(package["name"])
    return Outcome(clean, holes, skipped)


def judge(outcome: Outcome) -> tuple[int, str]:
    """Exit status and what to print."""
    if outcome.holes:
        return 1, "known holes:\n  " + "\n  ".join(outcome.holes)
    if not outcome.clean:
        packages = len(outcome.skipped)
        return 0, f"NOT AUDITED: the advisory database answers for none of {packages} packages"
    if outcome.skipped:
        return 1, f"could not be looked up: {', '.join(outcome.skipped)}"
    return 0, f"{len(outcome.clean)} packages, no known hole"


def main() -> int:
    """Audit the lock."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip"),
        *("--format", "json", "--progress-spinner", "off"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        print(f"NOT AUDITED: pip-audit failed: {done.stderr.strip()[-500:]}")
        return 0 if "Connection" in done.stderr else 1
    status, text = judge(read_report(done.stdout))
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
