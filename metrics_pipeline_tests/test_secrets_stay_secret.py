"""Whatever names a secret is given one, and nothing that the product writes has it in it.

One stack runs on them, with Dagster and the latest values in a real PostgreSQL; whom it asks
repeats what it was shown. Meanwhile `check` tries the same settings with files and variables
changed round, and `doctor` looks at the stack.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa
import yaml
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    make_dagster_home,
)
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.preflight import check_everything, render
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline_tests.canaries import (
    ENOUGH,
    PUNCTUATION,
    Canary,
    Search,
    make_canary,
    processes_of,
)
from metrics_pipeline_tests.planted_settings import (
    DAGSTER,
    DEVICES,
    NOBODY,
    REFERENCES,
    Planted,
    document,
    document_of_entra_id,
    keys_of_secrets,
    planted_keys,
)
from metrics_pipeline_tests.postgresql import PostgresqlServer
from metrics_pipeline_tests.running_stack import (
    READY,
    RunningStack,
    running_stack,
)
from metrics_pipeline_tests.servers import require, self_signed
from metrics_pipeline_tests.telltales import LOOPBACK, Telltales, telltales

ROOT = Path(__file__).parents[1]
OF_CHECK = {"DAGSTER_HOME": "", "AZURE_AUTHORITY_HOST": f"https://{NOBODY}"}
REFERENCE = re.compile(r'\{"(?:env|file)": [^}]*\}')
LOGGED = """{ runsOrError { ... on Runs { results { runId jobName status runConfigYaml
    tags { key value } stepStats { stepKey status }
    eventConnection { events { __typename ... on MessageEvent { message level stepKey }
        ... on ExecutionStepFailureEvent { error { message stack className } }
        ... on ExecutionStepUpForRetryEvent { error { message stack } } } } } } }
    instance { info runQueuingSupported executablePath }
    workspaceOrError { __typename ... on Workspace { locationEntries { name
        displayMetadata { key value }
        locationOrLoadError { __typename ... on PythonError { message stack } } } } }
    repositoriesOrError { ... on RepositoryConnection { nodes { name
        allTopLevelResourceDetails { name description configuredValues { key value type } }
        sensors { name sensorState { ticks { status skipReason error { message stack } } } }
    } } }
    assetsOrError { ... on AssetConnection { nodes { key { path } assetMaterializations {
        metadataEntries { __typename label description ... on TextMetadataEntry { text }
            ... on JsonMetadataEntry { jsonString } ... on MarkdownMetadataEntry { mdStr }
    } } } } } }"""


@dataclass(slots=True)
class Site:
    """What runs, what was planted for it, and what `check` said of the other settings."""

    stack: RunningStack
    state: Path
    planted: Planted
    peers: Telltales
    databases: list[str]
    checked: dict[str, str]
    others: list[Canary]
    """What was planted for `check`."""

    @property
    def search(self) -> Search:
        """For all that was planted, and what was made of it for the wire."""
        signed = [Canary("a signature", each) for each in sorted(self.peers.shown)]
        return Search.of([*self.planted.canaries, *self.others, *signed])

    @property
    def gateway_url(self) -> str:
        """Where robots connect."""
        found = re.search(r"robots +(ws://[0-9.:]+)", self.stack.output)
        assert found is not None
        return found[1]

    def show(self, path: str, **options: Any) -> str:
        """What the exporter answers, with its headers."""
        url = f"https://{LOOPBACK}:{self.stack.exporter_port}{path}"
        return raw(httpx.get(url, verify=False, **options))


def raw(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.headers} {answer.text}"


@pytest.fixture(scope="module")
def peers() -> Iterator[Telltales]:
    with telltales() as made:
        yield made


def make_database(server: PostgresqlServer, name: str, password: str) -> str:
    """A role and a database of its own, both called `name`; the URL with the password."""
    admin = sa.create_engine(server.url("postgres", server.password), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        role = f"CREATE ROLE {name} LOGIN PASSWORD %(password)s"
        connection.exec_driver_sql(role, {"password": password})
        connection.exec_driver_sql(f"CREATE DATABASE {name} OWNER {name} STRATEGY FILE_COPY")
    admin.dispose()
    url = sa.URL.create("postgresql", name, password, LOOPBACK, server.port, name)
    return url.render_as_string(hide_password=False)


def fill_inventory(url: str, peers: Telltales) -> None:
    """A device for each credential."""
    engine = sa.create_engine(url)
    row = sa.text(
        "INSERT INTO devices (id, ip_address, protocol, port, credential)"
        " VALUES (:id, :address, :protocol, :port, :credential)"
    )
    with engine.begin() as connection:
        connection.exec_driver_sql((ROOT / "docker/postgres/inventory.sql").read_text())
        for name, protocol, peer, credential in DEVICES:
            values = {"id": name, "address": LOOPBACK, "protocol": protocol}
            values |= {"port": getattr(peers, peer), "credential": credential}
            connection.execute(row, values)
    engine.dispose()


@dataclass(slots=True)
class Place:
    """A folder with settings, secrets, and databases."""

    folder: Path
    planted: Planted
    content: dict[str, Any]
    databases: list[str]

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.planted.environment,
            STATE_DIR_VARIABLE: str(self.state),
            SETTINGS_VARIABLE: str(self.folder / "settings.yaml"),
            "TMPDIR": str(self.state),
            "PYTHONPATH": str(ROOT),
        }


def prepare(folder: Path, planted: Planted, content: dict[str, Any], urls: list[str]) -> Place:
    (folder / "state").mkdir()
    (folder / "settings.yaml").write_text(yaml.safe_dump(content))
    return Place(folder, planted, content, urls)


def prepare_all(folder: Path, first: str, peers: Telltales, server: PostgresqlServer) -> Place:
    """With everything but Microsoft Entra ID, and Dagster in PostgreSQL."""
    planted = plant_into(folder, first)
    sql: dict[str, Any] = {}
    keys = {"operational": "operational_database", "inventory": "sources.inventory.database"}
    urls = []
    for name, key in keys.items():
        database = f"planted_{first}_{name}"
        password = planted.plant(f"{key}.password")
        urls.append(make_database(server, database, planted.canaries[-1].value))
        plain = f"postgresql://{database}@{LOOPBACK}:{server.port}/{database}"
        sql[name] = {"url": plain, "password": password}
    fill_inventory(urls[-1], peers)
    planted.canaries.append(canary := make_canary(DAGSTER, PUNCTUATION))
    urls.append(make_database(server, f"planted_{first}_dagster", canary.value))
    planted.environment[DAGSTER] = urls[-1]
    certificate = str(self_signed(planted.folder))
    sql["tls"] = {"certificate_file": certificate, "key_file": certificate}
    return prepare(folder, planted, document(planted, peers, sql), urls)


def prepare_entra_id(folder: Path, first: str, peers: Telltales) -> Place:
    planted = plant_into(folder, first)
    return prepare(folder, planted, document_of_entra_id(planted, peers), [])


def plant_into(folder: Path, first: str) -> Planted:
    (folder / "secrets").mkdir()
    return Planted(folder / "secrets", first)


def start(command: str, place: Place, **variables: str) -> subprocess.Popen[str]:
    """`metrics-pipeline check` or `doctor` there."""
    return subprocess.Popen(
        [sys.executable, "-m", "metrics_pipeline", command],
        env={**os.environ, **place.environment, **OF_CHECK, **variables},
        cwd=place.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check_here(place: Place) -> str:
    """The same in this process, which has imported all that it needs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**place.environment, **OF_CHECK}.items():
            patch.setenv(name, value)
        make_dagster_home(place.state)
        patch.setenv("DAGSTER_HOME", str(place.state / "dagster"))
        return render(check_everything(load_settings()))


