"""Questions to Dagster's webserver."""

from __future__ import annotations

from typing import Any

import httpx

from metrics_pipeline.stack.webserver_client import TRUST

TIMEOUT_SECONDS = 30.0


class Unanswered(AssertionError):
    """The webserver answers with an error: as after a restart of its database, once."""


def ask(webserver_url: str, query: str, **variables: Any) -> dict[str, Any]:
    """The `data` of the answer; Unanswered if there is an error in it."""
    body = {"query": query, "variables": variables}
    answer = httpx.post(
        f"{webserver_url}/graphql", json=body, timeout=TIMEOUT_SECONDS, verify=TRUST
    ).json()
    if "errors" in answer:
        raise Unanswered(answer)
    data: dict[str, Any] = answer["data"]
    return data
