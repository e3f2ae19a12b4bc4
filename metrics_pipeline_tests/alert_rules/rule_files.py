"""The alert rules that ship, as the tests read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metrics_pipeline.core.catalog import CATALOG, SELF_FAMILIES, Family, MetricType
from metrics_pipeline.sources.sql_sets import SHIPPED, load_sql_set

ROOT = Path(__file__).parents[2]
RULES = ROOT / "metrics_pipeline" / "alert_rules"
CASES = sorted((Path(__file__).parent / "cases").glob("*.yml"))

OF_PROMETHEUS: Mapping[str, frozenset[str]] = {"up": frozenset({"job", "instance"})}
OF_THE_TARGET = frozenset({"job", "instance"})
TAKEN = {"job": "exported_job"}
"""What Prometheus calls a label of ours where it has one of that name itself."""

STRING = r'"[^"]*"'
SELECTOR = re.compile(r"([a-z_][\w:]*)\s*\{([^}]*)\}")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
OPERATORS = frozenset({"and", "or", "unless", "offset", "bool"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What an expression names."""

    metrics: frozenset[str]
    labels: frozenset[str]


def rules(files: str = "*.yml") -> Iterator[Mapping[str, Any]]:
    """Every rule of every file whose name matches `files`."""
    for file in sorted(RULES.glob(files)):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


ALERTS: Mapping[str, Mapping[str, Any]] = {r["alert"]: r for r in rules() if "alert" in r}


def terms(expression: str) -> Terms:
    """Names of metrics and labels in `expression`: those words that are neither functions nor
    operators, durations or numbers.
    """
    plain = re.sub(STRING, '""', expression)
    matched = [name for _, inside in SELECTOR.findall(plain) for name in matchers(inside)]
    grouped = [name.strip() for inside in GROUPING.findall(plain) for name in inside.split(",")]
    rest = re.sub(r"\{[^}]*\}|\[[^]]*\]|offset \w+", " ", GROUPING.sub(" ", plain))
    words = re.findall(r"(?<![\w.:])([a-z_][\w:]*)(?!\s*\(|[\w:])", rest)
    aggregations = {"sum", "max", "min", "count", "avg"}
    return Terms(
        frozenset(words) - OPERATORS - aggregations, frozenset(name for name in matched + grouped)
    )


def matchers(inside: str) -> Sequence[str]:
    """The labels in the braces of a selector."""
    return re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside)


def families() -> Mapping[str, Family]:
    """Every family that an exporter may show, by name."""
    metrics = [*CATALOG, *(each for name in SHIPPED for each in load_sql_set(name).metrics)]
    return {family.name: family for family in [*(m.family for m in metrics), *SELF_FAMILIES]}


def scraped_labels(family: Family) -> frozenset[str]:
    """What its series have in Prometheus."""
    return frozenset(TAKEN.get(label, label) for label in family.labels) | OF_THE_TARGET


def known_labels() -> Mapping[str, frozenset[str]]:
    """Labels by metric: those of the exporter, of Prometheus itself, and what rules record."""
    known = dict(OF_PROMETHEUS)
    for name, family in families().items():
        known[name] = scraped_labels(family)
        if family.type is MetricType.HISTOGRAM:
            known[f"{name}_bucket"] = known[name] | {"le"}
    for rule in rules():
        if "record" in rule:
            named = [known[name] for name in terms(rule["expr"]).metrics]
            known[rule["record"]] = frozenset(rule.get("labels", ())).union(*named)
    return known
