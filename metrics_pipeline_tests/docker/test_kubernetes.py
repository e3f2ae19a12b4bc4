"""docker/kustomization.yaml: valid, hardened, and of one piece with compose.yaml and the image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from metrics_pipeline import __version__
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.sources.inventory import InventorySettings
from metrics_pipeline.storage.influx import InfluxStoreSettings
from metrics_pipeline_tests.docker.cluster_objects import (
    SECRET_KEYS,
    Cluster,
    environment,
    mounted_files,
    render,
)
from metrics_pipeline_tests.docker.container_files import (
    DOCKER,
    OURS,
    REPOSITORY,
    SERVICES,
    bind_mounts,
    image_environment,
    last_stage,
)
from metrics_pipeline_tests.docker.prometheus_rule import RULES
from metrics_pipeline_tests.docker.prometheus_rule import render as render_rules

FOLDER = Path(__file__).parent
CLUSTER = Cluster(render(DOCKER))
MONITORING = Cluster(render(DOCKER / "kubernetes" / "monitoring"))
KUBERNETES = json.loads((FOLDER / "kubernetes.schema.json").read_text())
OPERATOR = json.loads((FOLDER / "prometheus_operator.schema.json").read_text())
INSTANCE = yaml.safe_load(CLUSTER.file("dagster-instance", "dagster.yaml"))
SHIPPED_INSTANCE = yaml.safe_load((REPOSITORY / "metrics_pipeline" / "dagster.yaml").read_text())
HOME = image_environment()["DAGSTER_HOME"]
SECRETS = "/run/secrets/"
IMAGE = f"metrics-pipeline:{__version__}"
OF_THE_CLUSTER = {"DAGSTER_CURRENT_IMAGE", "POD_NAMESPACE"}
"""Variables that compose.yaml has no use for."""
OTHER_COMMANDS = {
    "code-server": [
        "metrics-pipeline",
        "code-server",
        "--host",
        "0.0.0.0",
        "--port",
        "4000",
        "--runs-elsewhere",
    ]
}
"""Of containers. Runs are pods of their own there, so nothing is kept to fork them from."""

OUTAGE_SECONDS = 900
"""Of PostgreSQL: a failover, or a new version, is over by then."""
ADDED_BY_THE_OPERATOR = {"namespace", "service", "pod", "container", "endpoint", "job", "instance"}
"""Labels of a target that a ServiceMonitor finds, so documented by the Prometheus operator."""

each_of_ours = pytest.mark.parametrize("name", OURS)


def problems(instance: Mapping[str, Any]) -> list[str]:
    """What the schema of its kind has against an object."""
    if instance["apiVersion"].startswith("monitoring.coreos.com/"):
        schema = {**OPERATOR, "$ref": f"#/$defs/{instance['kind']}"}
    else:
        schema = {**KUBERNETES, "$ref": f"#/$defs/{definition_of(instance)}"}
    found = jsonschema.Draft202012Validator(schema).iter_errors(instance)
    return [f"{problem.json_path}: {problem.message}" for problem in found]


def definition_of(instance: Mapping[str, Any]) -> str:
    """The name of the definition of an object's kind."""
    group, _, version = instance["apiVersion"].rpartition("/")
    kind = {"group": group, "version": version, "kind": instance["kind"]}
    (name,) = (
        name
        for name, definition in KUBERNETES["$defs"].items()
        if kind in definition.get("x-kubernetes-group-version-kind", [])
    )
    return str(name)


def named(instance: Mapping[str, Any]) -> str:
    return f"{instance['kind']} {instance['metadata']['name']}"


@pytest.mark.parametrize("instance", [*CLUSTER.objects, *MONITORING.objects], ids=named)
def test_an_object_is_what_kubernetes_says_its_kind_is(instance: Mapping[str, Any]) -> None:
    assert problems(instance) == []
    if instance["kind"] != "Namespace":
        assert instance["metadata"]["namespace"] == "metrics-pipeline"


