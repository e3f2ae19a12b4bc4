"""Target: what a host prints over SSH."""

from __future__ import annotations

from metrics_pipeline_tests.fuzz.runner import fuzz, instrumented

with instrumented():
    from metrics_pipeline.core.devices import HOST_METRICS, Miss
    from metrics_pipeline.sources.host_report import (
        BEGIN,
        MAX_CELSIUS,
        MIN_CELSIUS,
        CpuTicks,
        NotAReport,
        has_ended,
        parse_report,
    )
from metrics_pipeline_tests.sources import host_report_fixtures as fixtures

EARLIER = CpuTicks(1000, 2000)


def check(data: bytes) -> None:
    """Nothing but NotAReport is raised; each metric is a value in its range or has a miss."""
    for output in (data, f"{BEGIN}\n".encode() + data):
        for earlier in (None, EARLIER):
            check_output(output, earlier)


def check_output(output: bytes, earlier: CpuTicks | None) -> None:
    """What `output` says."""
    try:
        report = parse_report(output, earlier)
    except NotAReport:
        return
    assert report.is_whole == has_ended(output)
    assert set(report.values) | set(report.misses) == set(HOST_METRICS)
    assert not set(report.values) & set(report.misses)
    assert set(report.misses.values()) <= {Miss.PARSE, Miss.UNSUPPORTED}
    for name, value in report.values.items():
        assert type(value) is float
        highest = 100.0 if name.endswith("_percent") else 2.0**80
        if name.endswith("_celsius"):
            assert MIN_CELSIUS <= value <= MAX_CELSIUS
        else:
            assert 0.0 <= value <= highest, name


def seeds() -> list[bytes]:
    """The reports of all systems."""
    texts = (text for text in vars(fixtures).values() if isinstance(text, str))
    return [text.encode() for text in texts if BEGIN in text]


if __name__ == "__main__":
    fuzz(check, seeds())
