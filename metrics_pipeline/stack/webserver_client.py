"""The few questions the stack asks of Dagster's webserver, over its GraphQL API."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from metrics_pipeline.core.errors import MetricsPipelineError

TIMEOUT_SECONDS = 20.0
TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""In nobody, for http:// alone: to read the system's authorities takes 50 ms of CPU a question."""
LOCATION = "metrics_pipeline"
REPOSITORY = "__repository__"

LOCATIONS = """
query { workspaceOrError { ... on Workspace { locationEntries {
  name loadStatus
  locationOrLoadError { __typename ... on PythonError { message } } } } } }
"""
LAUNCH = """
mutation ($location: String!, $repository: String!, $job: String!) {
  launchRun(executionParams: {selector: {
    repositoryLocationName: $location, repositoryName: $repository, jobName: $job}}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message } } }
"""
STATUSES = """
query ($ids: [String!]!) { runsOrError(filter: {runIds: $ids}) { ... on Runs {
  results { runId status } } } }
"""
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class WebserverSilent(MetricsPipelineError):
    """No answer; while the webserver starts this is to be expected."""


@dataclass(frozen=True, slots=True)
class WebserverClient:
    """Talks to the webserver at `url`."""

    url: str

    def is_up(self) -> bool:
        """Whether it answers, and has loaded our definitions; raises if these are broken."""
        try:
            data = self._ask(LOCATIONS, {})
        except WebserverSilent:
            return False
        return any(_is_loaded(entry) for entry in data["workspaceOrError"]["locationEntries"])

    def launch(self, job: str) -> str:
        """Start a run of `job` and return its id."""
        variables = {"location": LOCATION, "repository": REPOSITORY, "job": job}
        answer = self._ask(LAUNCH, variables)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise MetricsPipelineError(
                f"Dagster did not start {job}: {answer['__typename']} {answer.get('message', '')}"
            )
        return str(answer["run"]["runId"])

    def have_ended(self, run_ids: Sequence[str]) -> bool:
        """Whether none of the runs is still on its way; a webserver that is silent cannot tell."""
        try:
            found = self._ask(STATUSES, {"ids": list(run_ids)})["runsOrError"]["results"]
        except WebserverSilent:
            return False
        return all(run["status"] in ENDED for run in found)

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        question = {"query": query, "variables": variables}
        try:
            response = httpx.post(
                f"{self.url}/graphql",
                json=question,
                timeout=TIMEOUT_SECONDS,
                verify=TRUST,
                trust_env=False,  # whatever proxy it names: this is loopback
            )
        except httpx.HTTPError as error:
            raise WebserverSilent(f"{self.url} does not answer: {error}") from error
        if not response.is_success:
            raise MetricsPipelineError(
                f"{self.url} answers {response.status_code}: {response.text}"
            )
        data: dict[str, Any] = response.json()["data"]
        return data


def _is_loaded(entry: dict[str, Any]) -> bool:
    outcome = entry.get("locationOrLoadError") or {}
    if outcome.get("__typename") == "PythonError":
        raise MetricsPipelineError(f"Dagster could not load {entry['name']}: {outcome['message']}")
    return entry["loadStatus"] == "LOADED" and outcome.get("__typename") == "RepositoryLocation"
