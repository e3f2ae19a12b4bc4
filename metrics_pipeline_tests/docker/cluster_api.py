"""A Kubernetes API on loopback: what Dagster's run launcher asks of one, and no more.

Who asks is told by a token, may do what the manifests' roles say and is refused everything else, as
in a cluster. A Job that is created must follow Kubernetes' schema; then its pod is a process here.
Nothing else of Kubernetes is in it: no scheduler, no second try, no events.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request
from metrics_pipeline_tests.docker.cluster_objects import Cluster, only_container

NAMESPACE = "metrics-pipeline"
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>batch)/v1)/namespaces/(?P<namespace>[\w-]+)/(?P<resource>\w+)"
    r"(?:/(?P<name>[\w-]+)(?:/(?P<sub>\w+))?)?"
)
STARTED = "2026-11-21T12:00:00Z"
FORBIDDEN, CONFLICT = HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT
NOT_FOUND, INVALID = HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY

Right = tuple[str, str, str]
"""API group, resource and verb."""


@dataclass(slots=True)
class Worker:
    """A Job, and the process that is its pod."""

    manifest: Mapping[str, Any]
    process: subprocess.Popen[bytes]
    log: Path
    has_job: bool = True
    has_pod: bool = True

    @property
    def run_id(self) -> str:
        """The run that it is of."""
        return str(self.manifest["metadata"]["labels"]["dagster/run-id"])

    @property
    def pod(self) -> Mapping[str, Any]:
        """The specification of the pod."""
        spec: Mapping[str, Any] = self.manifest["spec"]["template"]["spec"]
        return spec

    def status(self) -> Mapping[str, Any]:
        """The status of the Job."""
        code = self.process.poll()
        if code is None:
            return {"startTime": STARTED, "active": 1}
        return {"startTime": STARTED, "succeeded" if code == 0 else "failed": 1}

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to all processes of the pod."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def end(self) -> None:
        """Leave nothing of it running."""
        self.kill()
        self.process.wait()


@dataclass(slots=True)
class Asked:
    """What was asked: by whom, for what, and whether it was allowed."""

    allowed: set[tuple[str, Right]] = field(default_factory=set)
    refused: list[tuple[str, Right]] = field(default_factory=list)


class KubernetesApi(LoopbackServer):
    """`start` makes the pod of a Job, and gives its process and log."""

    def __init__(
        self,
        cluster: Cluster,
        tokens: Mapping[str, str],
        start: Callable[[Mapping[str, Any]], tuple[subprocess.Popen[bytes], Path]],
        problems: Callable[[Mapping[str, Any]], list[str]],
    ) -> None:
        super().__init__()
        self.asked = Asked()
        self.workers: dict[str, Worker] = {}
        self.rejected: list[str] = []
        self._cluster = cluster
        self._accounts = {f"Bearer {token}": account for account, token in tokens.items()}
        self._start = start
        self._problems = problems

    def respond(self, request: Request) -> Answer:
        """The answer of an API server."""
        account = self._accounts.get(request.headers.get("authorization", ""))
        found = PATH.fullmatch(request.path)
        if account is None or found is None or found["namespace"] != NAMESPACE:
            return failure(HTTPStatus.UNAUTHORIZED if account is None else NOT_FOUND)
        right = right_for(request.method, found)
        if right not in self._cluster.rights(account):
            self.asked.refused.append((account, right))
            return failure(FORBIDDEN)
        self.asked.allowed.add((account, right))
        return self._carry_out(right, found["name"] or "", request)

    def _carry_out(self, right: Right, name: str, request: Request) -> Answer:
        match right[1:]:
            case ("jobs", "create"):
                return self._create(json.loads(request.body))
            case ("jobs" | "pods", "delete"):
                return self._delete(right[1], name)
            case ("jobs" | "pods", "list"):
                return self._list(right[1], request)
            case ("events", "list"):
                return success({"items": []})
        return self._show(right[1], name)

    def _list(self, resource: str, request: Request) -> Answer:
        show = job_of if resource == "jobs" else pod_of
        return success({"items": [show(each) for each in self._selected(resource, request)]})

    def _show(self, resource: str, name: str) -> Answer:
        """What there is to say of one Job, or of its pod."""
        worker = self._find(resource, name)
        if worker is None:
            return failure(NOT_FOUND)
        if resource == "pods/log":
            return Answer(HTTPStatus.OK, worker.log.read_bytes())
        return success(job_of(worker))

    def _selected(self, resource: str, request: Request) -> list[Worker]:
        """The workers that the request's selector names, by the Job's name or the pod's."""
        selector = request.parameters.get("labelSelector") or request.parameters["fieldSelector"]
        worker = self._find(resource, selector.partition("=")[2])
        return [] if worker is None else [worker]

    def _find(self, resource: str, name: str) -> Worker | None:
        """A worker whose Job, or pod, has not been deleted."""
        worker = self.workers.get(name)
        if worker is None:
            return None
        is_there = worker.has_job if resource.startswith("jobs") else worker.has_pod
        return worker if is_there else None

    def _create(self, manifest: Mapping[str, Any]) -> Answer:
        name = manifest["metadata"]["name"]
        if name in self.workers:
            return failure(CONFLICT)
        problems = self._problems(manifest)
        if problems:
            self.rejected += problems
            return failure(INVALID)
        worker = Worker(manifest, *self._start(manifest))
        self.workers[name] = worker
        return success(job_of(worker), HTTPStatus.CREATED)

    def _delete(self, resource: str, name: str) -> Answer:
        """A Job leaves its pod behind, unless one asks for more; a pod is told to end."""
        worker = self._find(resource, name)
        if worker is None:
            return failure(NOT_FOUND)
        if resource == "jobs":
            worker.has_job = False
        else:
            worker.has_pod = False
            worker.kill(signal.SIGTERM)
        return success({"kind": "Status", "apiVersion": "v1", "status": "Success"})


def right_for(method: str, found: re.Match[str]) -> Right:
    """What a request asks for, in the words of a role."""
    resource = f"{found['resource']}/{found['sub']}" if found["sub"] else found["resource"]
    reading = "get" if found["name"] else "list"
    verb = {"POST": "create", "DELETE": "delete", "GET": reading}[method]
    return found["group"] or "", resource, verb


def job_of(worker: Worker) -> Mapping[str, Any]:
    """The Job as the API shows it."""
    return {**worker.manifest, "status": worker.status()}


def pod_of(worker: Worker) -> Mapping[str, Any]:
    """The pod as the API shows it; it is called like its Job."""
    container = only_container(worker.pod)
    code = worker.process.poll()
    state: Mapping[str, Any] = {"running": {"startedAt": STARTED}}
    if code is not None:
        state = {"terminated": {"exitCode": abs(code), "reason": "Error" if code else "Completed"}}
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": container["image"],
        "ready": code is None,
        "restartCount": 0,
        "state": state,
    }
    phase = "Running" if code is None else "Failed" if code else "Succeeded"
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": worker.manifest["metadata"],
        "spec": worker.pod,
        "status": {"phase": phase, "containerStatuses": [status]},
    }


def success(body: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"content-type": "application/json"})


def failure(status: HTTPStatus) -> Answer:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": status.phrase}
    return success({**body, "code": status}, status)