@pytest.mark.parametrize(
    ("instance", "key"),
    [
        (CLUSTER.of("Deployment")["exporter"], "replica"),
        (CLUSTER.of("NetworkPolicy")["to-the-exporter"], "egres"),
        (MONITORING.of("ServiceMonitor")["exporter"], "endpoint"),
    ],
)
def test_the_schemas_refuse_a_key_that_does_not_exist(
    instance: Mapping[str, Any], key: str
) -> None:
    broken = {**instance, "spec": {**instance["spec"], key: 1}}
    assert any(key in problem for problem in problems(broken))


def test_the_schema_refuses_a_value_of_another_type() -> None:
    deployment = CLUSTER.of("Deployment")["exporter"]
    broken = {**deployment, "spec": {**deployment["spec"], "replicas": "one"}}
    assert any("replicas" in problem for problem in problems(broken))


def test_there_is_what_compose_makes_of_the_image() -> None:
    assert set(CLUSTER.of("Deployment")) == set(OURS)
    assert all(each["spec"]["replicas"] == 1 for each in CLUSTER.of("Deployment").values())


@each_of_ours
def test_a_container_runs_what_it_runs_in_compose(name: str) -> None:
    container, service = CLUSTER.container(name), SERVICES[name]
    assert container["image"] == service["image"] == IMAGE
    assert container["args"] == OTHER_COMMANDS.get(name, service["command"])
    assert "command" not in container
    variables, same_there = container.get("env", []), service.get("environment", {})
    given = {each["name"] for each in variables}
    same = environment({"env": [e for e in variables if e["name"] not in OF_THE_CLUSTER]})
    assert same == same_there
    assert given - OF_THE_CLUSTER == set(same_there)


@each_of_ours
def test_a_container_has_the_files_and_secrets_that_it_has_in_compose(name: str) -> None:
    files = mounted_files(CLUSTER.pod(name))
    secrets = {path: of for path, of in files.items() if path.startswith(SECRETS)}
    assert secrets == {
        f"{SECRETS}{each}": ("Secret", "metrics-pipeline", each)
        for each in SERVICES[name]["secrets"]
    }
    others = {
        path: CLUSTER.file(config_map, key)
        for path, (kind, config_map, key) in files.items()
        if kind == "ConfigMap"
    }
    knows_dagster = "environment" in SERVICES[name]
    assert (others.pop(f"{HOME}/dagster.yaml", None) is not None) is knows_dagster
    assert others == {p: file.read_text() for p, file in bind_mounts(SERVICES[name]).items()}


