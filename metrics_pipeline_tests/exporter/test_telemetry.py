"""What the exporter's page says of telemetry, scraped from its process."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from metrics_pipeline.simulators.event_hub.server import epoch_milliseconds
from metrics_pipeline_tests.exporter.exporter_process import ExporterProcess, exporter_process
from metrics_pipeline_tests.orchestration.telemetry_pipeline import (
    EUI,
    Telemetry,
    Ticks,
    telemetry,
    uplink,
)
from metrics_pipeline_tests.servers import wait_until

EXPORTER = {"port": 0, "refresh_seconds": 0.2}
LAG_EVENTS = 'metrics_pipeline_eventhub_lag_events{partition="0"}'
LAG_SECONDS = 'metrics_pipeline_eventhub_lag_seconds{partition="0"}'
LAST_SUCCESS = 'metrics_pipeline_last_success_timestamp_seconds{asset="telemetry/lorawan_uplinks"}'
LAST_UPDATE = 'metrics_pipeline_last_update_timestamp_seconds{asset="telemetry/lorawan_uplinks"}'
LAST_UPLINK = f'lorawan_device_last_uplink_timestamp_seconds{{device_eui="{EUI}0"}}'


def scrape(exporter: ExporterProcess) -> dict[str, float]:
    lines = httpx.get(exporter.url).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {series: float(value) for series, value in pairs}


def send_with_gaps(it: Telemetry) -> None:
    """Frames 0, 1, 2 and 5 of a device, and 70 after a while; two of them heard twice; junk."""
    for number in (0, 1, 2, 5, 5, 70):
        it.send_body(uplink(number, lsnr=7.5))
    for body in (b"{no JSON", b"{", b"\xff"):
        it.send_body(body, "1")


def test_devices_lag_and_dead_letters_are_on_the_page(tmp_path: Path) -> None:
    with telemetry(tmp_path, exporter=EXPORTER) as it, exporter_process(tmp_path) as exporter:
        began = time.time()
        send_with_gaps(it)
        ticks = Ticks(it)
        ticks.tick()
        wait_until(lambda: scrape(exporter).get(LAG_EVENTS) == 6, "the lag is shown")
        assert it.run().success
        ticks.tick()
        wait_until(lambda: scrape(exporter).get(LAG_EVENTS) == 0, "the lag is gone")
        page = scrape(exporter)
    assert page[LAG_SECONDS] == 0
    assert page[LAST_SUCCESS] >= began
    assert began - 1 <= page[LAST_UPLINK] <= time.time() + 1
    signal = f'{{device_eui="{EUI}0",gateway_id="G1"}}'
    assert page[f"lorawan_device_rssi_dbm{signal}"] == -80
    assert page[f"lorawan_device_snr_db{signal}"] == 7.5
    device = f'{{device_eui="{EUI}0"}}'
    assert page[f"lorawan_device_frame_counter{device}"] == 70
    assert page[f"lorawan_device_frames_received_total{device}"] == 5
    # 3, 4, 6 and 7: those that are no more than 62 behind the newest may still come.
    assert page[f"lorawan_device_frames_lost_total{device}"] == 4
    assert page['metrics_pipeline_dead_letters_total{reason="not_json"}'] == 2
    assert page['metrics_pipeline_dead_letters_total{reason="not_utf8"}'] == 1
    assert page['metrics_pipeline_points_written_total{measurement="lorawan_uplink"}'] == 6


def test_the_lag_grows_on_the_page_while_the_store_is_away(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    store: dict[str, object] = {"kind": "influxdb", "api": "v2", "org": "o"}
    store |= {"url": "http://127.0.0.1:1", "token": {"file": "token"}}
    with (
        telemetry(tmp_path, store=store, exporter=EXPORTER) as it,
        exporter_process(tmp_path) as exporter,
    ):
        it.send(3)
        ticks = Ticks(it)
        ticks.tick()
        wait_until(lambda: scrape(exporter).get(LAG_EVENTS) == 3, "the lag is shown")
        before = scrape(exporter)
        assert not it.run().success
        assert it.checkpoints() == {}
        it.send(2, first=3)
        ticks.tick()
        wait_until(lambda: scrape(exporter).get(LAG_EVENTS) == 5, "the lag has grown")
        assert scrape(exporter)[LAG_SECONDS] > before[LAG_SECONDS] + 1


def test_being_behind_is_no_look_that_failed(tmp_path: Path) -> None:
    """What TelemetryStale asks for moves with each look, and the last success does not."""
    with telemetry(tmp_path, exporter=EXPORTER) as it, exporter_process(tmp_path) as exporter:
        Ticks(it).tick()
        wait_until(lambda: LAST_UPDATE in scrape(exporter), "the first look is shown")
        before = scrape(exporter)
        it.hub.append(b"{}", partition="0", enqueued_ms=epoch_milliseconds() - 60_000)
        Ticks(it).tick()
        wait_until(lambda: scrape(exporter)[LAG_EVENTS] == 1, "the next one is shown")
        after = scrape(exporter)
    assert before[LAST_UPDATE] == before[LAST_SUCCESS] == after[LAST_SUCCESS]
    assert after[LAST_UPDATE] > before[LAST_UPDATE]
    assert after[LAG_SECONDS] > 30


LOST = "metrics_pipeline_eventhub_lost_events_total"


def test_events_that_the_hub_dropped_are_counted_from_0_on(tmp_path: Path) -> None:
    with telemetry(tmp_path, exporter=EXPORTER) as it, exporter_process(tmp_path) as exporter:
        ticks = Ticks(it)
        it.send(5)
        ticks.tick()
        wait_until(lambda: scrape(exporter).get(LAG_EVENTS) == 5, "the lag is shown")
        assert scrape(exporter)[f'{LOST}{{partition="0"}}'] == 0
        assert it.run().success
        it.send(20, first=5)
        it.hub.drop_before("0", 12)
        it.run()
        series = f'{LOST}{{partition="0"}}'
        wait_until(lambda: scrape(exporter)[series] == 7, "what is lost is counted")
        assert scrape(exporter)[f'{LOST}{{partition="1"}}'] == 0


def test_dead_letters_that_had_to_go_are_counted(tmp_path: Path) -> None:
    bounds = {"dead_letters": {"max_rows": 2}}
    with (
        telemetry(tmp_path, exporter=EXPORTER, telemetry=bounds) as it,
        exporter_process(tmp_path) as exporter,
    ):
        for _ in range(5):
            it.send_body(b"{no JSON")
        assert it.run().success
        dropped = 'metrics_pipeline_dead_letters_dropped_total{reason="not_json"}'
        wait_until(lambda: scrape(exporter).get(dropped) == 3, "three had to go")
