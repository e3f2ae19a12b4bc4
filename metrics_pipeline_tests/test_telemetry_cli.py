"""`metrics-pipeline telemetry …` as an operator runs it, over a hub on the wire."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.cli import build_parser, main
from metrics_pipeline.core.catalog import EVENTHUB_LOST_EVENTS
from metrics_pipeline.core.errors import PartitionTaken
from metrics_pipeline.core.ports import PartitionReader
from metrics_pipeline.core.telemetry import BatchLimits
from metrics_pipeline.sources.streams import open_stream
from metrics_pipeline_tests.orchestration.telemetry_pipeline import (
    DEVICE,
    EUI,
    OTHER_GROUP,
    Telemetry,
    telemetry,
    uplink,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import wait_until

MODULE = {"iothub-connection-auth-method": '{"scope":"module"}'}
SOON = BatchLimits(max_wait_seconds=1.0)
EVENTS = 8


class Operator:
    """Runs the command over what a run of telemetry has left."""

    def __init__(self, it: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
        self.it = it
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The exit status, and what was said."""
        settings = str(self.it.folder / "settings.yaml")
        options = ("--settings", settings, "--state-dir", str(self.it.folder))
        self._capsys.readouterr()
        status = main(["telemetry", *arguments, *options])
        said = self._capsys.readouterr()
        return status, said.out, said.err

    def has_read_all(self) -> bool:
        """Read for a window, and say whether there was time for all of both partitions."""
        assert self.it.run().success
        read = self.it.checkpoints().values()
        return sum(each.position.sequence_number + 1 for each in read) == EVENTS

    def listed(self, *arguments: str) -> list[dict[str, object]]:
        """The dead letters, as JSON gives them."""
        status, out, _ = self.run("dead-letters", "--json", *arguments)
        assert status == 0
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Operator]:
    # Set, so that what `main` sets ends with the test.
    for name in (SETTINGS_VARIABLE, STATE_DIR_VARIABLE):
        monkeypatch.setenv(name, "")
    with telemetry(tmp_path) as it:
        yield Operator(it, capsys)


@pytest.fixture
def full(operator: Operator) -> Operator:
    """Six events of partition 0 and two of 1, of which four are dead letters."""
    for body in (uplink(0), b"{no JSON", uplink(2), b'{"eui": "\xc2\x9b31m"}', b"\xff", uplink(5)):
        operator.it.send_body(body)
    operator.it.send_body(b"{no JSON either", "1")
    operator.it.send_body(uplink(1, device=1), "1")
    wait_until(operator.has_read_all, "all are read")
    return operator


def test_dead_letters_are_listed_and_counted_by_reason(full: Operator) -> None:
    status, out, _ = full.run("dead-letters")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split()[:5] == ["id", "partition", "number", "accepted", "reason"]
    assert len(lines) == 1 + 4 + 1
    assert lines[-1] == "4 in all: 1 invalid_eui, 2 not_json, 1 not_utf8"


def test_they_are_chosen_by_reason_and_partition(full: Operator) -> None:
    assert {row["partition"] for row in full.listed("--reason", "not_json")} == {"0", "1"}
    (row,) = full.listed("--reason", "not_json", "--partition", "1")
    assert (row["sequence_number"], row["body_bytes"]) == (0, 15)
    assert len(full.listed("--limit", "2")) == 2
    assert full.run("dead-letters", "--reason", "nonsense")[1].splitlines()[-1] == "0 in all"


def test_one_is_shown_with_its_body_and_nothing_a_terminal_would_obey(full: Operator) -> None:
    (row,) = full.listed("--reason", "invalid_eui")
    status, out, _ = full.run("dead-letters", "--show", str(row["id"]))
    assert status == 0
    assert "event       3 of partition 0" in out
    assert out.splitlines()[-1] == '{"eui": "\\x9b31m"}'
    assert "\x9b" not in out


def test_one_that_is_not_there_is_status_1(full: Operator) -> None:
    status, out, error = full.run("dead-letters", "--show", "999")
    assert (status, out) == (1, "")
    assert "there is no dead letter 999" in error


