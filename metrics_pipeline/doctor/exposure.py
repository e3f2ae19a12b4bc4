"""Who else gets in: files with secrets that others may read, addresses that others may reach."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from metrics_pipeline.access.database_trust import FIX, PROBLEM, find_unverified
from metrics_pipeline.access.environment import DAGSTER_POSTGRES_FILE_VARIABLE
from metrics_pipeline.access.http_server import find_clear_text
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.access.settings_parts import parts_of
from metrics_pipeline.core.findings import Finding, warning, well, wrong
from metrics_pipeline.settings import ExporterSettings, GatewaySettings, Settings
from metrics_pipeline.storage.influx import CLEAR_FIX, CLEAR_PROBLEM, InfluxStoreSettings

SECRET_FILES = frozenset({"key_file", "robot_tokens_file", "connection_string_file"})
"""Keys of the settings whose files hold secrets themselves."""

NAME = "secret files"
SHOWN = 3


def examine_exposure(
    settings: Settings, environment: Mapping[str, str] = os.environ
) -> list[Finding]:
    """Of the settings, and of the files they name."""
    files = dict(secret_files(settings))
    if named := environment.get(DAGSTER_POSTGRES_FILE_VARIABLE):
        files[DAGSTER_POSTGRES_FILE_VARIABLE] = Path(named)
    return [
        *_examine_files(files),
        *_examine_certificates(settings, environment),
        *_examine_exporter(settings),
        *_examine_gateway(settings),
    ]


def secret_files(settings: BaseModel) -> Iterator[tuple[str, Path]]:
    """Each file with a secret that the settings name, by its key."""
    for key, part in parts_of(settings):
        if isinstance(part, SecretReference) and part.file is not None:
            yield key, part.file
        elif isinstance(part, Path) and key.rpartition(".")[2] in SECRET_FILES:
            yield key, part


def _examine_files(files: Mapping[str, Path]) -> Iterator[Finding]:
    closed, missing = [], []
    for key, file in files.items():
        try:
            found = file.stat()
        except OSError as error:
            missing.append(f"{key}: {file} ({error.strerror})")
            continue
        if may := _open_to_all(file, found):
            fix = f"chmod o-rwx {file}"
            yield wrong(NAME, f"{key}: {file}", f"everybody on this machine may {may} it", fix)
        else:
            closed.append(key)
    if missing:
        said = f"{len(missing)} cannot be read: {'; '.join(missing[:SHOWN])}"
        more = f"; and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        fix = "Create them, or correct the settings; those of the simulator are made by `make run`."
        yield wrong(NAME, "the settings", said + more, fix)
    if closed:
        yield well(NAME, ", ".join(closed), "none is for everybody on this machine")


def _open_to_all(file: Path, found: os.stat_result) -> str:
    """What everybody may do with it: "read" or "change"; "" for nothing.

    Who may not enter a folder above it reaches no file in it, whatever the file's own rights.
    """
    mode = found.st_mode
    reached = all(folder.stat().st_mode & stat.S_IXOTH for folder in file.resolve().parents)
    if not (stat.S_ISREG(mode) and reached):
        return ""
    if mode & stat.S_IROTH and not _is_handed_in(file, found):
        return "read"
    return "change" if mode & stat.S_IWOTH else ""


def _is_handed_in(file: Path, found: os.stat_result) -> bool:
    """Mounted read-only, and another user's, as Compose mounts a secret: all in a container have
    one user, who has to read it."""
    is_read_only = os.statvfs(file).f_flag & os.ST_RDONLY
    return bool(is_read_only) and found.st_uid != os.geteuid()


def _examine_certificates(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    if unverified := find_unverified(settings, environment):
        yield warning("TLS to PostgreSQL", ", ".join(unverified), PROBLEM, FIX, "SECURITY.md")
    store = settings.store
    if isinstance(store, InfluxStoreSettings) and store.shows_token:
        yield warning("TLS to InfluxDB", store.url, CLEAR_PROBLEM, CLEAR_FIX, "SECURITY.md")


def _examine_exporter(settings: Settings) -> Iterator[Finding]:
    exporter = settings.exporter
    if exporter.is_public and not exporter.asks_who:
        lacks = "a password or token" if exporter.is_covered else "TLS and a password or token"
        yield warning(
            "exporter's address",
            f"{exporter.host}:{exporter.port}",
            f"other machines reach it, without {lacks}",
            "Set exporter.tls and exporter.basic_auth or exporter.bearer_token, or keep it behind "
            "a firewall.",
            "SECURITY.md",
        )
    else:
        yield _examine_address("exporter", exporter)


def _examine_gateway(settings: Settings) -> Iterator[Finding]:
    if settings.gateway is not None:
        yield _examine_address("gateway", settings.gateway)


def _examine_address(section: str, server: ExporterSettings | GatewaySettings) -> Finding:
    name, address = f"{section}'s address", f"{server.host}:{server.port}"
    if clear := find_clear_text(section, server):
        return wrong(name, address, clear.problem, clear.fix, "SECURITY.md")
    if not server.is_public:
        return well(name, address, "loopback")
    how = "with TLS" if server.tls else "with TLS that ends in front of it, as the settings say"
    return well(name, address, f"other machines reach it, {how}, and show a password or token")
