"""What events that cannot be decoded cost those that can, measured side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from metrics_pipeline.core.telemetry import BatchLimits
from metrics_pipeline.simulators.event_hub.process import EventHubProcess, event_hub_process
from metrics_pipeline_tests.benchmarks.interleaved import measure_cpu_seconds
from metrics_pipeline_tests.ingestion.ingesting import Pipeline, has_stored, pipeline

GOOD = 2000
"""Events of a run that can be decoded; beside as many that cannot."""

AT_ONCE = 200
"""Good and bad ones come in turns of so many: in each micro-batch there are both."""

ROUNDS = 3
MOST_TIMES_AS_LONG = 5.0
"""As good events alone; 2.2 to 2.5 times was measured: a dead letter takes a little more CPU time
than an uplink that is stored."""

UPLINK = '{"eui": "A84041000000$device", "fcnt": $n, "rssi": -80, "lsnr": 7.5, "data": {"n": 1}}'
POISON = (
    "{no JSON $n",
    '"text $n"',
    '{"rssi": $n}',
    '{"eui": "A84041000000$device", "data": {"n": NaN}}',
)


def draining(hub: EventHubProcess, made: Pipeline, with_poison: bool) -> Callable[[], None]:
    """Puts in the events and stores them; the hub's own work is that of another process."""

    def drain() -> None:
        for turn in range(GOOD // AT_ONCE):
            hub.do("append", partition="0", body=UPLINK, times=AT_ONCE)
            if with_poison:
                body = POISON[turn % len(POISON)]
                hub.do("append", partition="0", body=body, times=AT_ONCE)
        report = made.run(has_stored(GOOD * (1 + with_poison)))
        found = report.partitions["0"]
        assert (found.points, sum(found.dead_letters.values())) == (GOOD, GOOD * with_poison)

    return drain


def test_a_run_of_as_many_poison_events_as_good_ones_takes_a_few_times_the_cpu_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 0.2)
    with event_hub_process(partition_count=1) as hub:
        made = pipeline(hub, tmp_path, limits=BatchLimits(max_events=1000, max_wait_seconds=0.2))
        contenders = {
            "good": draining(hub, made, with_poison=False),
            "poisoned": draining(hub, made, with_poison=True),
        }
        seconds = measure_cpu_seconds(contenders, ROUNDS)
    assert seconds["poisoned"] < MOST_TIMES_AS_LONG * seconds["good"]