def test_old_ones_are_purged_and_young_ones_stay(full: Operator) -> None:
    assert full.run("dead-letters", "--purge-older-than", "1")[1].startswith("0 dead letters")
    assert len(full.listed()) == 4
    purged = full.run("dead-letters", "--purge-older-than", "0", "--partition", "1")[1]
    assert purged.startswith("1 dead letters")
    assert {row["partition"] for row in full.listed()} == {"0"}


def test_a_range_is_stored_again_and_nothing_is_there_twice(full: Operator) -> None:
    before, positions = full.it.stored(), full.it.checkpoints()
    status, out, _ = full.run("replay", "--partition", "0", "--from", "1", "--to", "3")
    assert status == 1  # two are no uplinks, still
    assert "3 events were read again, 1 points stored." in out
    assert "2 were refused: 1 not_json, 1 invalid_eui" in out
    assert full.it.stored() == before
    assert len(full.listed()) == 4
    after = full.it.checkpoints()
    assert {name: each.position for name, each in after.items()} == {
        name: each.position for name, each in positions.items()
    }


def test_without_an_end_it_goes_to_the_newest_event(full: Operator) -> None:
    status, out, error = full.run("replay", "--partition", "0", "--from", "2")
    assert status == 1  # two are no uplinks, still
    assert "4 events were read again, 2 points stored." in out
    assert "not in the hub" not in error


@pytest.mark.parametrize("range_", [("--from", "2"), ("--from", "2", "--to", "3")])
def test_where_all_of_a_range_is_stored_the_status_is_0(
    full: Operator, range_: tuple[str, ...]
) -> None:
    full.it.hub.append(b"{}", partition="1", annotations=MODULE)
    full.it.hub.append(uplink(6), partition="1", annotations=DEVICE)
    status, out, error = full.run("replay", "--partition", "1", *range_)
    assert "not in the hub" not in error
    assert "1 foreign_scope" in out
    assert status == 0


def test_a_replay_without_an_end_says_what_is_gone(full: Operator) -> None:
    full.it.hub.drop_before("0", 5)
    status, out, error = full.run("replay", "--partition", "0", "--from", "1")
    assert "1 events were read again, 1 points stored." in out
    assert "4 events are not in the hub (any more)" in error
    assert status == 1


def test_what_the_store_has_lost_is_there_again(full: Operator) -> None:
    (full.it.folder / "embedded.sqlite").unlink()
    full.run("replay", "--partition", "0", "--from", "0")
    assert [point.fields["frame_counter"] for point in full.it.stored()] == [0, 2, 5]


def test_events_that_are_gone_are_told(full: Operator) -> None:
    full.it.hub.drop_before("0", 4)
    status, out, error = full.run("replay", "--partition", "0", "--from", "2", "--to", "5")
    assert status == 1
    assert "2 events were read again" in out
    assert "2 events are not in the hub" in error


def test_a_run_goes_on_where_the_checkpoint_is_after_a_replay(full: Operator) -> None:
    full.run("replay", "--partition", "0", "--from", "0", "--to", "1")
    full.it.send(1, first=6)
    assert full.it.run().success
    assert full.it.checkpoints()["0"].position.sequence_number == 6


@contextmanager
def reading(operator: Operator) -> Iterator[PartitionReader]:
    """A reader as a run has one, which has read all there is of partition 0."""
    telemetry = operator.it.settings.telemetry
    assert telemetry is not None
    with closing(open_stream(telemetry.source)) as stream, closing(stream.open("0", None, 1)) as it:
        assert it.receive(SOON)
        yield it


def test_beside_a_run_in_the_same_group_it_says_what_to_do_and_the_run_goes_on(
    full: Operator,
) -> None:
    with reading(full) as run:
        status, out, error = full.run("replay", "--partition", "0", "--from", "0")
        full.it.send(1, first=6)
        assert [event.sequence_number for event in run.receive(SOON)] == [6]
    assert (status, out) == (1, "")
    assert "consumer group $Default" in error
    assert "name it by --consumer-group" in error


