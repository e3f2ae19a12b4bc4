"""What every dashboard and every panel has, and that they lead to each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations

import pytest

from metrics_pipeline.dashboards import links, norms, units
from metrics_pipeline.dashboards.queries import SHORTEST_INTERVAL_SECONDS
from metrics_pipeline_tests.alert_rules.rule_files import ALERTS
from metrics_pipeline_tests.dashboards.exported import DASHBOARDS, PANELS, Json

UNITS = {value for name, value in vars(units).items() if name.isupper()}
UIDS = {dashboard["uid"]: dashboard for dashboard in DASHBOARDS.values()}
RATES = {units.PER_SECOND, units.BITS_PER_SECOND, units.BYTES_PER_SECOND}

OF_ALERTS: Mapping[str, norms.Norm] = {
    "DatabaseConnectionsNearLimit": norms.CONNECTIONS_PERCENT,
    "HealthScoreLow": norms.SCORE,
    "FleetCountsStale": norms.AGE_IN_INTERVALS,
    "DevicePollsStale": norms.AGE_IN_INTERVALS,
    "PlatformSamplesStale": norms.AGE_IN_INTERVALS,
    "DaemonHeartbeatLost": norms.AGE_OF_HEARTBEAT_SECONDS,
    "TelemetryStale": norms.AGE_OF_TELEMETRY_SECONDS,
    "CodeServerSilent": norms.AGE_OF_LEASE_SECONDS,
    "TelemetryLag": norms.LAG_SECONDS,
    "ExporterPageStale": norms.AGE_OF_PAGE_SECONDS,
    "SpoolGrowing": norms.AGE_OF_SPOOL_SECONDS,
    "SpoolNearlyFull": norms.SPOOL_PERCENT,
}
"""The alert that fires where the norm is red."""

each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())


def test_a_panel_says_what_it_shows_and_in_what_unit() -> None:
    for name, panel in PANELS.items():
        assert panel["title"], name
        assert re.search(r"[.]$", panel["description"]), name
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, name
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, name
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}, (
            name
        )


def test_a_norm_begins_at_no_value_and_rises() -> None:
    for name, panel in PANELS.items():
        norm = panel["fieldConfig"]["defaults"].get("thresholds")
        if norm is not None:
            first, *others = norm["steps"]
            assert first["value"] is None, name
            values = [step["value"] for step in others]
            assert values == sorted(set(values)), name


def begin_of_red(norm: norms.Norm) -> float:
    """Where red begins, or ends if the lowest values are red."""
    if norm.lowest == norms.RED:
        return norm.steps[0][0]
    return next(value for value, color in norm.steps if color == norms.RED)


@pytest.mark.parametrize("alert", OF_ALERTS)
def test_a_norm_is_red_where_its_alert_begins(alert: str) -> None:
    expression = ALERTS[alert]["expr"]
    red_at = begin_of_red(OF_ALERTS[alert])
    if OF_ALERTS[alert] is norms.AGE_IN_INTERVALS:
        shortest = red_at * SHORTEST_INTERVAL_SECONDS
        interval = "max without (instance) (metrics_pipeline_asset_interval_seconds)"
        assert f"> clamp_min({red_at:g} * {interval}, {shortest:g})" in expression
        return
    (limit,) = {float(number) for number in re.findall(r"[<>] ([\d.]+)", expression)}
    is_share = alert in {"DatabaseConnectionsNearLimit", "SpoolNearlyFull"}
    assert red_at == pytest.approx(limit * (100 if is_share else 1))


def test_colours_are_those_of_the_norm_or_mean_nothing() -> None:
    for name, panel in PANELS.items():
        defaults = panel["fieldConfig"]["defaults"]
        mode = defaults.get("color", {}).get("mode")
        if panel["type"] == "state-timeline":
            assert mode == "thresholds", name
        if panel["type"] == "bargauge":
            assert ("thresholds" in defaults) is (mode is None), name
        if panel["type"] == "stat":
            colours = panel["options"]["colorMode"]
            assert colours == ("value" if "thresholds" in defaults else "none"), name


def test_what_is_a_rate_is_shown_in_a_unit_of_a_rate() -> None:
    for name, panel in PANELS.items():
        for target in panel["targets"]:
            if re.match(
                r"(?:-?8 \* )?(?:sum|max)(?: by \([^)]*\))? \((?:max by \([^)]*\) \()?rate\([^/]*$",
                target["expr"],
            ):
                assert panel["fieldConfig"]["defaults"]["unit"] in RATES, (name, target["expr"])


def test_a_line_has_at_most_so_many_points_that_a_week_is_quick() -> None:
    for name, panel in PANELS.items():
        is_range = not all(target.get("instant", False) for target in panel["targets"])
        assert not is_range or panel["maxDataPoints"] <= 400, name


def test_a_table_sorts_by_a_column_that_it_has() -> None:
    for name, panel in PANELS.items():
        if panel["type"] == "table":
            _, organize = panel["transformations"]
            names = {*organize["options"]["renameByName"].values(), "version"}
            assert {order["displayName"] for order in panel["options"]["sortBy"]} <= names, name


@each_dashboard
def test_panels_do_not_overlap_and_stay_inside(dashboard: Json) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


@each_dashboard
def test_panels_have_ids_and_titles_of_their_own(dashboard: Json) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(ids)


@each_dashboard
def test_a_dashboard_lists_all_others_and_takes_time_and_variables_along(dashboard: Json) -> None:
    (link,) = dashboard["links"]
    assert (link["type"], link["tags"]) == ("dashboards", [links.TAG])
    assert link["keepTime"]
    assert link["includeVars"]
    assert dashboard["tags"] == [links.TAG]
    assert dashboard["description"]


@each_dashboard
def test_a_dashboard_has_the_variables_that_it_uses(dashboard: Json) -> None:
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names[:2] == ["datasource", "job"]
    used = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"\$(\w+)", target["expr"])
    }
    assert used - {"__rate_interval"} | {"datasource"} == set(names)


def test_dashboards_have_uids_of_at_most_40_characters_and_titles_of_their_own() -> None:
    assert len(UIDS) == len(DASHBOARDS) == 9
    assert len({dashboard["title"] for dashboard in UIDS.values()}) == len(UIDS)
    assert all(re.fullmatch(r"[a-z-]{1,40}", uid) for uid in UIDS)


def test_links_lead_to_dashboards_and_variables_that_are_there() -> None:
    text = str(list(PANELS.values()))
    led_to = re.findall(r"'url': '/d/([\w-]+)\?(?:var-(\w+)=)?", text)
    assert len(led_to) >= 8
    for uid, variable in led_to:
        names = [each["name"] for each in UIDS[uid]["templating"]["list"]]
        assert not variable or variable in names
    assert {uid for uid, _ in led_to} >= {links.DEVICES, links.ROASTER, links.DATABASE}
