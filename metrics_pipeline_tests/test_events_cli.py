"""`metrics-pipeline events follow` as an operator runs it, and the examples of docs/events.md."""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.cli import main
from metrics_pipeline.core.events import (
    Event,
    Meta,
    RunIdentity,
    aggregation_completed,
    aggregation_failed,
    connection_established,
)
from metrics_pipeline.events.json_lines import JsonLines
from metrics_pipeline.events.redis_stream import RedisStream
from metrics_pipeline.events_cli import moment
from metrics_pipeline.events_commands import in_words
from metrics_pipeline.settings_file import load_settings
from metrics_pipeline.simulators.loopback_server import Answer, LoopbackServer, Request
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.redis_server import RedisServer
from metrics_pipeline_tests.servers import wait_until

DOCS = Path(__file__).parents[1] / "docs" / "events.md"
FOLLOW = [sys.executable, "-m", "metrics_pipeline", "events", "follow"]
TO_FILE = {"kind": "json_lines"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory; the settings in it send events to a file."""
    write_settings(tmp_path, TO_FILE)
    monkeypatch.setenv(STATE_DIR_VARIABLE, str(tmp_path))
    monkeypatch.setenv(SETTINGS_VARIABLE, str(tmp_path / "settings.yaml"))
    return tmp_path


def write_settings(folder: Path, transport: Mapping[str, Any] | None) -> None:
    document = {"version": 1, "sources": {}, "events": {"transport": transport}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(document))


def send(*events: Event) -> None:
    """To where the settings say."""
    transport = load_settings().events.transport
    assert transport is not None
    sink = JsonLines(transport) if transport.kind == "json_lines" else RedisStream(transport)  # type: ignore[arg-type]
    sink.send([event.to_json() for event in events])
    sink.close()


@functools.cache
def now() -> float:
    """When the first of these tests ran; they were collected perhaps long before."""
    return time.time()


def failed(run: str, at: float | None = None, said: str = "no answer") -> Event:
    at = now() if at is None else at
    return aggregation_failed(
        "fleet_counts",
        run=RunIdentity(run, at),
        error_message=said,
        error_type="SourceUnreachable",
        failed_at=at,
    )


def completed(run: str, at: float | None = None) -> Event:
    at = now() if at is None else at
    return aggregation_completed(
        "fleet_counts",
        run=RunIdentity(run, at),
        entries_processed=7,
        duration_ms=12.5,
        completed_at=at,
    )


class Webhook(LoopbackServer):
    """Keeps what is posted to it; `failures` times it says that it is overloaded."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[Any] = []
        self.failures = 0

    def respond(self, request: Request) -> Answer:
        if self.failures > 0:
            self.failures -= 1
            return Answer(503, b"")
        self.posted.append(json.loads(request.body))
        return Answer(200, b"")


@contextmanager
def started(command: Sequence[str] | str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process, which is ended, and with it those that it started."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def examples(language: str) -> list[str]:
    """The programs of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The command lines of the page."""
    return re.findall(r"^    ((?:metrics-pipeline|python3) .*)$", DOCS.read_text(), re.MULTILINE)


def as_installed(command: str) -> str:
    """With this interpreter, as a shell gets it."""
    python = shlex.quote(sys.executable)
    command = command.replace("metrics-pipeline ", f"{python} -m metrics_pipeline ")
    return command.replace("python3 ", f"{python} ")


def test_events_are_told_in_words_by_type_and_age(capsys: pytest.CaptureFixture[str]) -> None:
    robot = connection_established("robot\x1b[2J\n", connection_id="c1", connected_at=now())
    send(completed("old", now() - 7200), completed("run-1"), failed("run-2"), robot)
    assert main(["events", "follow", "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == [
        "metrics.aggregation_completed",
        "metrics.aggregation_failed",
        "telemetry.connection_established",
    ]
    assert lines[0].endswith("fleet_counts entries_processed=7 duration_ms=12.5 run=run-1")
    assert "error_message=no answer error_type=SourceUnreachable run=run-2" in lines[1]
    assert "robot\\x1b[2J\\n connection_id=c1" in lines[2]
    assert main(["events", "follow", "--once", "--since", "3h", "--type", "*completed"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_as_json_each_event_is_whole_once_and_what_is_none_is_skipped(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    send(completed("run-1"), completed("run-1"))
    with (state / "events.jsonl").open("a") as file:
        file.write("not an event\n{}\n")
    send(failed("run-2"))
    assert main(["events", "follow", "--once", "--json"]) == 0
    said = capsys.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == [
        json.loads(each.to_json()) for each in (completed("run-1"), failed("run-2"))
    ]
    assert said.err.count("a line was skipped") == 2


@pytest.mark.parametrize(
    ("transport", "problem"), [(None, "events go nowhere"), ({"kind": "log"}, "go to the log")]
)
def test_what_cannot_be_followed_is_told(
    state: Path, capsys: pytest.CaptureFixture[str], transport: dict[str, str] | None, problem: str
) -> None:
    write_settings(state, transport)
    assert main(["events", "follow"]) == 1
    assert problem in capsys.readouterr().err


def test_a_server_that_is_away_is_status_1_where_it_is_asked_once(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "url").write_text("redis://:hunter2@127.0.0.1:1/0")
    write_settings(state, {"kind": "redis_stream", "url": {"file": "url"}})
    assert main(["events", "follow", "--once"]) == 1
    said = capsys.readouterr().err
    assert "Check that Redis runs" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("given_", ["yesterday", "10 m", "-5m", "1w", "", "9" * 400 + "s"])
def test_a_moment_that_is_none_is_told_with_examples(given_: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected 90s"):
        moment(given_)


def test_a_moment_is_an_age_or_a_time() -> None:
    assert abs(moment("2h") - (now() - 7200)) < 60
    assert moment("2026-11-21T18:00:00Z") == 1795284000.0
    assert moment("999999999d") == 0.0


@given(
    st.floats(allow_nan=False),
    st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.floats() | st.none()),
    st.text(max_size=10),
)
def test_whatever_an_event_says_is_one_line_that_a_terminal_does_not_obey(
    timestamp: float, payload: dict[str, Any], word: str
) -> None:
    event = Event(word, word, "x_service", None, timestamp, payload, Meta(word))
    assert in_words(event).isprintable()


def test_ctrl_c_is_a_good_end_and_events_come_as_they_are_sent() -> None:
    with started([*FOLLOW, "--json"]) as process:
        assert process.stdout is not None
        send(completed("run-1"))
        assert json.loads(process.stdout.readline())["meta"]["correlation_id"] == "run-1"
        send(failed("run-2"))
        assert json.loads(process.stdout.readline())["meta"]["correlation_id"] == "run-2"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_reader_that_has_enough_is_a_good_end() -> None:
    send(*(completed(str(number)) for number in range(3000)))
    command = f"{shlex.join(FOLLOW)} --once | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


def test_the_page_shows_a_program_for_each_use() -> None:
    assert [each.split()[1] for each in examples("python")] == ["alert.py", "audit.py"]
    assert [each.split()[0] for each in commands()] == [
        "metrics-pipeline",
        "metrics-pipeline",
        "python3",
    ]


def test_the_command_of_the_page_follows(capsys: pytest.CaptureFixture[str]) -> None:
    send(completed("run-1"))
    assert main([*shlex.split(commands()[0])[1:], "--once"]) == 0
    assert "run=run-1" in capsys.readouterr().out


def test_the_alert_of_the_page_posts_each_failure_and_outlives_those_of_the_webhook(
    state: Path,
) -> None:
    program, pauses = examples("python")[0], "(1, 5, 0)"
    assert pauses in program
    (state / "alert.py").write_text(program.replace(pauses, "(0, 0, 0)"))
    send(completed("run-1"), failed("run-2"))
    with Webhook() as server:
        posted = server.posted
        server.failures = 2
        url = f"http://{server.host}/hook"
        command = as_installed(commands()[1]).replace("https://chat.example.net/hook", url)
        with started(["bash", "-c", command], cwd=state) as process:
            assert process.stderr is not None
            wait_until(lambda: len(posted) == 1, "the failure is posted at the third try")
            server.failures = 3
            send(failed("run-3", said="nobody hears it"))
            said = process.stderr.readline()
            send(failed("run-4", said="it fell"))
            wait_until(lambda: len(posted) == 2, "the next one is posted")
    assert posted[1] == {"text": "fleet_counts failed: SourceUnreachable: it fell"}
    assert "503" in said
    assert said.endswith("SourceUnreachable: nobody hears it\n")


def die_while_writing(server: RedisServer, stream: str, log: Path) -> None:
    """As the reader that has two entries, one trimmed, the other in half a line."""
    send(completed("trimmed"), completed("torn"))
    with server.client as client:
        found = client.xreadgroup("audit", "reader", {stream: ">"})
        (first, _), (_, fields) = found[0][1][-2:]
        client.xdel(stream, first)
    with log.open("ab") as torn:
        torn.write(fields[b"event"][:40])


def test_the_audit_log_of_the_page_has_each_event_once_though_its_reader_dies(state: Path) -> None:
    (state / "audit.py").write_text(examples("python")[1])
    log = state / "audit.jsonl"

    def audited() -> int:
        return len(log.read_text().splitlines()) if log.exists() else 0

    server = RedisServer(state).start()
    try:
        (state / "url").write_text(server.url)
        write_settings(state, {"kind": "redis_stream", "url": {"file": "url"}})
        command = shlex.split(as_installed(commands()[2]).replace("$REDIS_URL", server.url))
        with started(command, cwd=state):
            send(*(completed(str(number)) for number in range(100)))
            wait_until(lambda: audited() == 100, "all are written")
        die_while_writing(server, command[-2], log)
        with started(command, cwd=state):
            send(*(completed(str(number)) for number in range(100, 200)))
            wait_until(lambda: audited() >= 201, "all are written again")
    finally:
        server.stop()
    runs = [json.loads(line)["meta"]["correlation_id"] for line in log.read_text().splitlines()]
    assert runs == [*map(str, range(100)), "torn", *map(str, range(100, 200))]