@each_of_ours
def test_a_pod_sees_no_secret_that_it_does_not_mount(name: str) -> None:
    pod = CLUSTER.pod(name)
    (secret,) = (v["secret"] for v in pod["volumes"] if "secret" in v)
    assert secret["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    if name == "code-server":  # it has all of it, so that a further key is there too
        assert "items" not in secret
        assert sorted(SERVICES[name]["secrets"]) == SECRET_KEYS
        return
    assert [item["key"] for item in secret["items"]] == SERVICES[name]["secrets"]
    assert all(item["key"] == item["path"] for item in secret["items"])


@each_of_ours
def test_a_secret_that_is_changed_or_added_reaches_who_has_no_token(name: str) -> None:
    """What is mounted by subPath stays as it was; a folder there hides an account's token."""
    mounts = CLUSTER.container(name)["volumeMounts"]
    of_secrets = [mount for mount in mounts if mount["name"] == "secrets"]
    assert all("subPath" in mount for mount in of_secrets) is bool(CLUSTER.rights(name))
    if not CLUSTER.rights(name):
        assert [mount["mountPath"] for mount in of_secrets] == [SECRETS.rstrip("/")]


def test_runs_have_the_secrets_of_the_code_server_in_the_same_folder() -> None:
    """And all else that it has, but for what only the doctor reads there."""
    launcher, server = INSTANCE["run_launcher"]["config"], CLUSTER.pod("code-server")
    assert launcher["volumes"] == [v for v in server["volumes"] if v["name"] != "workspace"]
    mounts = CLUSTER.container("code-server")["volumeMounts"]
    assert launcher["volume_mounts"] == [m for m in mounts if m["name"] != "workspace"]


def test_a_robot_gateway_without_its_secret_says_so_itself() -> None:
    (secret,) = (v["secret"] for v in CLUSTER.pod("gateway")["volumes"] if "secret" in v)
    assert secret["optional"] is True


def test_the_daemon_is_not_restarted_for_an_outage_of_its_database() -> None:
    probe = CLUSTER.container("daemon")["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= OUTAGE_SECONDS


def test_who_is_asked_to_ping_may_do_so() -> None:
    """`metrics-pipeline check` and `devices probe` are typed in the code server."""
    runs = INSTANCE["run_launcher"]["config"]["run_k8s_config"]["pod_spec_config"]
    pings = CLUSTER.pod("code-server")["securityContext"]["sysctls"]
    assert pings == runs["security_context"]["sysctls"]
    assert [each["name"] for each in pings] == ["net.ipv4.ping_group_range"]


@each_of_ours
def test_a_pod_is_hardened(name: str) -> None:
    pod, container = CLUSTER.pod(name), CLUSTER.container(name)
    (user,) = (words[0] for instruction, words in last_stage() if instruction == "USER")
    security = pod["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert pod["enableServiceLinks"] is False


@each_of_ours
def test_a_container_can_write_to_nothing_but_its_temporary_folder(name: str) -> None:
    mounts = CLUSTER.container(name)["volumeMounts"]
    writable = [mount for mount in mounts if not mount.get("readOnly")]
    assert [mount["mountPath"] for mount in writable] == ["/tmp"]
    (volume,) = (v for v in CLUSTER.pod(name)["volumes"] if v["name"] == writable[0]["name"])
    assert "emptyDir" in volume
    assert {v["name"] for v in CLUSTER.pod(name)["volumes"]} == {m["name"] for m in mounts}


@each_of_ours
def test_memory_is_bounded_and_processors_are_not(name: str) -> None:
    resources = CLUSTER.container(name)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}
    if name != "code-server":  # in compose the runs are in it
        assert resources["limits"]["memory"] == f"{SERVICES[name]['mem_limit']}i".replace("m", "M")


def probes(name: str) -> Iterator[Mapping[str, Any]]:
    container = CLUSTER.container(name)
    return (container[kind] for kind in container if kind.endswith("Probe"))


@each_of_ours
def test_probes_ask_a_port_that_is_there(name: str) -> None:
    assert {"startupProbe", "livenessProbe"} <= set(CLUSTER.container(name))
    ports = {p["name"]: p["containerPort"] for p in CLUSTER.container(name).get("ports", ())}
    for probe in probes(name):
        if "httpGet" in probe:
            assert probe["httpGet"]["port"] in ports
        elif "grpc" in probe:
            assert probe["grpc"]["port"] in ports.values()
        else:
            assert probe["exec"]["command"] == SERVICES[name]["healthcheck"]["test"][1:]


@each_of_ours
def test_nobody_is_killed_before_two_minutes_have_passed_or_ready_before_it_is_well(
    name: str,
) -> None:
    start = CLUSTER.container(name)["startupProbe"]
    allowed = SERVICES[name]["healthcheck"]["start_period"].removesuffix("s")
    assert start["periodSeconds"] * start["failureThreshold"] >= int(allowed)
    has_port = "ports" in CLUSTER.container(name)
    assert ("readinessProbe" in CLUSTER.container(name)) == has_port


def test_a_service_leads_to_a_port_of_its_pods() -> None:
    of_ours = {n: s for n, s in CLUSTER.of("Service").items() if "selector" in s["spec"]}
    assert set(of_ours) == {name for name in OURS if "ports" in CLUSTER.container(name)}
    for name, service in of_ours.items():
        template = CLUSTER.of("Deployment")[name]["spec"]["template"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        (port,) = service["spec"]["ports"]
        ports = {p["name"]: p["containerPort"] for p in CLUSTER.container(name)["ports"]}
        assert ports[port["targetPort"]] == port["port"]


def test_addresses_in_settings_and_workspace_are_services() -> None:
    settings = yaml.safe_load(CLUSTER.file("settings", "settings.yaml"))
    workspace = yaml.safe_load(CLUSTER.file("workspace", "workspace.yaml"))
    server = workspace["load_from"][0]["grpc_server"]
    services = CLUSTER.of("Service")
    assert services[server["host"]]["spec"]["ports"][0]["port"] == server["port"]
    assert services["exporter"]["spec"]["ports"][0]["port"] == settings["exporter"]["port"]
    assert settings["operational_database"]["url"].endswith("@postgres:5432/metrics")
    assert settings["store"]["url"] == "http://influxdb:8086"
    elsewhere = {n for n, s in services.items() if s["spec"].get("type") == "ExternalName"}
    assert elsewhere == {"postgres", "influxdb"}


def test_the_settings_keep_nothing_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFLUXDB_URL", raising=False)
    file = tmp_path / "settings.yaml"
    file.write_text(CLUSTER.file("settings", "settings.yaml"))
    settings = load_settings(file)
    assert isinstance(settings.store, InfluxStoreSettings)
    assert not settings.operational_database.is_sqlite
    sections: dict[str, Any] = dict(settings.sources)
    inventory = sections["inventory"]
    assert isinstance(inventory, InventorySettings)
    assert not inventory.database.is_sqlite
    assert settings.telemetry is not None
    assert settings.telemetry.checkpoints.kind == "operational_database"


@each_of_ours
def test_only_who_starts_and_ends_runs_has_a_token(name: str) -> None:
    pod = CLUSTER.pod(name)
    account = CLUSTER.of("ServiceAccount")[pod["serviceAccountName"]]
    assert account["metadata"]["name"] == name
    assert account["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is bool(CLUSTER.rights(name))
    assert bool(CLUSTER.rights(name)) is (name in ("daemon", "webserver"))


def test_every_binding_names_what_is_there() -> None:
    for name, binding in CLUSTER.of("RoleBinding").items():
        assert binding["roleRef"]["name"] in CLUSTER.of("Role")
        assert [s["name"] in CLUSTER.of("ServiceAccount") for s in binding["subjects"]] == [True], (
            name
        )
    assert CLUSTER.rights("run") == set()


def test_no_secret_is_in_an_object() -> None:
    assert not CLUSTER.of("Secret")
    for name in OURS:
        for variable, value in environment(CLUSTER.container(name)).items():
            assert "PASSWORD" not in variable
            assert "://" not in value


def policies_for(name: str, way: str) -> list[Mapping[str, Any]]:
    """The rules that let connections of pods called `name` through; `way` is ingress or egress."""
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "metrics-pipeline"}
    return [
        rule
        for policy in CLUSTER.of("NetworkPolicy").values()
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get(way, ())
    ]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    plain = selector.get("matchLabels", {}).items() <= labels.items()
    return plain and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


def test_what_no_policy_names_is_shut() -> None:
    everything = CLUSTER.of("NetworkPolicy")["nothing-else"]["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_each_is_reached_by_those_who_reach_it_in_compose() -> None:
    definitions = {n for n in OURS if "definitions" in SERVICES[n]["networks"]}
    (rule,) = policies_for("code-server", "ingress")
    callers = {
        name
        for name in (*OURS, "run")
        if selects(rule["from"][0]["podSelector"], {"app.kubernetes.io/name": name})
    }
    assert callers == definitions
    assert [port["port"] for port in rule["ports"]] == ["grpc"]
    for name, port, namespace in (
        ("exporter", "metrics", "monitoring"),
        ("gateway", "robots", "ingress"),
    ):
        (rule,) = policies_for(name, "ingress")
        assert [each["port"] for each in rule["ports"]] == [port]
        others = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        doctor = {"matchLabels": {"app.kubernetes.io/name": "code-server"}}
        assert rule["from"] == [{"namespaceSelector": others}, {"podSelector": doctor}]
    assert all(policies_for(name, "ingress") == [] for name in ("webserver", "daemon", "run"))


@pytest.mark.parametrize("name", [*OURS, "run"])
def test_each_reaches_what_it_needs(name: str) -> None:
    rules = policies_for(name, "egress")
    to_anybody = {
        port["port"] for rule in rules if "to" not in rule for port in rule.get("ports", ())
    }
    assert {53, 5432} <= to_anybody
    asks_kubernetes = {443, 6443} <= to_anybody
    assert asks_kubernetes is bool(CLUSTER.rights(name))
    reads_sources = name == "run" or "iot_hub_connection_string" in SERVICES[name]["secrets"]
    assert ({} in rules) is reads_sources
    to_the_code_server = [rule["ports"] for rule in rules if "to" in rule]
    expected = [[{"port": 4000, "protocol": "TCP"}]] if asks_kubernetes else []
    assert to_the_code_server == expected


def test_the_instance_is_the_one_that_ships_but_for_how_runs_start() -> None:
    ours = {**INSTANCE, "run_monitoring": dict(INSTANCE["run_monitoring"])}
    assert ours.pop("run_launcher")["class"] == "K8sRunLauncher"
    assert ours.pop("compute_logs")["class"] == "NoOpComputeLogManager"
    shipped = dict(SHIPPED_INSTANCE)
    assert shipped.pop("run_launcher")["class"] == "WatchedRunLauncher"
    start = ours["run_monitoring"].pop("start_timeout_seconds")
    assert start > shipped["run_monitoring"]["start_timeout_seconds"]
    assert {**ours["run_monitoring"], "start_timeout_seconds": 120} == shipped.pop("run_monitoring")
    ours.pop("run_monitoring")
    assert ours == shipped


def test_who_names_the_namespace_of_runs_is_who_starts_and_ends_them() -> None:
    assert INSTANCE["run_launcher"]["config"]["job_namespace"] == {"env": "POD_NAMESPACE"}
    given = {
        n
        for n in OURS
        if "POD_NAMESPACE" in {e["name"] for e in CLUSTER.container(n).get("env", ())}
    }
    assert given == {name for name in OURS if CLUSTER.rights(name)}


def test_runs_are_made_from_the_image_of_the_code_server() -> None:
    container = CLUSTER.container("code-server")
    assert environment(container)["DAGSTER_CURRENT_IMAGE"] == container["image"]
    assert "job_image" not in INSTANCE["run_launcher"]["config"]


def test_the_budget_keeps_every_run_that_there_can_be() -> None:
    budget = CLUSTER.of("PodDisruptionBudget")["runs"]["spec"]
    assert budget["minAvailable"] > INSTANCE["concurrency"]["runs"]["max_concurrent_runs"]
    labels = INSTANCE["run_launcher"]["config"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_the_daemon_is_never_there_twice_and_neither_are_series() -> None:
    for name in ("daemon", "exporter", "gateway"):
        assert CLUSTER.of("Deployment")[name]["spec"]["strategy"] == {"type": "Recreate"}


def test_the_operator_is_given_the_rules_that_ship() -> None:
    kept = DOCKER / "kubernetes" / "monitoring" / "alert-rules.yaml"
    assert kept.read_text() == render_rules(), "make docs writes it"
    rules = MONITORING.of("PrometheusRule")["metrics-pipeline"]["spec"]["groups"]
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yml"))]
    assert rules == [group for file in files for group in file["groups"]]


def test_the_operator_scrapes_as_compose_does() -> None:
    (endpoint,) = MONITORING.of("ServiceMonitor")["exporter"]["spec"]["endpoints"]
    ours = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    job = ours["scrape_configs"][0]
    fixed = {
        r["targetLabel"]: r["replacement"] for r in endpoint["relabelings"] if "targetLabel" in r
    }
    assert fixed == {"job": job["job_name"], "instance": job["static_configs"][0]["targets"][0]}
    assert endpoint["interval"] == ours["global"]["scrape_interval"]
    assert endpoint["scrapeTimeout"] == ours["global"]["scrape_timeout"]
    service = CLUSTER.of("Service")["exporter"]
    selector = MONITORING.of("ServiceMonitor")["exporter"]["spec"]["selector"]
    assert selects(selector, service["metadata"]["labels"])
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]


def test_no_label_of_a_target_pushes_one_of_ours_aside() -> None:
    (endpoint,) = MONITORING.of("ServiceMonitor")["exporter"]["spec"]["endpoints"]
    (dropped,) = (r["regex"] for r in endpoint["relabelings"] if r.get("action") == "labeldrop")
    assert ADDED_BY_THE_OPERATOR - set(dropped.split("|")) == {"job", "instance"}