def test_in_another_group_it_reads_beside_a_run(full: Operator) -> None:
    options = ("--from", "0", "--consumer-group", OTHER_GROUP)
    positions = full.it.checkpoints()
    with reading(full) as run:
        status, out, _ = full.run("replay", "--partition", "0", *options)
        full.it.send(1, first=6)
        assert [event.sequence_number for event in run.receive(SOON)] == [6]
    assert status == 1  # three are no uplinks, still
    assert "6 events were read again, 3 points stored." in out
    assert full.it.checkpoints() == positions
    assert len(full.listed()) == 4  # they are the run's, whoever reads them


def test_dead_letters_are_tried_again_beside_a_run(full: Operator) -> None:
    options = ("--reason", "not_json", "--consumer-group", OTHER_GROUP)
    with reading(full):
        status, out, _ = full.run("replay", "--dead-letters", *options)
    assert status == 1  # they are no JSON still
    assert "2 events were read again" in out


def test_a_group_that_is_not_there_is_told(full: Operator) -> None:
    options = ("--partition", "0", "--from", "0", "--consumer-group", "nobody")
    status, _, error = full.run("replay", *options)
    assert status == 1
    assert "nobody" in error


def test_the_checkpoint_is_taken_from_a_run_when_it_is_to_move(full: Operator) -> None:
    with reading(full) as run:
        assert move(full, 3)[0] == 0
        with pytest.raises(PartitionTaken):
            run.receive(SOON)
    assert full.it.checkpoints()["0"].position.sequence_number == 2


@pytest.mark.parametrize("first", [0, 3])
def test_the_checkpoint_moves_when_asked_and_the_next_run_reads_from_there(
    full: Operator, first: int
) -> None:
    options = ("--partition", "0", "--from", str(first), "--move-checkpoint")
    status, out, _ = full.run("replay", *options)
    assert status == 0
    assert f"was at event 5, and is before event {first} now" in out
    assert full.it.checkpoints()["0"].position.sequence_number == first - 1
    before = full.it.stored()
    assert full.it.run().success
    assert full.it.checkpoints()["0"].position.sequence_number == 5
    assert full.it.stored() == before


def move(operator: Operator, first: int) -> tuple[int, str, str]:
    options = ("--partition", "0", "--from", str(first), "--move-checkpoint")
    return operator.run("replay", *options)


def test_what_is_gone_before_a_moved_checkpoint_is_told_and_not_counted_as_lost(
    full: Operator,
) -> None:
    full.it.hub.drop_before("0", 4)
    status, out, error = move(full, 2)
    assert status == 0
    assert "was at event 5, and is before event 4 now" in out
    assert error.splitlines()[-1] == "Events 2 to 3 are not in the hub any more."
    assert full.it.run().success
    assert full.it.checkpoints()["0"].position.sequence_number == 5
    assert EVENTHUB_LOST_EVENTS.name not in full.it.totals()


def test_a_checkpoint_is_not_moved_beyond_the_newest_event(full: Operator) -> None:
    before = full.it.checkpoints()
    status, out, error = move(full, 7)
    assert (status, out) == (1, "")
    assert "has no event 7 in partition 0 yet. The next one is 6" in error
    assert full.it.checkpoints() == before


def test_a_checkpoint_moves_behind_the_newest_event_and_the_next_one_is_read(
    full: Operator,
) -> None:
    move(full, 0)
    assert move(full, 6)[0] == 0
    full.it.send(1, first=6)
    assert full.it.run().success
    assert full.it.checkpoints()["0"].position.sequence_number == 6
    assert [point.fields["frame_counter"] for point in full.it.stored()][-1] == 6


def test_a_checkpoint_moves_in_a_partition_that_never_had_an_event(operator: Operator) -> None:
    assert move(operator, 1)[0] == 1
    assert move(operator, 0)[0] == 0
    operator.it.send(2)
    assert operator.it.run().success
    assert [point.fields["frame_counter"] for point in operator.it.stored()] == [0, 1]


