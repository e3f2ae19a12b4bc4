"""`metrics-pipeline check`: what works, and what to do about what does not."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    default_settings_file,
    make_dagster_home,
)
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.cli import main
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.telemetry import Checkpoint, PartitionKey, Position
from metrics_pipeline.preflight import Attempt, check_everything, render
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.simulators.event_hub.server import serve_event_hub
from metrics_pipeline.simulators.fleet import Fleet
from metrics_pipeline.simulators.iot_hub import IotHubSimulator
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request
from metrics_pipeline.sources.event_hub import EventHubStream
from metrics_pipeline.sources.event_hub_settings import EventHubSettings
from metrics_pipeline.stack.ports import find_free_port
from metrics_pipeline.storage.checkpoints import DatabaseCheckpoints
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline_tests.servers import running
from metrics_pipeline_tests.sources.iot_hub_fixtures import sample_state
from metrics_pipeline_tests.storage.schema_1 import write_schema_1
from metrics_pipeline_tests.storage.test_earlier_schemas import OPERATIONAL, restore

COMMAND = [sys.executable, "-m", "metrics_pipeline"]
PASSWORD = "hunter2"
NAMES = [
    "settings",
    "azure_iot_hub",
    "time-series store",
    "spool",
    "operational database",
    "Dagster instance",
    "exporter",
]


INFLUXDB = ("INFLUXDB_URL", "INFLUXDB_TOKEN")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory; the environment names it, and nothing else of ours."""
    folder = tmp_path / "state"
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(folder))
    # Set, so that what `main` sets ends with the test; empty is as good as not set.
    for name in (SETTINGS_VARIABLE, "DAGSTER_HOME", "DAGSTER_POSTGRES_URL", *INFLUXDB):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DATABASE_PASSWORD", PASSWORD)
    return folder


class Html(LoopbackServer):
    """What answers in the place of a hub behind a login page."""

    def respond(self, request: Request) -> Answer:
        page = b"<html><title>Sign in</title></html>"
        return Answer(200, page, {"Content-Type": "text/html"})


@pytest.fixture
def hub() -> Iterator[IotHubSimulator]:
    with IotHubSimulator(Fleet(sample_state())) as simulator:
        yield simulator


def check(
    state: Path, capsys: pytest.CaptureFixture[str], connection_string: str, **sections: Any
) -> tuple[int, dict[str, list[str]]]:
    """The exit status, and what was found of each name: `ok …` or `FAIL …` on one line."""
    state.mkdir(exist_ok=True)
    (state / "hub").write_text(connection_string)
    azure = {"connection_string": {"file": "hub"}, "scheme": "http", "tries": 1}
    content: Mapping[str, Any] = {
        "version": 1,
        "sources": {"azure_iot_hub": azure},
        "fleet": {"concentrators_from": "azure_iot_hub"},
        **sections,
    }
    (state / "settings.yaml").write_text(yaml.safe_dump(content))
    status = main(["check", "--settings", str(state / "settings.yaml")])
    said = capsys.readouterr()
    assert said.err == ""
    return status, parse(said.out)


def parse(table: str) -> dict[str, list[str]]:
    """The findings of each name, without the breaks between lines."""
    assert "Traceback" not in table
    assert PASSWORD not in table
    found: dict[str, list[str]] = {}
    for row in re.split(r"\n(?=ok|FAIL)", table.strip()):
        verdict, name, text = row[:5].strip(), row[6:28].strip(), row[28:]
        found.setdefault(name, []).append(f"{verdict} {' '.join(text.split())}")
    return found


def failing(found: Mapping[str, list[str]]) -> dict[str, str]:
    """What failed, of which there is one of each name."""
    wrong = {
        name: [f for f in findings if f.startswith("FAIL")] for name, findings in found.items()
    }
    assert all(len(findings) <= 1 for findings in wrong.values()), wrong
    return {name: findings[0] for name, findings in wrong.items() if findings}


@contextmanager
def simulating(state: Path) -> Iterator[None]:
    """The simulated IoT Hub of the default settings, as its own process."""
    file = state / "simulator" / "iot_hub_connection_string"
    with running([*COMMAND, "simulate"], file.exists):
        yield


def make_operational(state: Path) -> None:
    """As what runs makes it."""
    settings = DatabaseSettings(url=f"sqlite:///{state / 'operational.sqlite'}")
    with closing(OperationalDatabase(settings)) as database, database.writing():
        pass


