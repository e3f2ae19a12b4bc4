"""One poll of one device, told step by step to a person."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from metrics_pipeline.core.catalog import DEVICE_METRIC_LIST
from metrics_pipeline.core.devices import Device, DeviceReading, Miss
from metrics_pipeline.core.numerals import in_digits
from metrics_pipeline.core.ports import DeviceProbe
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.probe_registry import PROBES

UNITS = {metric.selected_by: metric.unit for metric in DEVICE_METRIC_LIST}


async def probe_and_tell(
    settings: Settings,
    device: Device,
    timeout_seconds: float,
    say: Callable[[str], None],
    engine: str,
) -> bool:
    """Poll `device`, say each step with its time in seconds, and whether everything was readable.

    `engine` is the one of a protocol that has several, as SNMP has, whatever the settings say.
    Tables of detail are asked for whether or not the sweeps do. A value that the device does not
    have is not a fault of it. ConfigurationError leaves here.
    """
    spec = PROBES[device.protocol]
    asked = spec.metrics + spec.details
    section = _section(settings, device.protocol, engine)
    to = f"{device.address}{_port(device)}{_credential(device)}{_engine(section)}"
    say(f"{device.id}: {spec.title} to {to}")
    started = time.monotonic()

    def trace(step: str) -> None:
        say(f"{time.monotonic() - started:7.3f} s  {step}")

    try:
        async with asyncio.timeout(timeout_seconds), _build(device.protocol, section) as probe:
            reading = await probe.poll(device, asked, trace)
    except TimeoutError:
        detail = f"not done within {timeout_seconds:g} s"
        misses = dict.fromkeys(asked, Miss.TIMEOUT)
        reading = DeviceReading(device.id, False, {}, misses, Miss.TIMEOUT, detail)
    trace(_outcome(reading))
    for line in _values(reading):
        say(line)
    return reading.is_up and not set(reading.misses.values()) - {Miss.UNSUPPORTED}


def _section(settings: Settings, protocol: str, engine: str) -> Any:
    """The settings of the sweeps, but with `engine` where there are several."""
    section = getattr(settings.polling, protocol)
    return section.model_copy(update={"engine": engine}) if hasattr(section, "engine") else section


def _build(protocol: str, section: Any) -> DeviceProbe:
    return PROBES[protocol].build(section, getattr(section, "credentials", {}))


def _port(device: Device) -> str:
    return f", port {device.port}" if device.port else ""


def _credential(device: Device) -> str:
    return f", credential {device.credential!r}" if device.credential else ""


def _engine(section: Any) -> str:
    return f", engine {section.engine!r}" if hasattr(section, "engine") else ""


def _outcome(reading: DeviceReading) -> str:
    if reading.is_up:
        return "it is up" + (f": {reading.detail}" if reading.detail else "")
    return f"it is down: {reading.reason}: {reading.detail}"


def _values(reading: DeviceReading) -> Iterator[str]:
    width = max(map(len, UNITS))
    for name, value in reading.values.items():
        yield f"{name:<{width}}  {_amount(name, value)}"
    for table, rows in reading.details.items():
        yield f"{table:<{width}}  {len(rows)}"
        for row, values in rows.items():
            cells = (f"{name} {_amount(name, value)}" for name, value in values.items())
            yield f"  {row}: {', '.join(cells)}"
    for name, reason in reading.misses.items():
        yield f"{name:<{width}}  -  ({reason})"


def _amount(name: str, value: float) -> str:
    unit = UNITS.get(name, "")
    return f"{in_digits(value)} {'' if unit == '1' else unit}".rstrip()
