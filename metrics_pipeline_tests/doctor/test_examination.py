"""The command `metrics-pipeline doctor`: with nothing running, with wrong settings, as JSON."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import yaml

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.cli import main
from metrics_pipeline.core.findings import Severity
from metrics_pipeline.orchestration import run_events
from metrics_pipeline.stack.ports import find_free_port
from metrics_pipeline_tests.proxies import name_proxy

ROOT = Path(__file__).parents[2]
CANARY = "canary-7f3a"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory, which is not there; set, so that what `main` sets ends with the test."""
    ends = ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "DAGSTER_POSTGRES_URL_FILE")
    for name in (*ends, "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setenv(SETTINGS_VARIABLE, "")
    return tmp_path / "state"


def write(folder: Path, text: str) -> str:
    file = folder / "settings.yaml"
    file.write_text(text)
    return str(file)


def ask(
    capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit status, and the findings by name."""
    status = main(["doctor", "--json", *options])
    document = json.loads(capsys.readouterr().out)
    assert document["is_well"] is (status == 0)
    found: dict[str, list[dict[str, str]]] = {}
    for each in document["findings"]:
        found.setdefault(each["name"], []).append(each)
    return status, found


def test_with_nothing_running_it_says_so_and_makes_nothing(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"version": 1, "sources": {}, "exporter": {"port": 0}}
    file = write(tmp_path, yaml.safe_dump(content))
    status, found = ask(capsys, "--settings", file)
    assert status == 1
    bad = {name for name, each in found.items() if each[0]["severity"] in ("warning", "wrong")}
    assert bad == {"DAGSTER_HOME"}
    assert not state.exists()
    assert main(["doctor", "--settings", file]) == 1
    text = capsys.readouterr().out
    assert text.startswith("WRONG     DAGSTER_HOME: there is no dagster.yaml in it")
    assert f"{len([e for each in found.values() for e in each])} things were looked at" in text


def test_no_proxy_of_the_environment_is_asked_for_a_code_server_on_loopback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = {"host": "127.0.0.1", "port": find_free_port()}
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    file = write(tmp_path, "version: 1\nsources: {}\n")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        name_proxy(monkeypatch, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        _, found = ask(capsys, "--settings", file, "--workspace", str(workspace))
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert found["code server"][0]["found"] == "no answer (UNAVAILABLE)"


def test_settings_that_are_wrong_are_told_and_the_rest_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, f"version: 1\nsources: {{}}\nexporter: {{pasword: {CANARY}}}\n")
    status, found = ask(capsys, "--settings", file)
    assert status == 1
    assert "line 3: exporter.pasword: there is no such key" in found["settings"][0]["found"]
    assert set(found) == {"settings", "disk", "DAGSTER_HOME", "code server"}
    assert CANARY not in json.dumps(found)


def test_settings_of_what_is_not_installed_are_told_and_the_rest_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_events, "find_spec", {}.get)
    polling = {"enabled": True, "workers": {"broker": {"file": "broker"}}}
    inventory = {"database": {"url": "sqlite:///inventory.sqlite"}}
    content = {"version": 1, "sources": {"inventory": inventory}, "polling": polling}
    status, found = ask(capsys, "--settings", write(tmp_path, yaml.safe_dump(content)))
    assert status == 1
    assert "pip install" in found["settings"][0]["fix"]
    assert set(found) == {"settings", "disk", "DAGSTER_HOME", "code server"}


def test_every_runbook_that_is_named_is_there() -> None:
    sources = [
        *(ROOT / "metrics_pipeline/doctor").glob("*.py"),
        ROOT / "metrics_pipeline/orchestration/instance_findings.py",
        ROOT / "metrics_pipeline/orchestration/code_server.py",
    ]
    named = set()
    for source in sources:
        text = source.read_text()
        for quoted in text.replace("'", '"').split('"'):
            page = quoted.replace("{RUNBOOKS}", "docs/runbooks/alerts")
            if page.endswith(".md") and " " not in page:
                named.add(page)
    assert len(named) > 5
    assert [page for page in named if not (ROOT / page).is_file()] == []


def test_the_severities_are_ranked_from_well_to_wrong() -> None:
    assert list(Severity) == ["ok", "unknown", "warning", "wrong"]
