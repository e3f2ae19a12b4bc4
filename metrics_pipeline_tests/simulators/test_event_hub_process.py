"""The hub in a process of its own, and what it is told."""

from __future__ import annotations

import subprocess
import sys

import pytest
from azure.eventhub import EventHubProducerClient

from metrics_pipeline.simulators.event_hub.commands import METHODS, carry_out
from metrics_pipeline.simulators.event_hub.process import EventHubProcess, event_hub_process
from metrics_pipeline.simulators.event_hub.server import serve_event_hub


def test_a_hub_in_its_own_process_is_told_and_is_read() -> None:
    with event_hub_process(partition_count=2) as hub:
        assert hub.do("append", partition="1", body='{"fcnt": $n}', times=30_000) == 30_000
        with EventHubProducerClient.from_connection_string(hub.connection_string) as client:
            about = client.get_partition_properties("1")
        assert about["last_enqueued_sequence_number"] == 29_999
        hub.do("drop_before", partition="1", sequence_number=29_990)
        assert hub.do("event_counts") == {"0": 0, "1": 10}
        with pytest.raises(ValueError, match="told to detach and said TypeError"):
            hub.do("detach", colour="green")
        hub.do("restart", down_seconds=0.0)


def test_the_process_ends_with_its_input_and_at_a_signal() -> None:
    command = [sys.executable, "-m", "metrics_pipeline.simulators.event_hub"]
    done = subprocess.run(command, input=b"", capture_output=True, check=True)
    assert (done.stdout[:22], done.stderr) == (b'{"connection_string": ', b"")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(20) == 0


def count_for_ever(hub: EventHubProcess) -> None:
    while True:
        hub.do("event_counts")


def test_a_process_that_has_ended_says_so() -> None:
    with event_hub_process() as hub:
        subprocess.run(["kill", str(hub.pid)], check=True)
        with pytest.raises((EOFError, BrokenPipeError)):
            count_for_ever(hub)


@pytest.mark.parametrize(
    "line",
    ["", "[]", "{}", '{"do": "else"}', '{"do": "slow"}', '{"do": "append", "body": 1}', "{"],
)
def test_a_line_that_is_no_command_is_answered_with_an_error(line: str) -> None:
    with serve_event_hub() as hub:
        assert carry_out(hub, line).startswith('{"error": "')


def test_every_command_is_carried_out() -> None:
    arguments = {
        "drop_before": '"partition": "0", "sequence_number": 1',
        "restart": '"down_seconds": 0.0',
        "slow": '"events_per_second": 5.0, "partition": "0"',
        "stall": '"is_on": true',
    }
    with serve_event_hub() as hub:
        answers = [
            carry_out(hub, f'{{"do": "{name}", {arguments[name]}}}')
            if name in arguments
            else carry_out(hub, f'{{"do": "{name}"}}')
            for name in METHODS
        ]
    assert [answer for answer in answers if not answer.startswith('{"done": ')] == []
