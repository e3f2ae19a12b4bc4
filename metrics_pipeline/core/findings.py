"""What `metrics-pipeline doctor` found: plain data, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from metrics_pipeline.core.redaction import KNOWN


class Severity(StrEnum):
    """How bad it is. `UNKNOWN` is what could not be looked at; the reason is in `found`."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what came back, and what to do about it.

    What came back may repeat a secret: what is known as one is left out of it. `runbook` is a page
    of the repository, for what needs more words.
    """

    severity: Severity
    name: str
    looked_at: str
    found: str
    fix: str = ""
    runbook: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether somebody should do something."""
        return self.severity in (Severity.WARNING, Severity.WRONG)

    def to_json(self) -> Mapping[str, str]:
        """Its fields, by their names."""
        return asdict(self)


def well(name: str, looked_at: str, found: str) -> Finding:
    """Nothing is to be done."""
    return Finding(Severity.OK, name, looked_at, found)


def unknown(name: str, looked_at: str, found: str) -> Finding:
    """It could not be looked at, for a reason that is a finding of its own, or none to mind."""
    return Finding(Severity.UNKNOWN, name, looked_at, KNOWN.hide(found))


def warning(name: str, looked_at: str, found: str, fix: str, runbook: str = "") -> Finding:
    """It works, and should be seen to."""
    return Finding(Severity.WARNING, name, looked_at, KNOWN.hide(found), fix, runbook)


def wrong(name: str, looked_at: str, found: str, fix: str, runbook: str = "") -> Finding:
    """It does not work, or somebody else gets in."""
    return Finding(Severity.WRONG, name, looked_at, KNOWN.hide(found), fix, runbook)


def span_in_words(seconds: float) -> str:
    """`95 s`, `12 min`, `3.5 h`, `4.2 days`."""
    for name, length, least in (("days", 86400, 2), ("h", 3600, 2), ("min", 60, 2)):
        if seconds >= least * length:
            return f"{seconds / length:.1f} {name}".replace(".0 ", " ")
    return f"{seconds:.0f} s"
