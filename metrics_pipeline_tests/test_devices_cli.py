"""`metrics-pipeline devices …` over SQLite and a real PostgreSQL, as an operator runs it."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from metrics_pipeline.access.database import DatabaseSettings, open_engine
from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.access.inventory_devices import read_rows
from metrics_pipeline.access.inventory_tables import DEVICES
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.cli import build_parser, main
from metrics_pipeline.core.device_rows import COLUMNS, DeviceRow
from metrics_pipeline.devices_commands import LISTED
from metrics_pipeline.stack.ports import LOOPBACK
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.snmp_agents import COMMUNITY, snmpd

ACTIONS = ("import", "list", "add", "remove", "probe")
HEAD = "id,ip_address,protocol,port"


class Operator:
    """Runs the command with settings of its own, and looks into the database."""

    def __init__(self, folder: Path, database: DatabaseSettings, capsys: Any) -> None:
        self.folder = folder
        self.database = database
        self.settings: dict[str, Any] = {
            "version": 1,
            "sources": {"inventory": {"database": database.model_dump(mode="json")}},
            "polling": {"snmp": {"tries": 1, "timeout_seconds": 0.05, "credentials": {}}},
        }
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The exit status, and what was said."""
        file = self.folder / "settings.yaml"
        file.write_text(yaml.safe_dump(self.settings))
        status = main(["devices", *arguments, "--settings", str(file)])
        said = self._capsys.readouterr()
        return status, said.out, said.err

    def file(self, *lines: str, name: str = "devices.csv") -> str:
        """A file with a header and `lines`."""
        path = self.folder / name
        path.write_text("\n".join([HEAD, *lines, ""]))
        return str(path)

    def rows(self) -> dict[str, DeviceRow]:
        """What the table has."""
        engine = open_engine(self.database)
        with engine.connect() as connection:
            rows = read_rows(connection)
        engine.dispose()
        return rows

    def has_table(self) -> bool:
        engine = open_engine(self.database)
        has_table = sa.inspect(engine).has_table(DEVICES.name)
        engine.dispose()
        return has_table


@pytest.fixture(params=["sqlite", "postgresql"])
def operator(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Operator:
    return _operator(request, request.param, tmp_path, monkeypatch, capsys)


@pytest.fixture
def sqlite_operator(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Operator:
    return _operator(request, "sqlite", tmp_path, monkeypatch, capsys)


def _operator(
    request: pytest.FixtureRequest, kind: str, folder: Path, monkeypatch: Any, capsys: Any
) -> Operator:
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(folder / "state"))
    monkeypatch.setenv(SETTINGS_VARIABLE, "")
    if kind == "sqlite":
        database = DatabaseSettings(url=f"sqlite:///{folder}/state/inventory.sqlite")
    else:
        postgresql = request.getfixturevalue("postgresql")
        (folder / "password").write_text(postgresql.password)
        secret = SecretReference(file=folder / "password")
        database = DatabaseSettings(url=postgresql.plain_url, password=secret)
    return Operator(folder, database, capsys)


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_explains_itself_with_an_example_that_is_one(
    action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["devices", action, "--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert "--settings FILE" in out
    example = " ".join(out.partition("example: metrics-pipeline ")[2].split())
    assert example.startswith(f"devices {action}")
    assert callable(build_parser().parse_args(example.split()).command)


def test_import_names_the_columns_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["devices", "import", "--help"])
    said = capsys.readouterr().out
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for column in COLUMNS:
        assert re.search(rf"\b{column}\b", said)
        assert f"`{column}`" in readme


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["import"],
        ["list", "surplus"],
        ["add", "a"],
        ["add", "a", "h"],
        ["add", "a", "h", "--protocol", "ssh", "--port", "65536"],
        ["add", "a", "h", "--protocol", "ssh", "--label", "x"],
        ["remove"],
        ["probe"],
        ["probe", "h", "--timeout", "inf"],
        ["probe", "h", "--timeout", "0"],
        ["probe", "h", "--engine", "slow"],
    ],
)
def test_wrong_usage_is_status_2(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["devices", *arguments])
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_options_before_the_action_are_kept() -> None:
    options = build_parser().parse_args(["devices", "--settings", "a.yaml", "list"])
    assert (options.settings, options.state_dir) == (Path("a.yaml"), None)
    options = build_parser().parse_args(["devices", "list", "--settings", "b.yaml"])
    assert options.settings == Path("b.yaml")


# --- import ---------------------------------------------------------------------------------------


