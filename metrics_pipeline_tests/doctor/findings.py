"""What a test asks of findings."""

from __future__ import annotations

from collections.abc import Iterable

from metrics_pipeline.core.findings import Finding, Severity


def of(findings: Iterable[Finding], name: str) -> list[Finding]:
    """Those called `name`."""
    return [finding for finding in findings if finding.name == name]


def the_bad_one(findings: Iterable[Finding]) -> Finding:
    """Of findings of which exactly one is a warning or wrong; it says what to do."""
    bad = [finding for finding in findings if finding.is_bad]
    assert len(bad) == 1, bad
    assert bad[0].fix
    return bad[0]


def the_wrong_one(findings: Iterable[Finding], name: str) -> Finding:
    """As `the_bad_one`, of those called `name`, and not a warning."""
    bad = the_bad_one(of(findings, name))
    assert bad.severity is Severity.WRONG
    return bad
