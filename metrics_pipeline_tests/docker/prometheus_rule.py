"""Prints the alert rules that ship as one object of the Prometheus operator, for `make docs`."""

from __future__ import annotations

from metrics_pipeline_tests.docker.container_files import REPOSITORY

RULES = REPOSITORY / "metrics_pipeline" / "alert_rules"
HEAD = """\
# Made from metrics_pipeline/alert_rules by `make docs`: change them there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: metrics-pipeline
spec:
  groups:
"""


def render() -> str:
    """The object: the groups of all files, one after the other, with their comments."""
    groups = [line for path in sorted(RULES.glob("*.yml")) for line in _groups(path.read_text())]
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in groups)


def _groups(text: str) -> list[str]:
    """The lines below `groups:`, which each of the files begins with."""
    lines = text.splitlines()
    return lines[lines.index("groups:") + 1 :]


if __name__ == "__main__":
    print(render(), end="")