def read_only(place: Place) -> list[str]:
    """The command of a stack that may write to its state directory and nowhere else.

    And without a right of root's, where root is who runs it.
    """
    state = shlex.quote(str(place.state))
    drop = "setpriv --no-new-privs --bounding-set -all --inh-caps -all"
    inner = f"{drop} {sys.executable} -m metrics_pipeline run PORTS --no-simulator"
    mounts = f"mount --bind {state} {state} && mount -o remount,bind,ro /"
    unshare = f"{require('unshare')} --mount{'' if os.geteuid() == 0 else ' --map-root-user'}"
    return ["sh", "-c", f"exec {unshare} sh -c '{mounts} && exec {inner}'"]


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, peers: Telltales, postgresql_server: PostgresqlServer
) -> dict[str, Place]:
    """Settings by what they are: each key is in a file in one, and in a variable in another."""
    make = tmp_path_factory.mktemp
    return {
        "stack": prepare_all(make("stack"), "file", peers, postgresql_server),
        "other way round": prepare_all(make("other"), "env", peers, postgresql_server),
        "Entra ID": prepare_entra_id(make("entra"), "file", peers),
        "Entra ID, other way round": prepare_entra_id(make("entra-other"), "env", peers),
    }


@pytest.fixture(scope="module")
def site(places: dict[str, Place], peers: Telltales) -> Iterator[Site]:
    """The stack after each job ran once, and what `check` said meanwhile of the others."""
    here = places["stack"]
    other = start("check", places["other way round"])
    checked = {name: check_here(places[name]) for name in places if name.startswith("Entra ID")}
    with running_stack(read_only(here), here.folder, here.environment) as stack:
        stack.wait_until(lambda: READY in stack.output, "it is ready")
        doctor = start("doctor", here, DAGSTER_HOME=str(here.state / "dagster"))
        checked["what runs"] = doctor.communicate()[0]
        checked["other way round"] = other.communicate()[0]
        others = [each for place in places.values() for each in place.planted.canaries]
        yield Site(stack, here.state, here.planted, peers, here.databases, checked, others)