def run_check() -> tuple[int, dict[str, list[str]]]:
    ended = subprocess.run([*COMMAND, "check"], capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    return ended.returncode, parse(ended.stdout)


def test_the_settings_that_ship_work_with_the_simulator_and_fail_without_it(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with simulating(state):
        make_operational(state)
        status, found = run_check()
    assert status == 0
    polled = ["devices", "tcp probe", "snmp probe", "snmp credentials"]
    polled += ["ssh probe", "ssh credentials", "winrm probe", "event hub", "checkpoints"]
    polled += ["SQL platform", "SQL scrape_pipeline"]
    services = [f"service {name}" for name in ("ingest", "evaluator", "dispatcher", "delivery")]
    robots = ["gateway tokens", "gateway"]
    stores, rest = [*NAMES[2:5], "events"], NAMES[5:]
    assert list(found) == [*NAMES[:2], "inventory", *polled, *services, *robots, *stores, *rest]
    assert all(len(findings) == 1 for findings in found.values())
    counts = found["azure_iot_hub"][0]
    assert counts.startswith("ok device_count ")
    for name in ("connected_device_count", "edge_device_count", "failed_deployment_count"):
        assert re.search(rf"\b{name} \d+", counts)
    assert re.fullmatch(r"ok concentrator_count \d+", found["inventory"][0])
    assert re.search(r"\$Default: 4 partitions, \d+ events are kept$", found["event hub"][0])
    assert re.search(r"[1-9]\d* events are not stored yet$", found["checkpoints"][0])
    assert found["service evaluator"][0].startswith("ok healthy 1, rules_evaluated ")
    assert f"{state}/embedded.sqlite" in found["time-series store"][0]
    assert f"{state}/spool: 0 points wait, 0 of 500000000 bytes" in found["spool"][0]
    assert f"{state}/operational.sqlite can be written" in found["operational database"][0]
    assert f"{state}/dagster (ConsolidatedSqlite)" in found["Dagster instance"][0]
    assert f"{state}/events.jsonl can be written" in found["events"][0]
    assert found["exporter"] == ["ok will listen on 127.0.0.1:9464"]

    assert main(["check"]) == 1
    wrong = failing(parse(capsys.readouterr().out))
    assert re.match(r"FAIL reading .*Check the network to the hub\.$", wrong.pop("event hub"))
    for service in services:
        refused = r"FAIL reading \w+: the address in file .*_url: no answer .*Connection refused"
        assert re.match(refused, wrong.pop(service))
    assert wrong == {
        "azure_iot_hub": "FAIL reading device_count: POST /devices/query: no answer "
        "([Errno 111] Connection refused). Check the address, the network and TLS."
    }


def test_a_hub_that_answers_shows_its_counts_and_nothing_is_stored(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = check(state, capsys, hub.connection_string)
    assert status == 0
    assert list(found) == NAMES
    assert found["azure_iot_hub"] == [
        (
            "ok device_count 5, connected_device_count 2, edge_device_count 3, "
            "connected_edge_device_count 1, concentrator_count 4, connected_concentrator_count 3, "
            "failed_deployment_count 3"
        )
    ]
    assert "0 points" in found["time-series store"][0]
    _, found = check(state, capsys, hub.connection_string)
    assert "0 points" in found["time-series store"][0]


def test_a_wrong_key_is_told_once_and_asked_for_once(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = hub.connection_string.rpartition("SharedAccessKey=")[0] + "SharedAccessKey=aHVudGVyMg=="
    status, found = check(state, capsys, wrong)
    assert status == 1
    [text] = failing(found).values()
    assert text.startswith("FAIL reading device_count: POST /devices/query: HTTP 401. ")
    assert "aHVudGVyMg" not in text
    assert len(hub.requests) == 1


def test_a_hub_that_answers_with_a_login_page_is_told_once(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with Html() as page:
        status, found = check(state, capsys, hub.connection_string.replace(hub.host, page.host))
    assert status == 1
    [text] = failing(found).values()
    assert "POST /devices/query: the reply is not JSON" in text
    assert "<html><title>Sign in" in text
    assert text.count("POST /devices/query") == 1
    assert "device_count, connected_device_count, edge_device_count, " in text


def test_a_part_that_fails_leaves_the_counts_that_were_read(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.extend([None, Answer(403, b"{}")])
    status, found = check(state, capsys, hub.connection_string)
    assert status == 1
    assert found["azure_iot_hub"][0].startswith("ok device_count 5, ")
    assert found["azure_iot_hub"][1].startswith("FAIL reading connected_device_count: ")


def test_a_connection_string_that_is_not_there_is_told(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = check(state, capsys, "")
    assert status == 1
    [text] = failing(found).values()
    assert f"file {state}/hub: no secret is there" in text


def test_a_store_whose_folder_cannot_be_written_is_told(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    state.mkdir()
    (state / "a_file").write_text("in the way")
    status, found = check(
        state, capsys, hub.connection_string, store={"kind": "embedded", "path": "a_file/x.sqlite"}
    )
    assert status == 1
    [(name, text)] = failing(found).items()
    assert name == "time-series store"
    assert f"embedded store {state}/a_file/x.sqlite: cannot be created" in text


def test_variables_of_an_influxdb_that_is_not_used_are_told(
    state: Path,
    hub: IotHubSimulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in INFLUXDB:
        monkeypatch.setenv(name, "http://influxdb:8086")
    status, found = check(state, capsys, hub.connection_string)
    assert status == 0
    (text,) = found["time-series store"]
    assert text.endswith("$INFLUXDB_URL, $INFLUXDB_TOKEN: not used, as store.kind is embedded")


def test_a_store_of_an_earlier_version_is_changed_only_if_asked_for_and_that_is_told(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state.mkdir()
    write_schema_1(state / "embedded.sqlite", [Point("polls", {}, {"up": True, "ms": 1.5}, 1)])
    before = contents(state / "embedded.sqlite")
    _, found = check(state, capsys, "", sources={}, fleet=None)
    assert (
        "it will be upgraded from schema 1 to 2 when the product starts"
        in (found["time-series store"][0])
    )
    assert contents(state / "embedded.sqlite") == before
    main(["check", "--upgrade", "--settings", str(state / "settings.yaml")])
    said = capsys.readouterr()
    assert said.err.startswith("Changing 2 values of embedded store")
    (found_after,) = parse(said.out)["time-series store"]
    assert found_after.startswith("ok")
    assert found_after.endswith("1 series, 1 points")


def contents(file: Path) -> list[str]:
    """All that is in a SQLite file."""
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize(
    ("file", "due"),
    [
        (OPERATIONAL[0], "its tables will be upgraded from 0 to 1"),
        (OPERATIONAL[3], "its tables will be upgraded from 0 to 1"),
        (
            OPERATIONAL[5],
            "counted_runs, run_marks, sampled_slots, sampling_lease, told_failures will be",
        ),
        (OPERATIONAL[-1], ""),
    ],
    ids=lambda given: getattr(given, "stem", None),
)
def test_an_operational_database_of_an_earlier_release_stays_as_it_is(
    file: Path, due: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = state / "operational.sqlite"
    state.mkdir()
    restore(file, database)
    before = contents(database)
    telemetry = {"source": {"connection_string": {"file": "event_hub"}}}
    with serve_event_hub(partition_count=2) as hub:
        (state / "event_hub").write_text(hub.connection_string)
        _, found = check(state, capsys, "", sources={}, fleet=None, telemetry=telemetry)
    assert contents(database) == before
    for name in ("operational database", "checkpoints"):
        assert found[name][0].startswith("ok ")
        assert due in found[name][0]
        assert ("when the product starts" in found[name][0]) is bool(due)


def test_tables_that_are_not_there_are_to_be_made_and_those_of_a_later_release_are_refused(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = check(state, capsys, "", sources={}, fleet=None)
    told = found["operational database"][0]
    assert told.endswith("can be written; its tables will be made when the product starts")
    assert contents(state / "operational.sqlite") == ["BEGIN TRANSACTION;", "COMMIT;"]
    make_operational(state)
    with closing(sqlite3.connect(state / "operational.sqlite")) as connection, connection:
        connection.execute("INSERT INTO operational_schema VALUES (99)")
    _, found = check(state, capsys, "", sources={}, fleet=None)
    assert "Upgrade metrics-pipeline" in failing(found)["operational database"]


def test_postgresql_that_does_not_answer_is_told_for_each_that_needs_it(
    state: Path,
    hub: IotHubSimulator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = find_free_port()
    url = f"postgresql://metrics@127.0.0.1:{port}/metrics"
    state.mkdir()
    status, found = check(
        state,
        capsys,
        hub.connection_string,
        sources={
            "azure_iot_hub": {"connection_string": {"file": "hub"}, "scheme": "http"},
            "inventory": {"database": {"url": url, "password": {"env": "DATABASE_PASSWORD"}}},
        },
        fleet={"concentrators_from": "inventory"},
        operational_database={"url": url, "password": {"env": "DATABASE_PASSWORD"}},
    )
    assert status == 1
    assert list(failing(found)) == ["inventory", "operational database"]
    for text in failing(found).values():
        assert f"{url}: connection to server at" in text
        assert "Connection refused. Check " in text


def test_an_instance_whose_postgresql_has_no_address_is_told(
    state: Path,
    hub: IotHubSimulator,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", f"nonsense {PASSWORD}")
    status, found = check(state, capsys, hub.connection_string)
    assert status == 1
    [(name, text)] = failing(found).items()
    assert name == "Dagster instance"
    assert text.startswith("FAIL DAGSTER_POSTGRES_URL: it is no address of PostgreSQL: expected")
    assert text.endswith("in the password @ is written %40, and % as %25.")


def test_a_page_that_everybody_can_read_is_pointed_out_and_no_failure(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = check(state, capsys, hub.connection_string, exporter={"host": "0.0.0.0"})
    assert status == 0
    assert found["exporter"] == [
        (
            "ok 0.0.0.0:9464 can be read by everybody who reaches this machine; set exporter.tls "
            "and exporter.basic_auth or exporter.bearer_token, or keep it behind a firewall"
        )
    ]


def test_tokens_of_the_gateway_are_read_and_what_is_public_without_tls_is_told(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state.mkdir()
    (state / "token").write_text(f"{PASSWORD}-and-more-of-it")
    tokens = {"all": {"token": {"file": "token"}, "expires_at": "2020-01-01T00:00:00Z"}}
    gateway: dict[str, Any] = {"host": "0.0.0.0", "tokens": tokens}
    status, found = check(state, capsys, "", sources={}, fleet=None, gateway=gateway)
    assert status == 1
    assert found["gateway tokens"] == ["ok 1 shared, 0 of single robots; expired: all"]
    [said] = found["gateway"]
    assert said.startswith("FAIL gateway.tls: other machines reach 0.0.0.0, and whoever is on the")
    gateway["tls_terminated_in_front"] = True
    status, found = check(state, capsys, "", sources={}, fleet=None, gateway=gateway)
    assert (status, found["gateway"]) == (0, ["ok will listen on 0.0.0.0:8765"])
    (state / "token").unlink()
    status, found = check(state, capsys, "", sources={}, fleet=None, gateway=gateway)
    assert status == 1
    assert found["gateway tokens"] == [
        (
            f"FAIL file {state}/token: cannot be read (FileNotFoundError). Create it, or make it "
            "readable."
        )
    ]


def test_a_server_of_postgresql_that_proves_nothing_is_pointed_out(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = {"url": "postgresql://me@no-such-host.invalid/metrics"}
    _, found = check(state, capsys, "", sources={}, fleet=None, operational_database=nobody)
    [said] = found["TLS to PostgreSQL"]
    assert said.startswith("ok operational_database (sslmode=prefer): nothing proves who")
    assert "?sslmode=verify-full&sslrootcert=FILE" in said


def test_a_token_that_goes_to_influxdb_in_the_clear_is_pointed_out(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = {"kind": "influxdb", "api": "v3", "url": "http://no-such-host.invalid:8086"}
    token = {"token": {"env": "DATABASE_PASSWORD"}}
    _, found = check(state, capsys, "", sources={}, fleet=None, store={**store, **token})
    [said] = found["TLS to InfluxDB"]
    assert said.startswith("ok http://no-such-host.invalid:8086: the token goes to another machine")
    assert "https://" in said


def test_the_table_wraps_what_is_long_below_its_beginning() -> None:
    table = render([Attempt("a", True, "fine"), Attempt("b", False, "word " * 30 + "\nend")])
    lines = table.splitlines()
    assert lines[0] == f"ok    a{' ' * 22}fine"
    assert lines[1].startswith(f"FAIL  b{' ' * 22}word")
    assert all(line.startswith(" " * 29 + "word") for line in lines[2:-1])
    assert lines[-1] == " " * 29 + "end"
    assert max(map(len, lines)) <= 105


def test_settings_without_sources_are_checked_too(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = check(state, capsys, "", sources={}, fleet=None)
    assert status == 0
    assert list(found) == [name for name in NAMES if name != "azure_iot_hub"]
    assert Settings.model_validate({"version": 1, "sources": {}}).fleet is None


def test_before_the_first_start_it_says_that_the_simulator_is_not_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRICS_PIPELINE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(make_dagster_home(tmp_path)))
    findings = check_everything(load_settings(default_settings_file()))
    [simulator] = [finding for finding in findings if finding.name == "simulated IoT Hub"]
    assert not simulator.is_well
    assert "Start `make run` first" in simulator.says


# --- what is polled -------------------------------------------------------------------------------


class Polled:
    """Settings that poll an inventory of SQLite, and what `check` finds."""

    def __init__(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state = state
        self.polling: dict[str, Any] = {"enabled": True, "status_by": "tcp", "metrics_by": ["snmp"]}
        self.inventory: dict[str, Any] = {"database": {"url": "sqlite:///inventory.sqlite"}}
        self._capsys = capsys
        state.mkdir()

    def fill(self, *lines: str) -> None:
        """Import devices: id, address, protocol, credential."""
        file = self.state / "devices.csv"
        file.write_text("\n".join(["id,ip_address,protocol,credential", *lines, ""]))
        (self.state / "settings.yaml").write_text(yaml.safe_dump(self._settings()))
        settings = str(self.state / "settings.yaml")
        assert main(["devices", "import", str(file), "--settings", settings]) == 0
        self._capsys.readouterr()

    def write(self, statement: str) -> None:
        """Change the inventory behind our back, as SQLite lets others do."""
        with closing(sqlite3.connect(self.state / "inventory.sqlite")) as other:
            other.execute(statement)
            other.commit()

    def check(self) -> tuple[int, dict[str, list[str]]]:
        """The exit status, and what was found that concerns polling."""
        status, found = check(self.state, self._capsys, "", **self._settings())
        others = {*NAMES, "inventory"}
        return status, {name: said for name, said in found.items() if name not in others}

    def _settings(self) -> dict[str, Any]:
        sources = {"inventory": self.inventory}
        return {"version": 1, "sources": sources, "fleet": None, "polling": self.polling}


@pytest.fixture
def polled(state: Path, capsys: pytest.CaptureFixture[str]) -> Polled:
    return Polled(state, capsys)


def test_what_is_polled_is_counted_and_what_polls_it_opened(
    polled: Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMUNITY", PASSWORD)
    core, unused = ({"community": {"env": name}} for name in ("COMMUNITY", "NOT_SET_ANYWHERE"))
    polled.polling["snmp"] = {"credentials": {"core": core, "unused": unused}}
    polled.fill("a,10.0.0.1,snmp,core", "b,10.0.0.2,snmp,core", "c,10.0.0.3,tcp,")
    assert polled.check() == (
        0,
        {
            "devices": ["ok 3 can be polled, 1 by tcp, 2 by snmp"],
            "tcp probe": ["ok can be opened"],
            "snmp probe": ["ok can be opened"],
            "snmp credentials": ["ok can be read, each with how many devices name it: core (2)"],
        },
    )


def test_nothing_of_polling_is_tried_where_it_is_off(polled: Polled) -> None:
    polled.fill("a,10.0.0.1,snmp,core")
    polled.polling["enabled"] = False
    assert polled.check() == (0, {})


def test_rows_and_protocols_that_nobody_can_poll_are_told_with_examples(polled: Polled) -> None:
    polled.fill(*(f"d{n},10.0.0.{n},tcp," for n in range(1, 10)))
    polled.write("UPDATE devices SET ip_address = '10.0.0.300' WHERE id <> 'd1' AND id <> 'd2'")
    polled.write("UPDATE devices SET protocol = 'telnet' WHERE id = 'd2'")
    status, found = polled.check()
    assert status == 1
    well, wrong = found["devices"]
    assert well == "ok 1 can be polled, 1 by tcp"
    assert wrong.startswith(
        "FAIL rows that cannot be polled: invalid_ip_address 7, unknown_protocol 1. Correct them "
    )
    assert wrong.count("got '10.0.0.300'") == 5


def test_a_mapping_that_does_not_fit_the_table_is_told_and_the_probes_are_tried_all_the_same(
    polled: Polled,
) -> None:
    polled.fill("a,10.0.0.1,tcp,")
    polled.inventory["devices"] = {
        "table": "devices",
        "columns": {"id": "id", "ip_address": "management_address"},
        "defaults": {"protocol": "snmp"},
    }
    status, found = polled.check()
    assert status == 1
    [text] = found.pop("devices")
    assert text.startswith("FAIL inventory: reading sqlite:///")
    assert "management_address" in text
    assert "Name columns that the table has in sources.inventory.devices." in text
    assert found == {"tcp probe": ["ok can be opened"], "snmp probe": ["ok can be opened"]}


def test_credentials_that_are_not_there_are_told_with_how_many_devices_need_them(
    polled: Polled,
) -> None:
    (polled.state / "community").write_text(PASSWORD)
    polled.polling["snmp"] = {
        "credentials": {
            "core": {"community": {"file": "community"}},
            "edge": {"community": {"env": "NOT_SET_ANYWHERE"}},
        }
    }
    names = ["core", "edge", "old", "old", ""]
    polled.fill(*(f"d{n},10.0.0.{n + 1},snmp,{name}" for n, name in enumerate(names)))
    status, found = polled.check()
    assert status == 1
    section = "polling.snmp.credentials"
    assert found["snmp credentials"] == [
        "ok can be read, each with how many devices name it: core (1)",
        (
            "FAIL the inventory: devices name no credential. Name one of "
            f"{section} in the inventory's column credential. Devices that need it: 1. "
            f"{section}.edge: environment variable NOT_SET_ANYWHERE: no secret is there. Set it "
            "and try again. Devices that need it: 1. "
            f"{section}: there is no 'old'. Define it, or correct the inventory's column "
            "credential. Devices that need it: 2."
        ),
    ]


def test_files_of_credentials_are_read_also_those_of_a_jump_host(polled: Polled) -> None:
    (polled.state / "key").write_text("a key")
    jump = {"host": "gate.example", "login": {"user": "m", "key_file": "missing_key"}}
    polled.polling |= {
        "metrics_by": ["ssh"],
        "ssh": {
            "credentials": {
                "direct": {"user": "m", "key_file": "key"},
                "behind": {"user": "m", "key_file": "key", "jump": jump},
            }
        },
    }
    polled.fill("a,10.0.0.1,ssh,direct", "b,10.0.0.2,ssh,behind")
    status, found = polled.check()
    assert status == 1
    well, wrong = found["ssh credentials"]
    assert well.endswith("direct (1)")
    assert wrong == (
        f"FAIL polling.ssh.credentials.behind: {polled.state}/missing_key: cannot be read (No such "
        "file or directory). Create it, or make it readable. Devices that need it: 1."
    )


def test_a_probe_that_cannot_be_opened_is_told(polled: Polled) -> None:
    (polled.state / "hosts").mkdir()
    polled.polling |= {"metrics_by": ["ssh"], "ssh": {"known_hosts": "hosts"}}
    polled.fill("a,10.0.0.1,tcp,")
    status, found = polled.check()
    assert status == 1
    assert found["tcp probe"] == ["ok can be opened"]
    assert found["ssh probe"] == [
        (
            f"FAIL {polled.state}/hosts: the known host keys cannot be read (Is a directory). "
            "Make the file readable, or name another in `known_hosts`."
        )
    ]


def test_where_each_protocol_tells_who_is_up_those_of_the_inventory_are_opened(
    polled: Polled,
) -> None:
    polled.polling |= {"status_by": "protocol", "metrics_by": []}
    polled.fill("a,10.0.0.1,tcp,", "b,10.0.0.2,ssh,gone")
    status, found = polled.check()
    assert status == 1
    assert list(found) == ["devices", "tcp probe", "ssh probe", "ssh credentials"]
    assert "there is no 'gone'" in found["ssh credentials"][0]


def test_a_hub_that_lets_us_not_in_is_told_with_the_right_that_is_missing_and_no_key(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry = {"source": {"connection_string": {"file": "event_hub"}}}
    with serve_event_hub() as hub:
        state.mkdir()
        wrong = hub.connection_string.replace(hub.policy.key, PASSWORD)
        (state / "event_hub").write_text(wrong)
        status, found = check(state, capsys, "", sources={}, fleet=None, telemetry=telemetry)
    assert status == 1
    (told,) = found["event hub"]
    assert told.startswith("FAIL")
    assert "the right Listen" in told
    assert PASSWORD not in str(found)
    assert "checkpoints" not in found


def test_a_hub_that_was_made_anew_fails_with_what_to_do(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry = {"source": {"connection_string": {"file": "event_hub"}}}
    with serve_event_hub(partition_count=2) as hub:
        state.mkdir()
        (state / "event_hub").write_text(hub.connection_string)
        secret = SecretReference(file=state / "event_hub")
        database = OperationalDatabase(
            DatabaseSettings(url=f"sqlite:///{state / 'operational.sqlite'}")
        )
        with (
            closing(EventHubStream(EventHubSettings(connection_string=secret))) as stream,
            closing(DatabaseCheckpoints(database, "test")) as checkpoints,
        ):
            key = PartitionKey(stream.namespace, stream.hub, stream.consumer_group, "1")
            epoch = checkpoints.claim([key])
            checkpoints.rewind(key, None, Checkpoint(Position("7", 7), epoch))
        status, found = check(state, capsys, "", sources={}, fleet=None, telemetry=telemetry)
    assert status == 1
    told = "\n".join(found["checkpoints"])
    assert told.startswith("FAIL")
    assert "the checkpoint of partition 1 is ahead of the hub, which was made anew" in told
    assert "telemetry replay --move-checkpoint" in told


def test_events_that_wait_and_those_that_are_gone_are_counted(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry = {"source": {"connection_string": {"file": "event_hub"}}}
    with serve_event_hub(partition_count=2) as hub:
        for _ in range(5):
            hub.append(b"{}", partition="1")
        state.mkdir()
        make_operational(state)
        (state / "event_hub").write_text(hub.connection_string)
        status, found = check(state, capsys, "", sources={}, fleet=None, telemetry=telemetry)
    assert status == 0
    assert found["event hub"][0].endswith("2 partitions, 5 events are kept")
    assert found["checkpoints"][0].endswith("5 events are not stored yet")


# --- SQL sets -------------------------------------------------------------------------------------


def test_every_query_of_the_sql_sets_is_tried(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    state.mkdir()
    with closing(sqlite3.connect(state / "platform.sqlite")) as database:
        database.executescript(
            "CREATE TABLE device_state (status); CREATE TABLE delivery_jobs (status);"
            "INSERT INTO device_state VALUES ('ONLINE');"
        )
    sql = {
        "databases": {"platform": {"url": "sqlite:///platform.sqlite"}},
        "sets": {"platform": {}},
    }
    status, found = check(state, capsys, hub.connection_string, sql=sql)
    assert status == 1
    wrong, well = found["SQL platform"]
    assert wrong.startswith("FAIL reading alerts: no such table: fleet_alert. Create the table")
    assert well.endswith("1 points with 3 values")


def test_a_database_that_answers_nothing_is_told_once(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"postgresql://metrics@127.0.0.1:{find_free_port()}/shop"
    sql = {"databases": {"shop": {"url": url}}, "sets": {"postgres": {"database": "shop"}}}
    status, found = check(state, capsys, hub.connection_string, sql=sql)
    assert status == 1
    (wrong,) = found["SQL postgres"]
    assert wrong.startswith("FAIL reading postgresql://")


def test_a_place_for_events_that_is_away_is_told_without_its_password(
    state: Path, hub: IotHubSimulator, capsys: pytest.CaptureFixture[str]
) -> None:
    state.mkdir()
    transport = {"kind": "redis_stream", "url": {"file": "redis_url"}}
    for url, says in (
        (f"redis://:{PASSWORD}@127.0.0.1:1/0", "Check that Redis runs"),
        (f"http://:{PASSWORD}@127.0.0.1:1/0", "it is no address of Redis"),
    ):
        (state / "redis_url").write_text(url)
        sections = {"events": {"transport": transport}}
        status, found = check(state, capsys, hub.connection_string, **sections)
        assert status == 1
        assert list(failing(found)) == ["events"]
        assert says in found["events"][0]
    (state / "redis_url").unlink()
    _, found = check(state, capsys, hub.connection_string, events={"transport": transport})
    assert re.match(r"FAIL file .*redis_url: cannot be read .*Create it", found["events"][0])
