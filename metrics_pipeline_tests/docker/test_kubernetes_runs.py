"""The pods of the cluster as processes here: Dagster's own launcher makes Jobs, and they run.

Code server, webserver and daemon run as their Deployments say, against a real PostgreSQL and an API
on loopback that gives each account what its role does, and starts the pods of Jobs as processes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import kubernetes
import pytest
import sqlalchemy as sa
import yaml
from dagster_k8s.client import DagsterKubernetesClient
from grpc_health.v1 import health_pb2, health_pb2_grpc

from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.telemetry_assets import JOB as TELEMETRY_JOB
from metrics_pipeline.simulators.event_hub.server import EventHubServer, serve_event_hub
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port
from metrics_pipeline.stack.processes import Child, end_all
from metrics_pipeline.stack.webserver_client import ENDED, WebserverClient
from metrics_pipeline.storage.operational import SNAPSHOTS
from metrics_pipeline_tests.docker.cluster_api import NAMESPACE, KubernetesApi, Worker
from metrics_pipeline_tests.docker.cluster_objects import (
    environment,
    mounted_files,
    only_container,
)
from metrics_pipeline_tests.docker.native import (
    BINARIES,
    Container,
    Machine,
    make_secrets,
    prepare_postgresql,
    url_of,
)
from metrics_pipeline_tests.docker.test_kubernetes import CLUSTER, HOME, IMAGE, problems
from metrics_pipeline_tests.orchestration.telemetry_pipeline import DEVICE, uplink
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.postgresql import running_postgresql
from metrics_pipeline_tests.servers import PLAIN_HTTP, victoria_metrics

CONCENTRATORS = "fleet/concentrator_counts"
TOKENS = {"daemon": "the daemon's token", "webserver": "the webserver's token"}
TERMINATE = """
mutation ($id: String!) { terminateRun(runId: $id) { __typename } }
"""


@dataclass(frozen=True, slots=True)
class Pods:
    """Makes pods of this machine from their specifications."""

    machine: Machine
    kubeconfigs: Mapping[str, Path]

    def create(self, name: str, pod: Mapping[str, Any]) -> Container:
        """A pod with what it mounts and nothing else, not started."""
        machine, container = self.machine, only_container(pod)
        service = {"command": container["args"], "environment": self._environment(pod)}
        made = Container(name, service, machine.folder / name, machine.image, machine.here)
        (made.root / "tmp").mkdir(parents=True)
        for path, (kind, config_map, key) in mounted_files(pod).items():
            if kind == "Secret":
                made.put(path, machine.secrets / key)
            elif path != f"{HOME}/dagster.yaml":
                file = machine.folder / f"{config_map}.{key}"
                file.write_text(CLUSTER.file(config_map, key))
                made.put(path, file)
        return made

    def _environment(self, pod: Mapping[str, Any]) -> Mapping[str, str]:
        container = only_container(pod)
        given = dict(environment(container))
        if any("valueFrom" in each for each in container["env"]):
            given["POD_NAMESPACE"] = NAMESPACE
        if pod["automountServiceAccountToken"]:
            given["KUBECONFIG"] = str(self.kubeconfigs[pod["serviceAccountName"]])
        return given

    def start(self, name: str) -> Child:
        """The pod of a Deployment, started."""
        return self.create(name, CLUSTER.pod(name)).start()

    def start_job(self, job: Mapping[str, Any]) -> tuple[subprocess.Popen[bytes], Path]:
        """The pod of a Job, started. What it is to execute is left as it is."""
        name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
        made = self.create(name, pod)
        program, *arguments = only_container(pod)["args"]
        log = self.machine.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [BINARIES / program, *arguments],
                env=dict(made.environment()),
                cwd=made.root / "tmp",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return process, log


@dataclass(frozen=True, slots=True)
class Running:
    """The cluster at work."""

    api: KubernetesApi
    hub: EventHubServer
    pods: Pods
    children: Mapping[str, Child]
    webserver: WebserverClient
    database: sa.Engine

    def wait_until(self, condition: Callable[[], object]) -> None:
        """While the daemon, which has to see to it, runs."""
        self.children["daemon"].wait_until(lambda: bool(condition()), PATIENCE_SECONDS)

    def status(self, run_id: str) -> str:
        """What Dagster's table of runs says of a run; asking the webserver takes far more CPU."""
        with self.database.connect() as connection:
            query = sa.text("SELECT status FROM runs WHERE run_id = :run_id")
            return str(connection.execute(query, {"run_id": run_id}).scalar_one())

    def failed_ticks(self) -> list[str]:
        """What sensors and schedules failed with."""
        with self.database.connect() as connection:
            query = sa.text("SELECT tick_body FROM job_ticks WHERE status = 'FAILURE'")
            return [str(body) for body in connection.execute(query).scalars()]

    def has_ended(self, run_id: str) -> bool:
        """Whether a run is not on its way any more."""
        return self.status(run_id) in ENDED

    def cancel(self, run_id: str) -> str:
        """Cancel a run as the UI does; gives what came of it."""
        question = {"query": TERMINATE, "variables": {"id": run_id}}
        answer = PLAIN_HTTP.post(f"{self.webserver.url}/graphql", json=question, timeout=30)
        return str(answer.raise_for_status().json()["data"]["terminateRun"]["__typename"])

    def workers_of(self, job: str) -> Mapping[str, Worker]:
        """The pods of runs of a job, by run, in the order they came."""
        return {
            worker.run_id: worker
            for worker in list(self.api.workers.values())
            if worker.manifest["metadata"]["labels"]["dagster/job"] == job
        }