def test_importing_again_changes_nothing(operator: Operator) -> None:
    file = operator.file("a,10.0.0.1,snmp,161", "b,b.example,ssh,")
    assert operator.run("import", file) == (
        0,
        "Devices: 2 inserted, 0 updated, 0 removed, 0 unchanged.\n",
        "",
    )
    assert operator.rows() == {
        "a": DeviceRow("a", "10.0.0.1", "snmp", port=161),
        "b": DeviceRow("b", "b.example", "ssh"),
    }
    assert operator.run("import", file) == (
        0,
        "Devices: 0 inserted, 0 updated, 0 removed, 2 unchanged.\n",
        "",
    )


def test_what_changed_is_updated_and_the_rest_is_left_alone(operator: Operator) -> None:
    operator.run("add", "a", "10.0.0.1", "--protocol", "snmp", "--device-type", "switch")
    operator.run("add", "z", "10.0.0.26", "--protocol", "ssh")
    status, out, _ = operator.run("import", operator.file("a,10.0.0.2,snmp,161", "n,h,ping,"))
    assert (status, out) == (0, "Devices: 1 inserted, 1 updated, 0 removed, 0 unchanged.\n")
    rows = operator.rows()
    assert set(rows) == {"a", "n", "z"}
    assert rows["a"] == DeviceRow("a", "10.0.0.2", "snmp", port=161, device_type="switch")


def test_an_update_has_a_new_time_and_the_old_creation(operator: Operator) -> None:
    operator.run("import", operator.file("a,10.0.0.1,snmp,", "b,10.0.0.2,snmp,"))
    engine = open_engine(operator.database)
    with engine.begin() as connection:
        connection.execute(
            sa.update(DEVICES).values(
                created_at=sa.text("'2000-01-01 00:00:00'"),
                updated_at=sa.text("'2000-01-01 00:00:00'"),
            )
        )
    operator.run("import", operator.file("a,10.0.0.9,snmp,", "b,10.0.0.2,snmp,"))
    with engine.connect() as connection:
        chosen = sa.select(DEVICES.c.created_at, DEVICES.c.updated_at).order_by(DEVICES.c.id)
        a, b = connection.execute(chosen).all()
    engine.dispose()
    assert a.created_at.year == b.created_at.year == b.updated_at.year == 2000
    assert a.updated_at.year > 2000


def test_devices_that_are_not_in_the_file_go_with_prune_alone(operator: Operator) -> None:
    operator.run("import", operator.file("a,10.0.0.1,snmp,", "b,10.0.0.2,snmp,"))
    _, out, _ = operator.run("import", operator.file("b,10.0.0.2,snmp,"), "--prune")
    assert out == "Devices: 0 inserted, 0 updated, 1 removed, 1 unchanged.\n"
    assert set(operator.rows()) == {"b"}


def test_an_empty_file_does_not_prune_everything(operator: Operator) -> None:
    operator.run("import", operator.file("a,10.0.0.1,snmp,"))
    status, _, err = operator.run("import", operator.file(), "--prune")
    assert status == 1
    assert "has no device, and --prune would remove all. Nothing was written." in err
    assert set(operator.rows()) == {"a"}


def test_a_dry_run_says_what_would_happen_and_writes_nothing(operator: Operator) -> None:
    operator.run("import", operator.file("a,10.0.0.1,snmp,", "b,10.0.0.2,snmp,"))
    before = operator.rows()
    file = operator.file("a,10.0.0.1,snmp,161", "c,h,ssh,")
    assert operator.run("import", file, "--dry-run", "--prune") == (
        0,
        (
            "+ c: h by ssh\n"
            "~ a: port 0 -> 161\n"
            "- b: 10.0.0.2 by snmp\n"
            "Would be 1 inserted, 1 updated, 1 removed, 0 unchanged; nothing was written.\n"
        ),
        "",
    )
    assert operator.rows() == before


def test_a_dry_run_makes_no_table(operator: Operator) -> None:
    status, out, _ = operator.run("import", operator.file("a,h,ssh,"), "--dry-run")
    assert (status, out.splitlines()[0]) == (0, "+ a: h by ssh")
    assert not operator.has_table()


def test_nothing_is_written_if_any_line_is_wrong(operator: Operator) -> None:
    operator.run("import", operator.file("a,10.0.0.1,snmp,"))
    file = operator.file("b,10.0.0.2,snmp,", "c,10.0.0.300,snmp,", "d,h,telnet,")
    status, out, err = operator.run("import", file)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        (
            f"{file}: line 3, column ip_address: expected an IP address or a host name, "
            "got '10.0.0.300'"
        ),
        (
            f"{file}: line 4, column protocol: expected one of ping, tcp, snmp, ssh, winrm, "
            "got 'telnet'"
        ),
        "Nothing was written. Correct these lines, and import again.",
    ]
    assert set(operator.rows()) == {"a"}


