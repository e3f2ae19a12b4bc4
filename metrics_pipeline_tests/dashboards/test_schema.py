"""Every dashboard and every panel is what Grafana's own types say (grafana.schema.md)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from metrics_pipeline_tests.dashboards.exported import DASHBOARDS, PANELS, Json

SCHEMA = json.loads(Path(__file__).with_name("grafana.schema.json").read_text())
PARTS = SCHEMA["definitions"]["Grafana"]["properties"]
OPTIONS = PARTS["options"]["properties"]
CUSTOM = PARTS["custom"]["properties"]


def problems(schema: Any, node: Any) -> Iterator[str]:
    for problem in jsonschema.Draft7Validator(schema).iter_errors(node):
        deepest = jsonschema.exceptions.best_match([problem])
        yield f"{list(deepest.absolute_path)}: {deepest.message[:300]}"


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())
def test_a_dashboard_is_one_to_grafana(dashboard: Json) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert list(problems(PARTS["dashboard"], dashboard)) == []


def test_the_options_of_every_panel_are_those_of_its_kind() -> None:
    for name, panel in PANELS.items():
        assert list(problems(OPTIONS[panel["type"]], panel.get("options", {}))) == [], name


def test_the_field_settings_of_every_panel_are_those_of_its_kind() -> None:
    for name, panel in PANELS.items():
        custom = panel["fieldConfig"]["defaults"].get("custom", {})
        assert not custom or list(problems(CUSTOM[panel["type"]], custom)) == [], name


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("titel",), "x"),
        (("graphTooltip",), "crosshair"),
        (("panels", 1, "gridPos", "w"), "half"),
        (("panels", 1, "fieldConfig", "defaults", "thresholds", "mode"), "relative"),
        (("templating", "list", 0, "type"), "prometheus"),
    ],
)
def test_the_schema_refuses_what_grafana_does_not_know(path: tuple[Any, ...], value: Any) -> None:
    broken = copy.deepcopy(DASHBOARDS["product"])
    node: Any = broken
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    assert list(problems(PARTS["dashboard"], broken))


def test_the_schema_refuses_an_option_that_a_panel_has_not() -> None:
    options = {**next(p for p in PANELS.values() if p["type"] == "stat")["options"]}
    assert list(problems(OPTIONS["stat"], options)) == []
    assert list(problems(OPTIONS["stat"], options | {"colorMode": "red"}))
    assert list(problems(OPTIONS["stat"], options | {"colourMode": "value"}))
