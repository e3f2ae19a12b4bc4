"""Access tokens that expire while links live, at a hub that shuts out whoever brings no new one."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.eventhub._pyamqp import cbs

from metrics_pipeline.access.event_hub_credentials import HubPolicy, Token
from metrics_pipeline.core.errors import CredentialRefused, SourceRefused, SourceUnreachable
from metrics_pipeline.ingestion import IngestionReport
from metrics_pipeline.simulators.event_hub.server import (
    EventHubServer,
    epoch_milliseconds,
)
from metrics_pipeline_tests.ingestion.ingesting import (
    append,
    events,
    not_once,
    pipeline,
)
from metrics_pipeline_tests.patience import PATIENCE_SECONDS

PARTITIONS = 2
LIFETIME = "metrics_pipeline.access.event_hub_credentials.SAS_LIFETIME_SECONDS"
RENEWED_BEFORE_SECONDS = 5
"""So long before a token expires a new one is put. Of tokens for an hour that is 6 minutes."""

SENT_SECONDS, PAUSE_SECONDS = 8.0, 0.02
"""How long events are sent, and between two of them: longer than a token is good."""

AHEAD_MS = 1000
"""So far the clock of a hub may be ahead of ours: tokens expire before we take them for expired."""


def clock_that_is_ahead() -> int:
    return epoch_milliseconds() + AHEAD_MS


@pytest.fixture
def hub() -> Iterator[EventHubServer]:
    with EventHubServer(partition_count=PARTITIONS, epoch_ms=clock_that_is_ahead) as server:
        yield server
    gc.collect()


@contextmanager
def sending(
    hub: EventHubServer, seconds: float, is_enough: Callable[[], bool] = lambda: True
) -> Iterator[list[int]]:
    """Numbered events come for so long at least; afterwards the list says how many."""
    count = [0]

    def send() -> None:
        least = time.monotonic() + seconds
        most = least + PATIENCE_SECONDS
        while (now := time.monotonic()) < least or (not is_enough() and now < most):
            append(hub, [count[0]], str(count[0] % PARTITIONS))
            count[0] += 1
            time.sleep(PAUSE_SECONDS)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield count
    finally:
        thread.join()


def test_a_renewal_that_is_refused_on_a_live_link_does_not_give_the_partition_up(
    hub: EventHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = HubPolicy.token
    all_are_read = threading.Event()
    readers_asked: list[str] = []

    def sign_but_once(policy: HubPolicy, address: str, now: float) -> Token:
        if "consumergroups" in address and all_are_read.is_set():
            readers_asked.append(address)
            if len(readers_asked) == 1:
                raise CredentialRefused("event_hub", "a token", "invalid_client", "Wait.")
        return sign(policy, address, now)

    monkeypatch.setattr(HubPolicy, "token", sign_but_once)
    is_due = cbs.check_expiration_and_refresh_status
    monkeypatch.setattr(
        *(cbs, "check_expiration_and_refresh_status"),
        lambda expires_on, _window: is_due(expires_on, RENEWED_BEFORE_SECONDS),
    )
    monkeypatch.setattr(LIFETIME, RENEWED_BEFORE_SECONDS + 1)
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 0.2)
    made = pipeline(hub, tmp_path)
    append(hub, range(10), "0")
    append(hub, range(10, 20), "1")

    def is_renewed(report: IngestionReport) -> bool:
        if events(report) == 20:
            all_are_read.set()
        if len(readers_asked) > 1 and not hub.event_counts()["0"] > 10:
            append(hub, range(20, 30), "0")
            append(hub, range(30, 40), "1")
        errors = [each.error for each in report.partitions.values()]
        return events(report) == 40 or any(isinstance(each, SourceRefused) for each in errors)

    report = made.run(is_renewed)
    failures = [each for part in report.partitions.values() for each in part.failures]
    assert [type(each) for each in failures] == [SourceUnreachable]
    assert "no good token any more (invalid_client)" in str(failures[0])
    assert not_once(made.stored(), 40) == {}


def test_tokens_are_renewed_on_live_links_and_nobody_has_to_come_again(
    hub: EventHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_due = cbs.check_expiration_and_refresh_status
    monkeypatch.setattr(
        *(cbs, "check_expiration_and_refresh_status"),
        lambda expires_on, _window: is_due(expires_on, RENEWED_BEFORE_SECONDS),
    )
    monkeypatch.setattr(LIFETIME, RENEWED_BEFORE_SECONDS + 2)
    monkeypatch.setattr("metrics_pipeline.ingestion.run.ASK_SECONDS", 0.5)
    made = pipeline(hub, tmp_path)
    all_sent = threading.Event()

    def ask() -> None:  # as the sensor does
        with made.opened() as (stream, _), sending(hub, SENT_SECONDS) as count:
            until = time.monotonic() + SENT_SECONDS
            while time.monotonic() < until:
                assert len(stream.partitions()) == PARTITIONS
                time.sleep(0.3)
        assert count[0] > 0
        all_sent.set()

    def is_all_stored(report: IngestionReport) -> bool:
        return all_sent.is_set() and events(report) == sum(hub.event_counts().values())

    report = made.run(is_all_stored, meanwhile=ask)
    assert report.seconds > RENEWED_BEFORE_SECONDS + 2  # no token of the beginning is good now
    assert not_once(made.stored(), sum(hub.event_counts().values())) == {}
    assert [each.failures for each in report.partitions.values()] == [(), ()]
    assert hub.connections_made() == 2 + PARTITIONS  # who asks, twice, and the readers


def test_a_link_that_is_shut_out_with_its_token_comes_again_and_nothing_is_lost_or_doubled(
    hub: EventHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics_pipeline.ingestion.run.PUBLISH_SECONDS", 0.2)
    monkeypatch.setattr(LIFETIME, 3)  # 2 by the clock of the hub; too short to be renewed
    made = pipeline(hub, tmp_path)
    all_shut_out, all_sent = threading.Event(), threading.Event()

    def send() -> None:
        with sending(hub, seconds=5, is_enough=all_shut_out.is_set):
            pass
        all_sent.set()

    def is_all_stored(report: IngestionReport) -> bool:
        shut_out = [each for each in report.partitions.values() if each.failures]
        if len(shut_out) == PARTITIONS:
            all_shut_out.set()
        return all_sent.is_set() and events(report) == sum(hub.event_counts().values())

    report = made.run(is_all_stored, meanwhile=send)
    assert not_once(made.stored(), sum(hub.event_counts().values())) == {}
    for partition in report.partitions.values():
        # Were it taken for a refused credential, the partition would not be gone on with.
        assert {type(failure) for failure in partition.failures} == {SourceUnreachable}
        assert "has no good token any more" in str(partition.failures)
