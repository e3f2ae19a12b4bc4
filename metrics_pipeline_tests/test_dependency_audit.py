"""The audit fails on a hole, and never calls unaudited what is clean."""

from __future__ import annotations

import json

import pytest

from metrics_pipeline_tests.dependency_audit import judge, read_report

CLEAN = {"name": "a", "version": "1", "vulns": []}
HOLE = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1"}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([CLEAN], 0, "1 packages, no known hole"),
        ([CLEAN, HOLE], 1, "b 2: PYSEC-1"),
        ([HOLE, SKIPPED], 1, "b 2: PYSEC-1"),
        ([CLEAN, SKIPPED], 1, "could not be looked up: c"),
        ([SKIPPED], 0, "NOT AUDITED"),
    ],
)
def test_the_verdict_follows_the_report(
    packages: list[dict[str, object]], status: int, said: str
) -> None:
    verdict = judge(read_report(json.dumps({"dependencies": packages})))
    assert verdict[0] == status
    assert said in verdict[1]
