"""The generated pages are what the code says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.catalog import CATALOG, SELF_FAMILIES
from metrics_pipeline.reference import configuration_page, metrics_page, write
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.snmp_poll import REDISCOVER_AFTER
from metrics_pipeline.sources.snmp_settings import SnmpUser
from metrics_pipeline.sources.ssh_settings import SshJump, SshLogin
from metrics_pipeline.sources.winrm_settings import WindowsLogin

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


def rows() -> list[str]:
    """The rows of all keys."""
    return [row for row in configuration_page().splitlines() if row.startswith("| `")]


def keys() -> list[str]:
    return [row.split("`")[1] for row in rows()]


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """Every model that `annotation` names, itself or inside a union, a list or a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models(inner)


def settings_models() -> set[type[BaseModel]]:
    """All that an operator may fill in, but references to secrets, which are a value."""
    found: set[type[BaseModel]] = set()
    left: list[type[BaseModel]] = [Settings]
    while left:
        model = left.pop()
        if model not in found and model is not SecretReference:
            found.add(model)
            fields = model.model_fields.values()
            left += [inner for field in fields for inner in models(field.annotation)]
    return found


def test_every_field_of_every_settings_model_is_a_key_of_the_page() -> None:
    sections: dict[str, set[str]] = defaultdict(set)
    for key in keys():
        section, _, name = key.rpartition(".")
        sections[section].add(name)
    wanted = settings_models()
    assert {SnmpUser, SshLogin, SshJump, WindowsLogin} <= wanted
    missing = [
        model.__name__
        for model in wanted
        if not any(model.model_fields.keys() <= names for names in sections.values())
    ]
    assert missing == []


def test_credentials_are_told_key_by_key() -> None:
    assert {
        "polling.device_types.NAME.metrics_every_minutes",
        "polling.snmp.credentials.NAME[community].community",
        "polling.snmp.credentials.NAME[user].privacy_password",
        "polling.ssh.credentials.NAME.jump.host",
        "polling.winrm.credentials.NAME.server_name",
    } <= set(keys())


def test_names_of_details_are_read_as_often_as_the_page_says() -> None:
    [row] = [row for row in rows() if row.startswith("| `polling.details` ")]
    assert f"every {REDISCOVER_AFTER} polls" in row


def test_no_key_is_told_twice() -> None:
    assert len(keys()) == len(set(keys()))


def test_every_key_says_what_it_is_for() -> None:
    undocumented = [row.split("`")[1] for row in rows() if row.endswith("|  |")]
    assert undocumented == []


def test_no_secret_value_has_a_place_in_the_configuration() -> None:
    secret = [row.split("`")[1] for row in rows() if " secret |" in row]
    assert {key.rpartition(".")[2] for key in secret} >= {"password", "token", "community"}
