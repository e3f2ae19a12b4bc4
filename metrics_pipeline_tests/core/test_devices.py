"""What a poll of a device gave."""

from __future__ import annotations

from metrics_pipeline.core.devices import DeviceReading, Miss
from metrics_pipeline.core.redaction import KNOWN


def test_what_a_device_repeats_of_a_secret_is_not_in_its_reading() -> None:
    KNOWN.remember("correct horse battery")
    said = "it ended the log-in: metrics: correct horse battery?"
    reading = DeviceReading("switch-1", True, reason=Miss.PARSE, detail=said)
    assert reading.detail == "it ended the log-in: metrics: ***?"
