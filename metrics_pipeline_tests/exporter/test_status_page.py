"""The status page over real HTTP, from real databases, and in a real browser."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.access.database import DatabaseSettings
from metrics_pipeline.core.catalog import CATALOG
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.fetches import to_label
from metrics_pipeline.core.fleet import JOB
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.sample_slots import Outcome
from metrics_pipeline.core.telemetry_assets import LAG, UPLINKS
from metrics_pipeline.exporter.instance_reader import (
    FinishedRun,
    InstanceReader,
    InstanceState,
    JobState,
    RunFailure,
)
from metrics_pipeline.exporter.refresher import Known, Refresher
from metrics_pipeline.exporter.samples import EVERYTHING, Seen
from metrics_pipeline.exporter.status_page import StatusPage, duration, number
from metrics_pipeline.storage import device_labels, snapshots, tallies
from metrics_pipeline.storage.operational import OperationalDatabase
from metrics_pipeline.storage.snapshots import Snapshot
from metrics_pipeline_tests.exporter.instance_fixtures import Runs
from metrics_pipeline_tests.exporter.test_app import LOGIN, PASSWORD, USER, basic, serving
from metrics_pipeline_tests.patience import PATIENCE_SECONDS
from metrics_pipeline_tests.servers import require

COUNTS, STATUS, SCRAPE = "fleet/device_counts", "devices/device_status", "platform/scrape_pipeline"
DAGSTER = "https://dagster.example.net/ui"
EVERY = {COUNTS: 60.0, STATUS: 30.0, SCRAPE: 5.0, UPLINKS: 240.0}
DEVICES = 10_000
VOID = {"meta", "link"}


class Outline(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in its order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        assert self.rawdata == ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]

    @property
    def words(self) -> str:
        """All of the text, each white space one blank."""
        return " ".join("".join(self.text).split())


def fill(database: OperationalDatabase, now_ns: int, devices: int) -> None:
    """What a pipeline leaves that has just collected everything; every tenth device is down."""
    with database.writing() as connection:
        counts = Point("fleet_counts", {"provider": "azure_iot_hub"}, {"device_count": 7}, now_ns)
        snapshots.replace(connection, COUNTS, (counts,), now_ns)
        lag = tuple(
            Point(
                LAG,
                {"partition": str(n)},
                {"lag_events": 1500 * n, "lag_seconds": 70.0 * n},
                now_ns,
            )
            for n in range(2)
        )
        snapshots.replace(connection, UPLINKS, lag, now_ns)
        health = tuple(
            Point("pipeline_health", {"component": name}, {"value": value}, now_ns)
            for name, value in (("score", 87.5), ("freshness", 100.0), ("review", 62.5))
        )
        snapshots.replace(connection, SCRAPE, health, now_ns)
        status = tuple(
            Point(
                "device_status",
                {"device_id": f"device-{n:05}"},
                {"status": "online" if n % 10 else "offline"},
                now_ns,
            )
            for n in range(devices)
        )
        snapshots.replace(connection, STATUS, status, now_ns)
        device_labels.replace(
            connection,
            STATUS,
            [Device(f"device-{n:05}", "h", "10.0.0.1", "router", "ping") for n in range(devices)],
        )
        slots = {
            to_label(("scrape_pipeline", Outcome.SAMPLED)): 12345,
            to_label(("scrape_pipeline", Outcome.LATE)): 2,
        }
        tallies.add(connection, "metrics_pipeline_sample_slots_total", slots)


@contextlib.contextmanager
def exporting(file: Path) -> Iterator[Refresher]:
    database = OperationalDatabase(
        DatabaseSettings(url=f"sqlite:///{file}", busy_timeout_seconds=0.2)
    )
    refresher = Refresher(
        operational=database,
        instance=InstanceReader([JOB], database),
        catalog=CATALOG,
        assets={COUNTS: EVERYTHING, UPLINKS: EVERYTHING, SCRAPE: EVERYTHING},
        max_series=20_000,
        sources=("scrape_pipeline",),
        device_assets=(STATUS,),
        device_families=("device_up",),
        every_seconds=EVERY,
    )
    with contextlib.closing(refresher):
        yield refresher


@pytest.fixture
def file(tmp_path: Path, dagster_home: Path) -> Path:
    """An operational database in which everything was collected just now."""
    made = tmp_path / "operational.sqlite"
    database = OperationalDatabase(DatabaseSettings(url=f"sqlite:///{made}"))
    with contextlib.closing(database):
        fill(database, time.time_ns(), devices=30)
    return made


def look(refresher: Refresher, page: StatusPage | None = None) -> httpx.Response:
    with serving(refresher, status_page=page or StatusPage(DAGSTER)) as client:
        reply = client.get("/")
    assert reply.status_code == 200
    return reply


def test_a_page_on_which_all_is_well_says_so_and_has_everything(file: Path, runs: Runs) -> None:
    run_id = runs.finish()
    runs.wait_in_queue()
    with exporting(file) as refresher:
        refresher.refresh()
        page = Outline(look(refresher).text)
    assert "All is well" in page.words
    for told in (
        "1 waiting in the queue",
        f"success, run {run_id[:8]}",
        "27 up, 3 down.",
        "Down: device-00000, device-00010, device-00020",
        "scrape_pipeline12 345002",
        "pipeline: 87.5 of 100",
        "1 500",
        "1 min 10 s",
        "No run that failed was seen.",
    ):
        assert told in page.words
    assert {"href": f"{DAGSTER}/runs/{run_id}"} in page.all("a")
    assert {"href": DAGSTER} in page.all("a")
    assert {"href": "metrics"} in page.all("a")


def test_it_can_be_read_with_a_screen_reader_and_without_colours(file: Path, runs: Runs) -> None:
    runs.finish(fails=True)
    with exporting(file) as refresher:
        refresher.refresh()
        page = Outline(look(refresher).text)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert len(page.all("table")) == len(page.all("caption")) == 5
    assert all("scope" in attrs for attrs in page.all("th"))
    ids = [attrs["id"] for _, attrs in page.found if "id" in attrs]
    assert len(set(ids)) == len(ids)
    named = {attrs["aria-labelledby"] for _, attrs in page.found if "aria-labelledby" in attrs}
    assert named <= set(ids)
    coloured = [a for a in page.all("span") if a["class"] in ("bad", "good")]
    assert coloured
    assert "failure, run" in page.words


def test_it_needs_no_script_and_nothing_from_elsewhere(file: Path) -> None:
    with exporting(file) as refresher, serving(refresher) as client:
        reply, style = client.get("/"), client.get("/status.css")
    page = Outline(reply.text)
    assert {"script", "style", "img", "iframe", "form"}.isdisjoint(tag for tag, _ in page.found)
    assert not any("style" in attrs for _, attrs in page.found)
    assert [link["href"] for link in page.all("link")] == ["status.css"]
    assert not any(str(a["href"]).startswith("http") for a in page.all("a"))
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text
    assert "@import" not in style.text
    for headers in (reply.headers, style.headers):
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_run_that_failed_is_told_with_its_reason(file: Path, runs: Runs) -> None:
    failed = runs.finish(fails=True)
    with exporting(file) as refresher:
        refresher.refresh()
        page = Outline(look(refresher).text)
        assert f"The last run of {JOB} failed." in page.words
        assert f"Fails now: run {failed[:8]}" in page.words
        assert "count: metrics_pipeline_tests.exporter.instance_fixtures.Broken" in page.words
        runs.finish()
        refresher.refresh()
        page = Outline(look(refresher).text)
    assert "All is well" in page.words
    assert f"Has passed since: run {failed[:8]}" in page.words


def test_a_database_that_is_away_is_told_with_since_when(file: Path) -> None:
    with exporting(file) as refresher:
        refresher.refresh()
        file.write_bytes(b"this is no database " * 500)
        for sidecar in file.parent.glob(f"{file.name}-*"):
            sidecar.unlink()
        refresher.refresh()
        page = Outline(look(refresher).text)
    assert "Something fails" in page.words
    assert "operational database: StoreUnavailable: " in page.words
    assert "when everything was looked at last." in page.words
    assert "27 up, 3 down." in page.words  # as it was seen last


def test_an_instance_that_was_never_seen_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    with exporting(file) as refresher:
        refresher.refresh()
        page = Outline(look(refresher).text)
    assert "Not everything could be looked at yet" in page.words
    assert "Dagster instance: DagsterHomeNotSetError" in page.words
    assert "nothing is known of runs" in page.words


def test_it_asks_for_the_password_of_the_metrics(file: Path) -> None:
    with exporting(file) as refresher, serving(refresher, LOGIN) as client:
        refused = client.get("/")
        given = {b"authorization": basic(f"{USER}:{PASSWORD}".encode())}
        allowed = client.get("/", headers=given)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert refused.text == "user and password expected\n"
    assert allowed.status_code == 200


def test_without_an_address_of_dagster_there_is_no_link_to_it(file: Path, runs: Runs) -> None:
    runs.finish(fails=True)
    with exporting(file) as refresher:
        refresher.refresh()
        page = Outline(look(refresher, StatusPage()).text)
    assert [a["href"] for a in page.all("a")] == ["metrics", "readyz"]


def known(text: str) -> Known:
    """Where `text` is everything that others may choose."""
    run = FinishedRun(text, "failure", 1.0)
    instance = InstanceState(
        {text: JobState(frozenset({("run", "failure")}), 1.0, {}, run, RunFailure(run, text))},
        {text: 1.0},
        0,
    )
    lag = Point(LAG, {"partition": text}, {"lag_events": 1, "lag_seconds": 1.0}, 1)
    health = Point("pipeline_health", {"component": text}, {"value": 1.0}, 1)
    score = Point("pipeline_health", {"component": "score"}, {"value": 1.0}, 1)
    found = {
        UPLINKS: Snapshot(UPLINKS, 1, 1, 1, (lag,)),
        text: Snapshot(text, 1, 1, 1, (health, score)),
    }
    totals = {"metrics_pipeline_sample_slots_total": {to_label((text, Outcome.LATE)): 1}}
    seen = Seen(found, totals, instance, 1.0, 1, text, every_seconds=EVERY)
    return Known(seen, (text,), None)


PLAIN = Outline(StatusPage(DAGSTER, lambda: 100.0).render(known("plain")))


@given(st.text(min_size=1) | st.sampled_from(["<script>alert(1)</script>", '"><b>', "{{ 7 * 7 }}"]))
def test_no_text_of_others_becomes_part_of_the_page(text: str) -> None:
    page = Outline(StatusPage(DAGSTER, lambda: 100.0).render(known(text)))
    assert [tag for tag, _ in page.found] == [tag for tag, _ in PLAIN.found]
    assert [sorted(a) for _, a in page.found] == [sorted(a) for _, a in PLAIN.found]


def test_with_ten_thousand_devices_it_takes_milliseconds_and_stays_small(
    tmp_path: Path, dagster_home: Path
) -> None:
    file = tmp_path / "operational.sqlite"
    database = OperationalDatabase(DatabaseSettings(url=f"sqlite:///{file}"))
    with contextlib.closing(database):
        fill(database, time.time_ns(), DEVICES)
    with exporting(file) as refresher:
        refresher.refresh()
        few, took = look(refresher).text, []
        page = StatusPage(DAGSTER)
        for _ in range(20):
            began = time.thread_time()
            page.render(refresher.known)
            took.append(time.thread_time() - began)
        scrapes = []
        for _ in range(3):
            began = time.thread_time()
            refresher.page.text.plain  # noqa: B018 (unpacks it)
            scrapes.append(time.thread_time() - began)
    print(f"{min(took) * 1000:.2f} ms with {DEVICES} devices")
    assert "9 000 up" in few
    assert "(the first 50)" in Outline(few).words
    assert len(few) < 20_000
    # A scrape of these devices is unpacked in a millisecond or two; to read their rows takes 60.
    assert min(took) < 5 * min(scrapes)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (90000, "1 d 1 h"),
        (86400 * 400 + 60, "400 d"),
    ],
)
def test_a_time_span_has_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_number_has_one_decimal_at_most() -> None:
    assert [number(n) for n in (0, 87.5, 12345, 1234567.89)] == [
        "0",
        "87.5",
        "12 345",
        "1 234 567.9",
    ]


@pytest.mark.parametrize(
    ("width", "scheme"), [(1000, "light"), (1000, "dark"), (500, "light")], ids=str
)
def test_a_browser_shows_it_and_refuses_nothing(
    width: int, scheme: str, file: Path, runs: Runs, tmp_path: Path
) -> None:
    runs.finish(fails=True)
    picture = tmp_path / "status.png"
    with exporting(file) as refresher:
        refresher.refresh()
        page = StatusPage(DAGSTER)
        with serving(refresher, status_page=page) as client:
            said = photograph(str(client.base_url), picture, width, scheme)
    assert "CONSOLE" not in said, said
    header = picture.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:]) == (width, 1400)


def photograph(url: str, picture: Path, width: int, scheme: str) -> str:
    """A picture of the page, and what the browser had to say."""
    command = [
        require("chromium"),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=2000"),
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        f"--window-size={width},1400",
        f"--user-data-dir={picture.parent / 'profile'}",
        f"--screenshot={picture}",
        url,
    ]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    return done.stderr