def kubeconfig(folder: Path, server: str, account: str) -> Path:
    """How an account reaches the API: in a cluster its token and address are mounted instead."""
    one = {"name": "here"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{**one, "cluster": {"server": server}}],
        "users": [{**one, "user": {"token": TOKENS[account]}}],
        "contexts": [{**one, "context": {"cluster": "here", "user": "here"}}],
        "current-context": "here",
    }
    file = folder / f"{account}.kubeconfig"
    file.write_text(yaml.safe_dump(content))
    return file


def put_instance(machine: Machine) -> None:
    """dagster.yaml as in the cluster, but for the way to the API."""
    text = CLUSTER.file("dagster-instance", "dagster.yaml")
    changed = text.replace(
        "    job_namespace:", "    load_incluster_config: false\n    job_namespace:"
    )
    assert changed != text
    (machine.image / HOME.lstrip("/") / "dagster.yaml").write_text(changed)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        hub = stack.enter_context(serve_event_hub(consumer_groups=["metrics"]))
        hub.append(uplink(7), partition="0", annotations=DEVICE)
        secrets = make_secrets(
            folder / "secrets",
            iot_hub_connection_string="not a connection string",
            event_hub_connection_string=hub.connection_string,
        )
        postgresql = stack.enter_context(running_postgresql())
        store_url = stack.enter_context(victoria_metrics(folder / "store"))
        prepare_postgresql(postgresql, secrets)
        ports = {port: str(find_free_port()) for port in ("3000", "4000")}
        here = {
            r"\bpostgres:5432\b": f"{LOOPBACK}:{postgresql.port}",
            r"http://influxdb:8086\b": store_url,
            r"\bhost: code-server\b": f"host: {LOOPBACK}",
            r"\b0\.0\.0\.0\b": LOOPBACK,
            **{rf"\b{port}\b": free for port, free in ports.items()},
        }
        machine = Machine(folder, secrets, here)
        machine.build()
        put_instance(machine)
        pods = Pods(machine, {account: folder / f"{account}.kubeconfig" for account in TOKENS})
        api = stack.enter_context(KubernetesApi(CLUSTER, TOKENS, pods.start_job, problems))
        for account in TOKENS:
            kubeconfig(folder, f"http://{api.host}", account)
        children: dict[str, Child] = {}
        stack.callback(end_workers, api)
        stack.callback(lambda: end_all(list(children.values())))
        database = sa.create_engine(url_of(postgresql, secrets))
        stack.callback(database.dispose)
        address = f"{LOOPBACK}:{ports['4000']}"
        children["code-server"] = pods.start("code-server")
        children["code-server"].wait_until(lambda: is_serving(address), PATIENCE_SECONDS)
        for name in ("webserver", "daemon"):
            children[name] = pods.start(name)
        webserver = WebserverClient(f"http://{LOOPBACK}:{ports['3000']}")
        children["webserver"].wait_until(webserver.is_up, PATIENCE_SECONDS)
        yield Running(api, hub, pods, children, webserver, database)


def end_workers(api: KubernetesApi) -> None:
    """Leave no pod of a run."""
    for worker in api.workers.values():
        worker.end()