def test_a_credential_that_the_settings_do_not_have_is_a_warning(operator: Operator) -> None:
    operator.settings["polling"]["snmp"]["credentials"] = {
        "known": {"community": {"env": "COMMUNITY"}}
    }
    cells = {"ip_address": "h", "protocol": "snmp"}
    devices = [
        {"id": "a", "credential": "known", **cells},
        {"id": "b", "credential": "core", **cells},
        {"id": "c", "credential": "core", **cells},
    ]
    file = operator.folder / "devices.json"
    file.write_text(json.dumps(devices))
    status, _, err = operator.run("import", str(file))
    assert status == 0
    assert err == (
        "warning: polling.snmp.credentials of the settings has no 'core', which 2 devices name\n"
    )


def test_thousands_of_devices_are_imported(operator: Operator) -> None:
    lines = [f"d{n},10.0.{n // 256}.{n % 256},snmp,161" for n in range(3_000)]
    assert operator.run("import", operator.file(*lines))[0] == 0
    file = operator.file(*(line.replace(",161", ",1161") for line in lines))
    assert operator.run("import", file)[1].startswith("Devices: 0 inserted, 3000 updated, ")
    assert len(operator.rows()) == 3_000


def _import_in_a_process(file: str, settings: Path) -> None:
    raise SystemExit(main(["devices", "import", file, "--settings", str(settings)]))


def test_two_imports_at_once_wait_for_each_other(operator: Operator) -> None:
    operator.run("list")  # writes the settings
    lines = [f"d{n},10.0.0.1,snmp," for n in range(2_000)]
    file = operator.file(*lines)
    others = [
        get_context("forkserver").Process(
            target=_import_in_a_process,
            args=(file, operator.folder / "settings.yaml"),
        )
        for _ in range(2)
    ]
    for process in others:
        process.start()
    for process in others:
        process.join(timeout=PATIENCE_SECONDS)
    assert [process.exitcode for process in others] == [0, 0]
    assert len(operator.rows()) == 2_000


def test_an_import_repairs_what_sqlite_let_pass(sqlite_operator: Operator) -> None:
    file = sqlite_operator.file("a,h,ssh,22", "b,h,ssh,22", "c,h,ssh,22")
    sqlite_operator.run("import", file)
    with closing(sqlite3.connect(sqlite_operator.folder / "state" / "inventory.sqlite")) as other:
        other.execute("UPDATE devices SET labels = '{no json' WHERE id = 'a'")
        other.execute("UPDATE devices SET enabled = 'perhaps' WHERE id = 'b'")
        other.execute("UPDATE devices SET port = x'00' WHERE id = 'c'")
        other.commit()
    status, _, err = sqlite_operator.run("list")
    assert (status, err.count("cannot be polled")) == (1, 3)
    complete = sqlite_operator.folder / "complete.csv"
    head = f"{HEAD},labels,enabled"
    complete.write_text("\n".join([head, *(f"{name},h,ssh,22,,yes" for name in "abc")]))
    assert sqlite_operator.run("import", str(complete))[0] == 0
    status, _, err = sqlite_operator.run("list")
    assert (status, err) == (0, "")


# --- list, add, remove ----------------------------------------------------------------------------


def test_the_list_is_a_table(operator: Operator) -> None:
    operator.run("add", "sw-1", "10.0.0.1", "--protocol", "SNMP", "--port", "161", "--disabled")
    operator.run("add", "h", "host.example", "--protocol", "ssh", "--hostname", "Host")
    status, out, err = operator.run("list")
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        [*LISTED, "enabled"],
        ["h", "Host", "host.example", "unknown", "ssh", "yes"],
        ["sw-1", "10.0.0.1", "unknown", "snmp", "161", "no"],
    ]


def test_what_is_listed_as_json_can_be_imported(operator: Operator) -> None:
    given = ("--label", "site=berlin", "--label", "rack=7", "--mac-address", "00005E005301")
    operator.run("add", "a", "10.0.0.1", "--protocol", "snmp", *given)
    _, out, _ = operator.run("list", "--json")
    assert json.loads(out) == [asdict(row) for row in operator.rows().values()]
    assert operator.rows()["a"].labels == {"site": "berlin", "rack": "7"}
    file = operator.folder / "listed.json"
    file.write_text(out)
    assert operator.run("import", str(file), "--prune")[1] == (
        "Devices: 0 inserted, 0 updated, 0 removed, 1 unchanged.\n"
    )


