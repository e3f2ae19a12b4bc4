"""Reads the settings: one YAML file, a few environment variables, errors a person can act on.

Plain YAML only (`access/plain_yaml.py`). No value of the file is in an error, because it may be a
secret in the wrong place; only numbers and names that are expected are (`access/yaml_mistakes.py`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, settings_file, state_dir
from metrics_pipeline.access.plain_yaml import parse
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.access.yaml_mistakes import Location, Schema, describe
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.service_counters import KNOWN_COUNTERS
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.sql_settings import apply_postgresql_variables

VERSION = 1
"""Of the format of the file; `version` in it says which it is of."""

LAST_VERSION = 999
"""A number beyond it is no version of a release to come, but a mistake."""

INFLUXDB_URL = "INFLUXDB_URL"
"""The environment variable that wins over `store.url`, where the store is InfluxDB."""

INFLUXDB_TOKEN = "INFLUXDB_TOKEN"  # noqa: S105 - the name of a variable
"""The environment variable whose value is the token, whatever `store.token` names."""

HEALTH_URLS: Mapping[str, str] = {f"{name.upper()}_HEALTH_URL": name for name in KNOWN_COUNTERS}
"""Environment variables that win over the address of a service's health page."""

COLLECTION_INTERVAL = "METRICS_COLLECTION_INTERVAL"
"""The environment variable that wins over `platform.sample_every_seconds`."""


def load_settings(file: Path | None = None) -> Settings:
    """The settings of `file`, else of $METRICS_PIPELINE_SETTINGS, else the defaults.

    Raises ConfigurationError with every mistake: file, line, key, what was expected.
    """
    path = file or settings_file()
    document, content = parse(_read(path), path, "version: 1")
    _refuse_later(content.get("version"), path)
    overridden = _apply_overrides(content, os.environ)
    try:
        return Settings.model_validate(content, context={STATE_DIR_KEY: state_dir()})
    except pydantic.ValidationError as error:
        raise _translate(error, path, document, overridden) from None


def _refuse_later(version: object, path: Path) -> None:
    """By itself: what else is not known in the file of a later release is no mistake."""
    if type(version) is int and VERSION < version <= LAST_VERSION:
        raise ConfigurationError(
            str(path),
            f"it is of version {version} of the settings, and this release knows {VERSION}",
            "Upgrade metrics-pipeline, or name the file that was used with this release.",
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            str(path),
            f"cannot be read ({error})",
            f"Name another with --settings or ${SETTINGS_VARIABLE}.",
        ) from error


def _apply_overrides(
    content: dict[str, Any], environment: Mapping[str, str]
) -> Mapping[Location, str]:
    """Change `content`; the keys that were overridden, and by which variable."""
    overridden: dict[Location, str] = dict(apply_postgresql_variables(content, environment))
    overridden.update(_override_influxdb(content, environment))
    overridden.update(_override_health_urls(content, environment))
    overridden.update(_override_interval(content, environment))
    return overridden


def _override_influxdb(
    content: dict[str, Any], environment: Mapping[str, str]
) -> dict[Location, str]:
    store = content.get("store")
    if not isinstance(store, dict) or store.get("kind") != "influxdb":
        return {}
    overridden: dict[Location, str] = {}
    if url := environment.get(INFLUXDB_URL):
        store["url"] = url
        overridden["store", "url"] = INFLUXDB_URL
    if environment.get(INFLUXDB_TOKEN):
        store["token"] = {"env": INFLUXDB_TOKEN}
        overridden["store", "token"] = INFLUXDB_TOKEN
    return overridden


def _override_interval(
    content: dict[str, Any], environment: Mapping[str, str]
) -> dict[Location, str]:
    given = environment.get(COLLECTION_INTERVAL)
    platform = _section(content, "platform") if given else None
    if platform is None:
        return {}
    platform["sample_every_seconds"] = given
    return {("platform", "sample_every_seconds"): COLLECTION_INTERVAL}


def _override_health_urls(
    content: dict[str, Any], environment: Mapping[str, str]
) -> dict[Location, str]:
    """Change `content`, where the services need not be named for it."""
    overridden: dict[Location, str] = {}
    for variable, name in HEALTH_URLS.items():
        given = environment.get(variable)
        service = _section(content, "platform", "services", name) if given else None
        if service is not None:
            service.pop("url_from", None)
            service["url"] = given
            overridden["platform", "services", name, "url"] = variable
    return overridden


def _section(content: dict[str, Any], *keys: str) -> dict[str, Any] | None:
    """The section at `keys`, made where there is none; None if something else stands there."""
    here: Any = content
    for key in keys:
        here = here.setdefault(key, {})
        if not isinstance(here, dict):
            return None
    section: dict[str, Any] = here
    return section


def _translate(
    error: pydantic.ValidationError,
    path: Path,
    document: yaml.Node,
    overridden: Mapping[Location, str],
) -> ConfigurationError:
    problems = describe(error, document, _schema(), overridden)
    return ConfigurationError(str(path), problems, "docs/configuration.md lists every key.")


@functools.cache
def _schema() -> Schema:
    return Settings.model_json_schema()
