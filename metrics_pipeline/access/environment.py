"""The environment variables every process of ours reads, and what they say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from metrics_pipeline.access.whole_file import write_whole
from metrics_pipeline.core.errors import ConfigurationError

SETTINGS_VARIABLE = "METRICS_PIPELINE_SETTINGS"
STATE_DIR_VARIABLE = "METRICS_PIPELINE_STATE_DIR"
DAGSTER_POSTGRES_VARIABLE = "DAGSTER_POSTGRES_URL"
DAGSTER_POSTGRES_FILE_VARIABLE = "DAGSTER_POSTGRES_URL_FILE"
DEFAULT_STATE_DIR = ".state"


def default_settings_file() -> Path:
    """The commented settings that ship with the package."""
    return Path(str(resources.files("metrics_pipeline") / "default_settings.yaml"))


def settings_file() -> Path:
    """The settings file the environment names, absolute; else the one that ships."""
    named = os.environ.get(SETTINGS_VARIABLE)
    return Path(named).absolute() if named else default_settings_file()


def state_dir() -> Path:
    """Where everything this installation writes is, absolute."""
    return Path(os.environ.get(STATE_DIR_VARIABLE) or DEFAULT_STATE_DIR).absolute()


def make_dagster_home(state: Path) -> Path:
    """Dagster's folder below the state directory, with the `dagster.yaml` that ships.

    That is whole at any moment: a process that reads nothing in it takes all that Dagster does by
    default, another storage too, and does not say so.
    """
    home = state / "dagster"
    packaged = (resources.files("metrics_pipeline") / "dagster.yaml").read_bytes()
    file = home / "dagster.yaml"
    if not file.is_file() or file.read_bytes() != packaged:
        write_whole(file, packaged)
    return home


def postgres_url(environment: Mapping[str, str]) -> str | None:
    """The URL of Dagster's PostgreSQL, or None where the environment names none.

    Raises ConfigurationError if a variable names a file that cannot be read.
    """
    if file := environment.get(DAGSTER_POSTGRES_FILE_VARIABLE):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(
                DAGSTER_POSTGRES_FILE_VARIABLE,
                f"{file} cannot be read ({error.strerror})",
                "Create it.",
            ) from error
    return environment.get(DAGSTER_POSTGRES_VARIABLE) or None


def past_proxies(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Variables for gRPC and others who would ask a proxy for what is on loopback."""
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if given.strip() == "*":
        return {}
    direct = ",".join(filter(None, (given, "localhost", "127.0.0.1", "::1")))
    return {"no_proxy": direct, "NO_PROXY": direct}