def test_before_the_first_import_the_list_is_empty(operator: Operator) -> None:
    assert operator.run("list", "--json") == (0, "[]\n", "")
    assert not operator.has_table()


def test_an_id_is_added_once(operator: Operator) -> None:
    assert operator.run("add", "a", "h", "--protocol", "ssh") == (0, "a was added.\n", "")
    assert operator.run("add", "a", "other", "--protocol", "ssh") == (
        1,
        "",
        "a is in the inventory already; nothing was written.\n",
    )
    assert operator.rows()["a"].ip_address == "h"


def test_options_that_cannot_be_are_wrong_usage(operator: Operator) -> None:
    status, out, err = operator.run("add", "a", "10.0.0.300", "--protocol", "telnet")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "ip_address: expected an IP address or a host name, got '10.0.0.300'",
        "protocol: expected one of ping, tcp, snmp, ssh, winrm, got 'telnet'",
    ]


def test_devices_are_removed_all_or_none(operator: Operator) -> None:
    operator.run("import", operator.file("a,h,ssh,", "b,h,ssh,", "c,h,ssh,"))
    assert operator.run("remove", "a", "x", "y") == (
        1,
        "",
        "not in the inventory: x, y; nothing was removed.\n",
    )
    assert operator.run("remove", "a", "b", "a") == (0, "Devices: 2 removed.\n", "")
    assert set(operator.rows()) == {"c"}


# --- inventories that cannot be changed -----------------------------------------------------------


def test_an_inventory_of_others_is_listed_and_not_changed(operator: Operator) -> None:
    engine = open_engine(operator.database)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE nodes (name TEXT, mgmt TEXT)")
        connection.exec_driver_sql("INSERT INTO nodes VALUES ('a', '10.0.0.1'), ('b', NULL)")
    engine.dispose()
    operator.settings["sources"]["inventory"]["devices"] = {
        "table": "nodes",
        "columns": {"id": "name", "ip_address": "mgmt"},
        "defaults": {"protocol": "ping"},
    }
    status, out, err = operator.run("list")
    assert status == 1
    assert out.splitlines()[1].split()[:3] == ["a", "10.0.0.1", "unknown"]
    assert "1 rows cannot be polled: missing_ip_address" in err
    for arguments in (
        ("import", operator.file("c,h,ssh,")),
        ("add", "c", "h", "--protocol", "ssh"),
        ("remove", "a"),
    ):
        status, _, err = operator.run(*arguments)
        assert status == 1
        assert "the devices are read from 'nodes', which is another's" in err


def test_without_an_inventory_there_is_nothing_to_list(sqlite_operator: Operator) -> None:
    sqlite_operator.settings["sources"] = {}
    status, _, err = sqlite_operator.run("list")
    assert status == 1
    assert err == "sources.inventory: there is no such section. Add it, with a database.\n"


def test_a_locked_inventory_is_one_line(sqlite_operator: Operator) -> None:
    sqlite_operator.run("add", "a", "h", "--protocol", "ssh")
    sqlite_operator.settings["sources"]["inventory"]["database"]["busy_timeout_seconds"] = 0.05
    file = sqlite_operator.folder / "state" / "inventory.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        status, _, err = sqlite_operator.run("remove", "a")
    assert status == 1
    (line,) = err.splitlines()
    assert "inventory.sqlite: database is locked; nothing was changed." in line


# --- probe ----------------------------------------------------------------------------------------


