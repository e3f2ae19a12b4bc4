"""Asks Dagster's code servers whether they answer, and whether their definitions are whole."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ListRepositoriesResponse
from dagster._serdes import deserialize_value

from metrics_pipeline.core.findings import Finding, unknown, well, wrong
from metrics_pipeline.core.redaction import without_secrets

NAME = "code server"
RUNBOOK = "docs/runbooks/alerts/CodeServerSilent.md"
ASK_SECONDS = 10


def examine_code_servers(workspace: Path) -> Iterator[Finding]:
    """Each gRPC server that the workspace file names."""
    try:
        loaded = yaml.safe_load(workspace.read_text(encoding="utf-8"))
    except FileNotFoundError:
        said = "there is no such file; name that of the daemon with --workspace"
        yield unknown(NAME, str(workspace), said)
        return
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        fix = "Correct it, or name another with --workspace."
        yield wrong(NAME, str(workspace), f"cannot be read ({type(error).__name__})", fix)
        return
    entries = loaded.get("load_from") if isinstance(loaded, dict) else None
    servers = [
        e["grpc_server"] for e in entries or () if isinstance(e, dict) and "grpc_server" in e
    ]
    if not servers:
        said = "it names no gRPC server: each process loads the definitions itself"
        yield unknown(NAME, str(workspace), said)
    for server in servers:
        yield _examine(server)


def _examine(server: Mapping[str, Any]) -> Finding:
    address = f"{server.get('host', 'localhost')}:{server.get('port') or server.get('socket')}"
    client = DagsterGrpcClient(
        port=server.get("port"),
        socket=server.get("socket"),
        host=server.get("host", "localhost"),
        use_ssl=bool(server.get("ssl")),
    )
    try:
        client.get_server_id(timeout=ASK_SECONDS)
        answer = deserialize_value(client.list_repositories())
    except DagsterUserCodeUnreachableError as error:
        cause = error.__cause__ or error
        code = getattr(cause, "code", None)
        said = code().name if callable(code) else type(cause).__name__
        fix = "Start it, or restart it if it hangs: without it nothing is evaluated or started."
        return wrong(NAME, address, f"no answer ({said})", fix, RUNBOOK)
    if isinstance(answer, ListRepositoriesResponse):
        names = ", ".join(each.repository_name for each in answer.repository_symbols)
        return well(NAME, address, f"answers, and has {names}")
    said = f"answers, but could not load its definitions: {_reason(answer)}"
    fix = "Correct the settings (`metrics-pipeline check`), and restart it."
    return wrong(NAME, address, said, fix, RUNBOOK)


def _reason(error: Any) -> str:
    """The first line of what began it, without secrets."""
    while getattr(error, "cause", None) is not None:
        error = error.cause
    lines = without_secrets(str(getattr(error, "message", ""))).strip().splitlines()
    return lines[0] if lines else "no reason told"
