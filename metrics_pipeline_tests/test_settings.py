"""The settings that ship: they load, and so does each commented example in them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from metrics_pipeline.access.environment import STATE_DIR_VARIABLE, default_settings_file
from metrics_pipeline.settings import (
    DEVICE_FAMILIES,
    ExporterSettings,
    Settings,
    SweepSettings,
)
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.sources.registry import SOURCES
from metrics_pipeline.storage.embedded import EmbeddedStoreSettings

DEFAULT = default_settings_file().read_text(encoding="utf-8")

# An example is a run of comment lines that each begin with a key.
EXAMPLE_LINE = re.compile(r"( *)# +[a-z_]+:( .*)?")

REPLACES: Mapping[str, tuple[str, ...]] = {
    "connection_string": ("connection_string", "scheme"),
    "entra_id": ("connection_string", "scheme"),
    "aws_iot": (),
    "url": ("url",),
    "without": (),
    "device_types": (),
    "core": (),
    "source": ("source",),
    "checkpoints": (),
    "robot_tokens_file": (),
    "fleet": (),
    "health": (),
    "billing": (),
    "transport": ("transport",),
    "kind": ("kind", "path"),
    "retention": (),
    "tls": (),
}
"""By its first key, the keys beside an example that it stands for."""


def find_examples() -> list[tuple[int, int]]:
    """First line and end of every example."""
    lines = DEFAULT.splitlines()
    is_example = [bool(EXAMPLE_LINE.fullmatch(line)) for line in lines]
    starts = [n for n, here in enumerate(is_example) if here and not (n and is_example[n - 1])]
    return [(n, next(m for m in range(n, len(lines)) if not is_example[m])) for n in starts]


def uncomment(start: int, end: int) -> tuple[str, list[str]]:
    """The example's first key and its lines, at the column of their `#`."""
    lines = DEFAULT.splitlines()[start:end]
    column = lines[0].index("#")
    bare = textwrap.dedent("\n".join(line[column + 1 :] for line in lines))
    return bare.partition(":")[0], textwrap.indent(bare, " " * column).splitlines()


def with_example(start: int, end: int) -> str:
    key, example = uncomment(start, end)
    column = re.match(" *", example[0])[0]  # type: ignore[index]
    dropped = tuple(f"{column}{replaced}:" for replaced in REPLACES[key])
    lines = DEFAULT.splitlines()
    rest = [
        [line for line in part if not line.startswith(dropped or "\n")]
        for part in (lines[:start], lines[end:])
    ]
    return "\n".join([*rest[0], *example, *rest[1]])


@pytest.fixture(autouse=True)
def _state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path / "state"))
    monkeypatch.delenv("INFLUXDB_URL", raising=False)


def test_the_settings_that_ship_load() -> None:
    settings = load_settings(default_settings_file())
    assert [asset.key for asset in settings.fleet_assets()] == [
        "fleet/device_counts",
        "fleet/edge_device_counts",
        "fleet/concentrator_counts",
    ]


def test_devices_are_shown_unless_they_are_switched_off() -> None:
    assert ExporterSettings().device_families == DEVICE_FAMILIES
    assert ExporterSettings(device_metrics=("device_up",)).device_families == ("device_up",)
    assert ExporterSettings(per_device=False).device_families == ()


def test_a_metric_of_devices_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="device_mood") as caught:
        ExporterSettings(device_metrics=("device_up", "device_mood"))
    assert "expected some of device_up, device_cpu_utilization_percent" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("http://127.0.0.1:3000", True),
        ("https://dagster.example.net/ui/", True),
        ("javascript:alert(1)", False),
        ("https://me:secret@dagster.example.net", False),
        ("https://dagster.example.net/?a=b", False),
        ("https://dagster.example.net\n", False),
        ("dagster.example.net", False),
    ],
)
def test_the_address_of_dagster_is_one_that_may_be_linked_to(url: str, is_taken: bool) -> None:
    given = {"version": 1, "sources": {}, "exporter": {"dagster_url": url}}
    if is_taken:
        assert Settings.model_validate(given).exporter.dagster_url == url
    else:
        with pytest.raises(ValueError, match="dagster_url"):
            Settings.model_validate(given)


def test_the_exporter_binds_to_loopback_unless_told_otherwise() -> None:
    exporter = load_settings(default_settings_file()).exporter
    assert (exporter.host, exporter.is_public) == ("127.0.0.1", False)
    assert (Settings.model_validate({"version": 1, "sources": {}}).exporter.host) == "127.0.0.1"


@pytest.mark.parametrize("place", find_examples(), ids=lambda place: uncomment(*place)[0])
def test_each_commented_example_loads_when_it_is_uncommented(
    place: tuple[int, int], tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(with_example(*place), encoding="utf-8")
    assert load_settings(file) != load_settings(default_settings_file())


def test_every_example_is_tried() -> None:
    assert [uncomment(*place)[0] for place in find_examples()] == list(REPLACES)


def test_a_relative_path_is_below_the_state_directory_and_an_absolute_one_stays(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    settings = load_settings(default_settings_file())
    assert isinstance(settings.store, EmbeddedStoreSettings)
    assert settings.store.path == state / "embedded.sqlite"
    assert settings.operational_database.url == f"sqlite:///{state / 'operational.sqlite'}"
    assert settings.simulator is not None
    connection_string_file = state / "simulator/iot_hub_connection_string"
    assert settings.simulator.connection_string_file == connection_string_file
    file = tmp_path / "settings.yaml"
    file.write_text("version: 1\nsources: {}\nstore: {kind: embedded, path: /elsewhere/x}\n")
    moved = load_settings(file).store
    assert isinstance(moved, EmbeddedStoreSettings)
    assert moved.path == Path("/elsewhere/x")


def test_without_lora_there_is_no_concentrator_count(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(DEFAULT.replace("lora_enabled: true", "lora_enabled: false"))
    assert [asset.name for asset in load_settings(file).fleet_assets()] == [
        "device_counts",
        "edge_device_counts",
    ]


def test_without_a_fleet_section_nothing_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("version: 1\nsources: {}\n")
    assert load_settings(file).fleet_assets() == ()


def test_every_source_of_the_registry_has_a_section() -> None:
    settings = load_settings(default_settings_file())
    sections = {name: settings.source(name) for name in SOURCES}
    assert sections["aws_iot"] is None
    assert isinstance(sections["azure_iot_hub"], BaseModel)
    assert isinstance(sections["inventory"], BaseModel)


def test_settings_never_change() -> None:
    settings = load_settings(default_settings_file())
    with pytest.raises(ValueError, match="frozen"):
        settings.version = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "tables"),
    [
        ([], ()),
        (["disks"], ("device_disks",)),
        (["disks", "interfaces", "disks"], ("device_interfaces", "device_disks")),
    ],
)
def test_detail_is_asked_for_by_table(words: list[str], tables: tuple[str, ...]) -> None:
    assert SweepSettings.model_validate({"details": words}).detail_tables == tables


def test_detail_of_something_else_is_refused() -> None:
    with pytest.raises(ValidationError, match="interfaces"):
        SweepSettings.model_validate({"details": ["fans"]})
