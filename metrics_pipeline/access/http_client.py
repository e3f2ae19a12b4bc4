"""What sources over HTTP share: settings, a client with its trust, and JSON in replies."""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, Field

from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.core.errors import ConfigurationError, UnexpectedReply

# None: straight there, whatever proxy the environment names.
DIRECT: Mapping[str, None] = {"all://127.0.0.1": None, "all://[::1]": None, "all://localhost": None}


class HttpSettings(BaseModel, frozen=True, extra="forbid"):
    """How long a service may take, how often it is asked again, and who vouches for it."""

    request_timeout_seconds: float = Field(
        default=10, gt=0, le=60, description="Seconds one request may take in all."
    )
    deadline_seconds: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="Seconds all requests of one reading may take, with waits. An asset is one "
        "reading, and all readings of a run must fit into the job's max_runtime_seconds.",
    )
    tries: int = Field(
        default=4, ge=1, le=10, description="Tries of a request that fails for the moment."
    )
    ca_file: StatePath | None = Field(
        default=None,
        description="A PEM file of the certificate authorities to trust, instead of the usual.",
    )


def open_client(ca_file: Path | None, where: str, auth: httpx.Auth | None = None) -> httpx.Client:
    """A client that trusts the authorities in `ca_file`, or the usual ones; connects at first use.

    `auth` signs its requests. Raises ConfigurationError, which says `where` the file is named, if
    it is no such file.
    """
    trusted = _usual_authorities() if ca_file is None else _authorities(ca_file, where)
    return httpx.Client(mounts=DIRECT, verify=trusted, auth=auth)


def parse_json(body: bytes, source: str, target: str) -> Any:
    """The document in `body`, or UnexpectedReply."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UnexpectedReply(source, target, "the reply is not JSON", body) from None


@functools.cache
def _usual_authorities() -> ssl.SSLContext:
    # Once a process, for reading them takes longer than most requests.
    return httpx.create_ssl_context()


def _authorities(ca_file: Path, where: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            where,
            f"{ca_file} cannot be used ({error.__class__.__name__})",
            "Give a readable PEM file of certificates.",
        ) from error