def lines_of(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_a_probe_prints_each_step_and_the_values_with_their_units(
    sqlite_operator: Operator,
) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = str(server.getsockname()[1])
        status, out, err = sqlite_operator.run(
            "probe", LOOPBACK, "--protocol", "tcp", "--port", port
        )
    assert (status, err) == (0, "")
    head, *steps, ping_status, rtt = lines_of(out)
    assert " ".join(head) == f"127.0.0.1: TCP connect to 127.0.0.1, port {port}"
    assert all(float(seconds) >= 0 and unit == "s" for seconds, unit, *_ in steps)
    assert steps[-1][2:] == ["it", "is", "up"]
    assert len(steps) > 1
    assert ping_status == ["ping_status", "1"]
    assert (rtt[0], rtt[2]) == ("ping_rtt_ms", "ms")


def test_a_probe_of_a_real_agent_tells_what_it_was_asked(
    sqlite_operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READ_COMMUNITY", COMMUNITY)
    sqlite_operator.settings["polling"]["snmp"] = {
        "credentials": {"core": {"community": {"env": "READ_COMMUNITY"}}}
    }
    with snmpd(tmp_path) as port:
        given = ("--protocol", "snmp", "--port", str(port), "--credential", "core")
        _, out, err = sqlite_operator.run("probe", LOOPBACK, *given)
    assert err == ""
    assert " it is up\n" in out
    assert re.search(r"get of \d+ variables", out)
    assert re.search(r"^memory_utilization_percent +[\d.]+ %$", out, re.MULTILINE)
    assert re.search(r"^uptime_seconds +[\d.]+ s$", out, re.MULTILINE)
    rows = re.search(r"^device_disks +(\d+)\n((?:  .+\n)+)", out, re.MULTILINE)
    assert rows is not None
    assert len(rows[2].splitlines()) == int(rows[1])
    assert re.fullmatch(r"(  /.*: disk_usage_percent [\d.]+ %\n)+", rows[2])


@pytest.mark.parametrize(("chosen", "engine"), [((), "reference"), (("--engine", "fast"), "fast")])
def test_a_probe_asks_an_agent_with_the_engine_that_is_chosen(
    sqlite_operator: Operator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: Sequence[str],
    engine: str,
) -> None:
    monkeypatch.setenv("READ_COMMUNITY", COMMUNITY)
    other = {"reference": "fast", "fast": "reference"}[engine]
    sqlite_operator.settings["polling"]["snmp"] = {
        "engine": other,  # whatever the sweeps use
        "credentials": {"core": {"community": {"env": "READ_COMMUNITY"}}},
    }
    with snmpd(tmp_path) as port:
        given = ("--protocol", "snmp", "--port", str(port), "--credential", "core")
        _, out, err = sqlite_operator.run("probe", LOOPBACK, *given, *chosen)
    assert err == ""
    assert out.splitlines()[0] == (
        f"127.0.0.1: SNMP to 127.0.0.1, port {port}, credential 'core', engine '{engine}'"
    )
    assert " it is up\n" in out
    assert re.search(r"^uptime_seconds +[\d.]+ s$", out, re.MULTILINE)


def test_a_probe_takes_from_the_inventory_what_is_not_said(sqlite_operator: Operator) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = str(server.getsockname()[1])
        given = ("--protocol", "tcp", "--port", port, "--hostname", "Here")
        sqlite_operator.run("add", "a", LOOPBACK, *given)
        for host in ("a", "Here", LOOPBACK):
            status, out, _ = sqlite_operator.run("probe", host)
            assert status == 0
            assert out.startswith(f"a: TCP connect to 127.0.0.1, port {port}\n")


def test_a_device_that_does_not_answer_is_status_1_and_says_why(
    sqlite_operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMUNITY", "s3cret-community")
    sqlite_operator.settings["polling"]["snmp"]["credentials"] = {
        "core": {"community": {"env": "COMMUNITY"}}
    }
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((LOOPBACK, 0))
        port = str(silent.getsockname()[1])
        given = ("--protocol", "snmp", "--port", port, "--credential", "core")
        status, out, err = sqlite_operator.run("probe", LOOPBACK, *given)
    assert status == 1
    assert "it is down: timeout: " in out
    assert ["uptime_seconds", "-", "(timeout)"] in lines_of(out)
    assert "s3cret" not in out + err


def test_a_probe_ends_when_its_time_is_over(
    sqlite_operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMUNITY", "public")
    sqlite_operator.settings["polling"]["snmp"] = {
        "timeout_seconds": 30,
        "credentials": {"core": {"community": {"env": "COMMUNITY"}}},
    }
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((LOOPBACK, 0))
        port = str(silent.getsockname()[1])
        given = ("--protocol", "snmp", "--port", port, "--credential", "core", "--timeout", "0.2")
        status, out, _ = sqlite_operator.run("probe", LOOPBACK, *given)
    assert status == 1
    assert "it is down: timeout: not done within 0.2 s" in out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("a.example",), 1, "a.example: is not in the inventory. Say how to ask it"),
        (("a", "--protocol", "telnet"), 2, "--protocol: expected one of ping, tcp, snmp, ssh"),
        (("10.0.0.300", "--protocol", "ping"), 1, "expected an IP address or a host name"),
        (("h", "--protocol", "snmp", "--credential", "x" * 200), 1, "name of a credential"),
    ],
)
def test_what_cannot_be_probed_says_so(
    sqlite_operator: Operator, arguments: tuple[str, ...], status: int, says: str
) -> None:
    ended, out, err = sqlite_operator.run("probe", *arguments)
    assert (ended, out) == (status, "")
    assert says in err
