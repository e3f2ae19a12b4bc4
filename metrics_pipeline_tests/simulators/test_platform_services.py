"""The simulated services, asked over HTTP: they rise and fall, break, and come back from 0."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from metrics_pipeline.core.service_counters import KNOWN_COUNTERS, WAITING
from metrics_pipeline.simulators.platform_services import (
    WELL_STEPS,
    Condition,
    PlatformService,
    PlatformTraffic,
    ServiceProcess,
    SimulatedPlatform,
    serve_platform_services,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import PLAIN_HTTP, wait_until


def get(url: str) -> httpx.Response:
    return PLAIN_HTTP.get(url, timeout=PATIENCE_SECONDS, headers={"Connection": "close"})


def counters_at(url: str) -> Mapping[str, Any]:
    counters: Mapping[str, Any] = get(url).json()["counters"]
    return counters


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[dict[str, ServiceProcess]]:
    with ExitStack() as running:
        yield {
            name: running.enter_context(ServiceProcess(name, tmp_path / f"{name}_url"))
            for name in KNOWN_COUNTERS
        }


def test_all_four_answer_at_once_at_the_addresses_in_the_files(tmp_path: Path) -> None:
    with serve_platform_services(directory=tmp_path / "services", step_seconds=60, seed=1):
        for name, known in KNOWN_COUNTERS.items():
            file = tmp_path / "services" / f"{name}_url"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert list(counters_at(file.read_text().strip())) == list(known)


def test_time_passes_while_it_is_served(tmp_path: Path) -> None:
    with serve_platform_services(directory=tmp_path, step_seconds=0.02, seed=1):
        url = (tmp_path / "ingest_url").read_text().strip()
        wait_until(lambda: counters_at(url)["messages_received"] > 300, "some steps are over")


def test_what_waits_rises_and_falls_and_the_rest_only_rises() -> None:
    traffic = PlatformTraffic(Random(1))
    seen: dict[str, list[int]] = {}
    for _ in range(200):
        traffic.step()
        for counters in traffic.counters.values():
            for name, value in counters.items():
                seen.setdefault(name, []).append(value)
    for name, values in seen.items():
        assert min(values) >= 0
        falls = any(later < before for before, later in itertools.pairwise(values))
        assert falls == (name in WAITING)
        assert values[-1] != values[0]


def test_every_message_is_written_rejected_or_waiting() -> None:
    traffic = PlatformTraffic(Random(2))
    for _ in range(50):
        traffic.step()
        ingest = traffic.counters["ingest"]
        ended = ingest["messages_written"] + ingest["messages_rejected"]
        assert ingest["messages_received"] == ended + ingest["queue_depth"]


def test_nothing_breaks_at_first_and_everything_in_time(
    processes: dict[str, ServiceProcess],
) -> None:
    platform = SimulatedPlatform(processes, Random(3))
    for _ in range(WELL_STEPS):
        platform.step()
        assert {process.condition for process in processes.values()} == {Condition.WELL}
    seen: set[Condition] = set()
    for _ in range(2000):
        platform.step()
        seen |= {process.condition for process in processes.values()}
    assert seen == set(Condition)


def test_a_service_that_refused_comes_back_at_its_port_and_counts_from_0(
    processes: dict[str, ServiceProcess], tmp_path: Path
) -> None:
    ingest = processes["ingest"]
    url = (tmp_path / "ingest_url").read_text().strip()
    ingest.show({"queue_depth": 5})
    ingest.become(Condition.REFUSING)
    with pytest.raises(httpx.ConnectError):
        get(url)
    ingest.become(Condition.WELL)
    assert (tmp_path / "ingest_url").read_text().strip() == url
    assert counters_at(url) == dict.fromkeys(KNOWN_COUNTERS["ingest"], 0)


def test_a_service_whose_port_was_taken_says_where_it_is_now(
    processes: dict[str, ServiceProcess], tmp_path: Path
) -> None:
    ingest = processes["ingest"]
    url = (tmp_path / "ingest_url").read_text().strip()
    ingest.become(Condition.REFUSING)
    with PlatformService({}, port=int(url.rpartition(":")[2].partition("/")[0])):
        ingest.become(Condition.WELL)
        other = (tmp_path / "ingest_url").read_text().strip()
    assert other != url
    assert list(counters_at(other)) == list(KNOWN_COUNTERS["ingest"])


def test_a_service_that_was_ended_says_nothing_on_connections_that_are_open() -> None:
    with httpx.Client(verify=False, timeout=PATIENCE_SECONDS) as client:
        with PlatformService({"n": 1}) as service:
            assert client.get(service.url).status_code == 200
        with pytest.raises(httpx.TransportError):
            client.get(service.url)


@pytest.mark.parametrize(
    ("condition", "status", "beginning"),
    [
        (Condition.WRONG_STATUS, 503, b'{"status": "ok"'),
        (Condition.BAD_JSON, 200, b'{"status": "ok"'),
        (Condition.REDIRECTING, 302, b""),
        (Condition.BAD_COUNTERS, 200, b'{"status": "ok", "counters": {"n": -8}}'),
    ],
)
def test_what_a_broken_service_says(condition: Condition, status: int, beginning: bytes) -> None:
    with PlatformService({"n": 7}) as service:
        service.condition = condition
        reply = get(service.url)
    assert reply.status_code == status
    assert reply.content.startswith(beginning)


def test_there_is_no_other_page() -> None:
    with PlatformService({}) as service:
        assert get(service.url + "y").status_code == 404