def test_in_a_partition_that_keeps_nothing_a_checkpoint_moves_behind_what_is_gone(
    full: Operator,
) -> None:
    full.it.hub.drop_before("0", 6)
    status, out, _ = move(full, 2)
    assert status == 0
    assert "was at event 5, and is before event 6 now" in out
    full.it.send(1, first=6)
    assert full.it.run().success
    assert full.it.checkpoints()["0"].position.sequence_number == 6
    assert len(full.it.stored()) == 5


def test_dead_letters_that_can_be_decoded_now_are_stored_and_removed(operator: Operator) -> None:
    sent = operator.it.hub.append(uplink(3), partition="0")  # without what IoT Hub adds
    operator.it.send_body(b"{no JSON")
    assert operator.it.run().success
    assert operator.it.dead_letters() == {"invalid_auth_method": 1, "not_json": 1}
    file = operator.it.folder / "settings.yaml"
    file.write_text(
        file.read_text().replace("telemetry:", "telemetry:\n  decode: {is_iot_hub: false}")
    )
    status, out, _ = operator.run("replay", "--dead-letters")
    assert status == 1  # one is no JSON still
    assert "2 events were read again, 1 points stored." in out
    assert "1 dead letters are wholly stored now, and were deleted" in out
    assert operator.it.dead_letters() == {"not_json": 1}
    (point,) = operator.it.stored()
    assert point.tags["device_eui"] == f"{EUI}0"
    assert point.fields["frame_counter"] == 3
    assert point.time_ns % 1000 == sent


def test_of_events_that_are_gone_the_kept_body_is_decoded_if_it_is_whole(
    operator: Operator,
) -> None:
    operator.it.hub.append(uplink(3), partition="0")
    operator.it.hub.append(uplink(4, data="x" * 2000), partition="0")
    assert operator.it.run().success
    operator.it.hub.drop_before("0", 2)
    status, out, error = operator.run("replay", "--dead-letters", "--partition", "0")
    assert status == 1
    assert "1 points stored" in out
    assert "1 are not in the hub any more, and only their beginning is kept" in error
    assert operator.it.dead_letters() == {"invalid_auth_method": 1}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "name --partition and --from"),
        (("--partition", "0"), "name --partition and --from"),
        (("--partition", "0", "--from", "5", "--to", "2"), "--to 2 lies before --from 5"),
        (("--partition", "0", "--from", "5", "--reason", "x"), "--reason goes with"),
        (("--partition", "0", "--from", "1", "--to", "2", "--move-checkpoint"), "leave --to out"),
        (
            ("--partition", "0", "--from", "1", "--consumer-group", "x", "--move-checkpoint"),
            "leave --consumer-group out",
        ),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(
    operator: Operator, arguments: tuple[str, ...], problem: str
) -> None:
    status, out, error = operator.run("replay", *arguments)
    assert (status, out) == (2, "")
    assert problem in error


def test_a_partition_that_is_not_there_is_told(operator: Operator) -> None:
    status, _, error = operator.run("replay", "--partition", "7", "--from", "0")
    assert status == 1
    assert "has no partition '7'" in error


def test_settings_without_telemetry_are_told(operator: Operator) -> None:
    (operator.it.folder / "settings.yaml").write_text("{version: 1, sources: {}}")
    status, _, error = operator.run("dead-letters")
    assert status == 1
    assert "there is no such section" in error


def test_it_runs_as_a_process_and_tells_a_hub_that_is_not_there_without_its_key(
    operator: Operator,
) -> None:
    text = operator.it.hub.connection_string.replace(operator.it.hub.host, "127.0.0.1:1")
    (operator.it.folder / "event_hub").write_text(text)
    folder = str(operator.it.folder)
    command = [sys.executable, "-m", "metrics_pipeline", "telemetry", "replay"]
    options = ["--partition", "0", "--from", "0", "--state-dir", folder]
    settings = ["--settings", f"{folder}/settings.yaml"]
    done = subprocess.run(
        [*command, *options, *settings],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert operator.it.hub.policy.key not in done.stderr


@pytest.mark.parametrize("action", ["dead-letters", "replay"])
def test_help_has_an_example(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["telemetry", action, "--help"])
    assert ended.value.code == 0
    assert "example: metrics-pipeline telemetry" in capsys.readouterr().out
