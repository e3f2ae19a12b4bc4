"""Figures that several benchmarks make."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def memory_mb_of(pid: int, line: str = "VmRSS") -> float:
    """Resident memory of a process in MB (10^6 bytes), from that line of its status in /proc."""
    found = re.search(rf"{line}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6