def is_serving(address: str) -> bool:
    """What the kubelet asks for a gRPC probe."""
    service = CLUSTER.container("code-server")["livenessProbe"]["grpc"]["service"]
    with grpc.insecure_channel(address) as channel:
        question = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(question, timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def stored_assets(database: sa.Engine) -> set[str]:
    """What the runs have published."""
    with database.connect() as connection:
        return set(connection.execute(sa.select(SNAPSHOTS.c.asset)).scalars())


def check_job(job: Mapping[str, Any]) -> None:
    """A run has what the code server has, may do nothing in the cluster, and is cleared away.

    But for the workspace, which the doctor alone reads.
    """
    pod, server = job["spec"]["template"]["spec"], CLUSTER.pod("code-server")
    container, labels = only_container(pod), job["spec"]["template"]["metadata"]["labels"]
    assert container["image"] == IMAGE
    there = mounted_files(server)
    assert there.pop(f"{HOME}/workspace.yaml") == ("ConfigMap", "workspace", "workspace.yaml")
    assert mounted_files(pod) == there
    assert pod["volumes"] == [each for each in server["volumes"] if each["name"] != "workspace"]
    assert environment(server_variables()).items() <= environment(container).items()
    assert container["securityContext"] == only_container(server)["securityContext"]
    assert pod["securityContext"] == server["securityContext"]
    assert pod["serviceAccountName"] in CLUSTER.of("ServiceAccount")
    assert CLUSTER.rights(pod["serviceAccountName"]) == set()
    assert pod["automountServiceAccountToken"] is False
    assert pod["restartPolicy"] == "Never"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert set(container["resources"]["limits"]) == {"memory"}
    assert labels["app.kubernetes.io/name"] == "run"
    assert job["metadata"]["labels"]["app.kubernetes.io/name"] == "run"  # by which it is deleted
    assert labels["app.kubernetes.io/part-of"] == "metrics-pipeline"


def server_variables() -> Mapping[str, Any]:
    """The code server's container with only those variables that its runs need too."""
    variables = CLUSTER.container("code-server")["env"]
    return {"env": [each for each in variables if each["name"] != "DAGSTER_CURRENT_IMAGE"]}


def check_rights(running: Running, folder: Path) -> None:
    """Each account used what its role allows, all of it, and was refused nothing.

    What the launcher asks of a run that never started, or did not end when told to, is asked here
    in the daemon's name: that takes minutes.
    """
    configuration = kubernetes.client.Configuration()
    file = kubeconfig(folder, f"http://{running.api.host}", "daemon")
    kubernetes.config.load_kube_config(str(file), client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as client:
        asking = DagsterKubernetesClient.production_client(  # type: ignore[no-untyped-call]
            kubernetes.client.BatchV1Api(client), kubernetes.client.CoreV1Api(client)
        )
        workers = dict(running.api.workers)
        name = next(name for name, worker in workers.items() if worker.has_pod)
        gone = next(name for name, worker in workers.items() if not worker.has_pod)
        assert "Last 25 log lines" in asking.get_pod_debug_info(name, NAMESPACE)
        assert "Could not find job" in asking.get_job_debug_info(gone, NAMESPACE)
        assert asking.delete_job(name, NAMESPACE) is True
    used = {
        account: {r for who, r in running.api.asked.allowed if who == account} for account in TOKENS
    }
    assert running.api.asked.refused == []
    assert used == {account: CLUSTER.rights(account) for account in TOKENS}


def written(machine: Machine) -> set[str]:
    """What is below /var/lib, where nobody may write in a cluster."""
    files = (path for path in machine.image.rglob("*") if path.is_file())
    return {f"/{path.relative_to(machine.image)}" for path in files}


@pytest.mark.timeout(6 * PATIENCE_SECONDS)
def test_runs_are_jobs_that_live_die_and_are_cancelled(running: Running, tmp_path: Path) -> None:
    """One test, because starting is what takes the time."""
    run_id = running.webserver.launch(JOB)
    running.wait_until(lambda: running.has_ended(run_id))
    counted = running.workers_of(JOB)[run_id]
    assert running.api.rejected == []
    assert counted.process.wait(PATIENCE_SECONDS) == 0
    assert CONCENTRATORS in stored_assets(running.database)

    # The sensor has seen the hub's uplink. Its run dies with its node, and is followed by another.
    running.wait_until(lambda: running.workers_of(TELEMETRY_JOB))
    ((killed_id, killed),) = running.workers_of(TELEMETRY_JOB).items()
    running.wait_until(lambda: running.status(killed_id) == "STARTED")
    killed.kill()
    running.wait_until(lambda: running.status(killed_id) == "FAILURE")

    # Its follower is cancelled in the UI.
    running.hub.append(uplink(8), partition="1", annotations=DEVICE)
    running.wait_until(lambda: len(running.workers_of(TELEMETRY_JOB)) > 1)
    _, (cancelled_id, cancelled) = running.workers_of(TELEMETRY_JOB).items()
    running.wait_until(lambda: running.status(cancelled_id) == "STARTED")
    assert running.cancel(cancelled_id) == "TerminateRunSuccess"
    running.wait_until(lambda: running.status(cancelled_id) == "CANCELED")
    cancelled.process.wait(PATIENCE_SECONDS)
    assert not cancelled.has_job
    assert not cancelled.has_pod

    # Sensors asked meanwhile whether a run is on its way, in a pod that may not see the cluster.
    assert running.failed_ticks() == []
    for job in running.api.workers.values():
        check_job(job.manifest)
    check_rights(running, folder=tmp_path)
    assert written(running.pods.machine) == {f"{HOME}/dagster.yaml"}