def test_every_secret_that_the_settings_name_is_planted_both_ways(places: dict[str, Place]) -> None:
    planted = {each for place in places.values() for each in planted_keys(place.content)}
    assert planted == {(key, way) for key in keys_of_secrets() for way in REFERENCES}


def test_the_search_finds_a_canary_however_it_is_written(tmp_path: Path) -> None:
    canary = make_canary("password", PUNCTUATION)
    search, value = Search.of([canary]), canary.value.encode()
    written = [
        *(value, quote(value).encode(), json.dumps(canary.value).encode(), value.hex().encode()),
        *(base64.b64encode(b"x" * before + value) for before in range(3)),
        *(canary.value.encode("utf-16-le"), repr(canary.value).encode()),
        *(value[:14], b"***" + value[-14:]),
    ]
    for each in written:
        assert search.find("it", b"before" + each + b"after") == {"password in it"}, each
    assert search.find("it", value[: ENOUGH - 1]) == set()


def test_a_secret_that_is_deflated_in_a_file_of_sqlite_is_found(tmp_path: Path) -> None:
    canary = make_canary("password")
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'events.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE events (event TEXT)")
        deflated = zlib.compress(f"told {canary.value} to nobody".encode())
        connection.exec_driver_sql("INSERT INTO events VALUES (?)", (deflated,))
    engine.dispose()
    found = Search.of([canary]).find_in_files(tmp_path)
    assert found == {"password in table events of events.db"}


def test_check_and_doctor_show_no_secret_whoever_repeats_it(site: Site) -> None:
    for name, text in site.checked.items():
        assert re.search("FAIL|wrong", text, re.IGNORECASE), text
        assert site.search.find(f"what is said of {name}", text) == set(), text


