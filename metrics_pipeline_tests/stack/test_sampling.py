"""Samples with the real daemon and code server: killed, started again, switched off.

One stack, one story; each test goes on where the one before ended.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.sampling.pace import USUAL
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.sampled_definitions import SAMPLED_VARIABLE
from metrics_pipeline_tests.sampled_http import CountServer, count_server
from metrics_pipeline_tests.sampled_stack import SampledStack, sampled_stack

REPORT_SECONDS = 10
SILENT_SECONDS = 4
"""Of slots that are 1 s apart."""
DOCUMENT = {
    "version": 1,
    "sources": {},
    "platform": {"sample_every_seconds": 1, "report_every_seconds": REPORT_SECONDS},
}
MATERIALIZATIONS = """{ assetOrError(assetKey: {path: ["platform", "a"]}) { ... on Asset {
  assetMaterializations(limit: 100) { timestamp } } } }"""


@dataclass(slots=True)
class Story:
    """The stack, and the server that it asks."""

    it: SampledStack
    server: CountServer

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            time.sleep(0.5)

    def missed(self) -> int:
        """The slots of which it is said that they were not sampled."""
        slots = self.it.slots()
        return sum(slots[name] for name in slots if name[1].startswith("missed"))

    def reported(self) -> list[float]:
        """When, in seconds since the epoch; the oldest first."""
        asset = self.it.ask(MATERIALIZATIONS)["assetOrError"]
        found = asset.get("assetMaterializations", [])
        return sorted(float(each["timestamp"]) / 1000 for each in found)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder: Path = tmp_path_factory.mktemp("sampled")
    file = folder / "settings.yaml"
    document = DOCUMENT | {"exporter": {"port": 0}}
    file.write_text(yaml.safe_dump(document))
    with (
        count_server() as server,
        sampled_stack(
            folder, file, document, {SAMPLED_VARIABLE: json.dumps({"a": server.url})}
        ) as it,
    ):
        yield Story(it, server)


def slots(server: CountServer) -> list[int]:
    """For which it was asked, in seconds since the epoch."""
    return [ns // NS_PER_SECOND for ns in server.slots_ns]


def test_every_slot_is_sampled_between_ticks_and_reported_at_most_so_often(story: Story) -> None:
    story.wait_until(lambda: len(story.reported()) >= 2, "there are two reports")
    times = story.reported()
    assert min(b - a for a, b in itertools.pairwise(times)) >= REPORT_SECONDS - 1
    asked = slots(story.server)
    assert asked == sorted(set(asked))
    # Between two ticks are five slots.
    assert any(b - a == 1 for a, b in itertools.pairwise(asked))
    left_out = set(range(asked[0], asked[-1])) - set(asked)
    story.wait_until(lambda: story.missed() >= len(left_out), "what was left out is counted")


def test_a_code_server_that_is_killed_is_followed_by_one_sampler(story: Story) -> None:
    story.it.kill_code_server()
    asked = len(story.server.asked_ns)
    time.sleep(2)
    assert len(story.server.asked_ns) == asked
    story.it.start_code_server()
    story.wait_until(lambda: len(story.server.asked_ns) >= asked + 5, "it is sampled again")
    assert slots(story.server) == sorted(set(slots(story.server)))
    story.wait_until(lambda: ("a", "missed_stopped") in story.it.slots(), "the gap is counted")
    gap = slots(story.server)[asked] - slots(story.server)[asked - 1]
    assert 2 <= story.it.slots()["a", "missed_stopped"] <= gap


def test_a_sensor_that_is_switched_off_ends_the_sampling(story: Story) -> None:
    story.wait_until(story.it.is_loaded, "the webserver has found the code server again")
    switched = 0.0

    def is_silent() -> bool:
        nonlocal switched
        # The daemon overwrites a switch that comes within its tick (docs/decisions/0008).
        if not story.it.is_switched_off():
            story.it.switch_off()
            switched = time.time()
        return time.time() - story.server.asked_ns[-1] / NS_PER_SECOND > SILENT_SECONDS

    story.wait_until(is_silent, "nothing is asked")
    # A tick may have been under way.
    assert story.server.asked_ns[-1] / NS_PER_SECOND - switched < USUAL.hold_seconds + 5
    story.wait_until(lambda: story.it.lease_owner() == "", "the lease is given back")
