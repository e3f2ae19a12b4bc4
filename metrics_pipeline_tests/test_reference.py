"""The generated pages are what the code says."""

from __future__ import annotations

from pathlib import Path

from metrics_pipeline.core.catalog import CATALOG, SELF_FAMILIES
from metrics_pipeline.reference import configuration_page, metrics_page, write

DOCS = Path(__file__).parents[1] / "docs"


def test_the_committed_pages_are_up_to_date(tmp_path: Path) -> None:
    write(tmp_path)
    for page in ("metrics.md", "configuration.md"):
        assert (DOCS / page).read_text() == (tmp_path / page).read_text(), "run `make docs`"


def test_every_metric_and_family_is_on_its_page() -> None:
    page = metrics_page()
    for metric in CATALOG:
        assert f"`{metric.family.name}`" in page
    for stored in CATALOG.stored_only:
        selected_by = f"`{stored.selected_by}`" if stored.selected_by else ""
        field = f"`{stored.measurement.name}.{stored.field}`"
        assert f"| {selected_by} | {stored.unit} | {field} |" in page
    for fields in CATALOG.open_fields:
        assert f"`{fields.measurement.name}.{fields.prefix}…`" in page
    for family in SELF_FAMILIES:
        assert f"`{family.name}`" in page


def test_every_key_says_what_it_is_for() -> None:
    rows = [row for row in configuration_page().splitlines() if row.startswith("| `")]
    undocumented = [row.split("`")[1] for row in rows if row.endswith("|  |")]
    assert undocumented == []


def test_no_secret_value_has_a_place_in_the_configuration() -> None:
    rows = [row for row in configuration_page().splitlines() if " secret |" in row]
    assert {row.split("`")[1].rpartition(".")[2] for row in rows} >= {"password", "token"}