def test_nothing_that_was_written_has_a_secret_in_it(site: Site) -> None:
    """By the stack and by all its processes: files, logs, and what they printed."""
    assert site.search.find("the output", site.stack.output) == set()
    assert site.search.find_in_files(site.state) == set()


def test_no_database_has_a_secret_in_it(site: Site) -> None:
    for url in site.databases:
        engine = sa.create_engine(url)
        assert site.search.find_in_database(engine) == set()
        engine.dispose()


def test_no_process_was_given_a_secret_that_is_not_its_own(site: Site) -> None:
    """In its command, or as a variable although it is in a file."""
    pids = processes_of(site.state)
    assert len(pids) >= 6
    assert site.search.find_in_processes(pids, "cmdline") == set()
    files = Search.of(site.planted.in_files())
    assert files.find_in_processes(pids, "environ") == set()


def test_all_processes_do_with_one_folder_that_can_be_written(site: Site) -> None:
    """They have counted, polled and served by now."""
    for pid in processes_of(site.state):
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        options = {line.split()[4]: line.split()[5].split(",")[0] for line in mounts}
        assert options["/"] == "ro"
        assert options[str(site.state)] == "rw"


def test_the_webserver_shows_no_secret(site: Site) -> None:
    answer = json.dumps(site.stack.ask(LOGGED))
    assert "ExecutionStepFailureEvent" in answer
    assert site.search.find("the webserver's answer", answer) == set()


def test_the_exporter_shows_no_secret_to_anybody(site: Site) -> None:
    password = site.planted.value_of("exporter.basic_auth.password")
    known = {"auth": ("prometheus", password.encode())}
    token = site.planted.value_of("exporter.bearer_token")
    by_token = {"headers": {"Authorization": f"Bearer {token}"}}
    for way in (known, by_token):
        assert site.show("/metrics", **way).startswith("200")
    shown = [site.show(path, **known) for path in ("/metrics", "/", "/readyz", "/nowhere")]
    stranger = {"auth": ("prometheus", password[:-1].encode())}
    guessing = {"headers": {"Authorization": f"Bearer {token[:-1]}"}}
    shown += [site.show(path, **way) for path in ("/metrics", "/") for way in (stranger, guessing)]
    assert site.search.find("an answer of the exporter", "".join(shown)) == set()


def test_the_gateway_shows_no_token_to_anybody(site: Site) -> None:
    token, url = site.planted.value_of("gateway.tokens.NAME.token"), site.gateway_url
    known = {"Authorization": f"Bearer {token}"}
    with connect(f"{url}/ws/telemetry/robot-1", additional_headers=known) as robot:
        robot.send(json.dumps({"id": 7, "cpu_usage": token}))
        shown = [str(robot.recv())]
    latest = url.replace("ws", "http", 1) + "/api/telemetry/robots/robot-1/metrics"
    shown += [raw(httpx.get(latest, headers=headers)) for headers in (known, {})]
    shown.append(raw(httpx.get(latest, params={"token": token})))
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url}/ws/telemetry/robot-1?token={quote(token)}")
    shown.append(str(refused.value.response))
    assert site.search.find("an answer of the gateway", "".join(shown)) == set()
    assert site.search.find_in_files(site.state) == set()


def test_a_value_that_is_written_into_the_settings_is_not_repeated(
    places: dict[str, Place], tmp_path: Path
) -> None:
    """Each, where a reference belongs."""
    for place in (places["stack"], places["Entra ID"]):
        canaries = itertools.cycle(place.planted.canaries)
        text = json.dumps(place.content)
        wrong = REFERENCE.sub(lambda _: json.dumps(next(canaries).value), text)  # noqa: B023
        (tmp_path / "settings.yaml").write_text(wrong)
        with pytest.raises(ConfigurationError) as error:
            load_settings(tmp_path / "settings.yaml")
        assert "a secret is never written here" in str(error.value)
        assert Search.of(place.planted.canaries).find("the error", str(error.value)) == set()
