"""The simulated LoRaWAN devices as they send to a hub that the SDK reads."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from metrics_pipeline.core.lorawan import AUTH_METHOD
from metrics_pipeline.simulators.lorawan_traffic import PARTITIONS, serve_lorawan_devices
from metrics_pipeline_tests.event_hub_clients import AsyncReader
from metrics_pipeline_tests.servers import wait_until


def test_devices_send_at_once_and_again_after_each_step(tmp_path: Path) -> None:
    file = tmp_path / "simulator" / "event_hub"
    with serve_lorawan_devices(
        connection_string_file=file, count=8, step_seconds=0.05, seed=1
    ) as hub:
        assert file.read_text().strip() == hub.connection_string
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        wait_until(lambda: sum(hub.event_counts().values()) > 40, "five steps are over")
        counts = hub.event_counts()
    assert len(counts) == PARTITIONS
    assert sum(count > 0 for count in counts.values()) > 1


def test_the_sdk_reads_them_with_what_iot_hub_adds(tmp_path: Path) -> None:
    async def read() -> list[object]:
        with serve_lorawan_devices(
            connection_string_file=tmp_path / "hub", count=8, step_seconds=60, seed=1
        ) as hub:
            async with AsyncReader(hub) as reader:
                return [event.system_properties for event in await reader.until_events(6)]

    for properties in asyncio.run(read()):
        assert AUTH_METHOD.encode() in properties  # type: ignore[operator]
