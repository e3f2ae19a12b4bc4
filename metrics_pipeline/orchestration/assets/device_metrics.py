"""How devices are doing: one poll a run of those that are due, over one protocol."""

from collections.abc import Sequence
from datetime import timedelta

from metrics_pipeline.core.device_assets import part_of
from metrics_pipeline.core.device_points import metric_points
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.ports import DeviceProbe, RemembersDevices
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.orchestration.device_report import Report, describe, judge
from metrics_pipeline.orchestration.device_run import DeviceRun
from metrics_pipeline.orchestration.device_sweep import Summary
from metrics_pipeline.orchestration.poll_list import select_due
from metrics_pipeline.orchestration.run_time import is_scheduled, time_ns
from metrics_pipeline.polling import Question
from metrics_pipeline.sources.probe_registry import PROBES


def poll_metrics(run: DeviceRun, protocol: str) -> Report:
    """Poll the devices of `protocol` that are due once, and show what they answered."""
    sweeps = run.settings.sweeps
    listed = run.list_devices((protocol,))
    cadence = timedelta(minutes=sweeps.tick_minutes)
    at_ns = time_ns(run.context, cadence)
    due = listed.devices
    if is_scheduled(run.context, cadence) and len(sweeps.metrics_cadences()) > 1:
        due = _due(run, listed.devices, at_ns)
    memory = part_of(protocol, run.shard)
    probe = _open_probe(run, protocol, memory)
    asked = PROBES[protocol].metrics + sweeps.detail_tables
    question = Question(probe, due, asked, run.settings.max_in_flight(protocol))
    summary = Summary()
    swept = run.sweep([question], lambda r: metric_points(r, at_ns), listed, summary)
    _save_memories(run, probe, memory, listed.devices)
    return Report(
        describe(summary, listed, due, swept.seconds),
        judge(
            summary,
            listed,
            due,
            sweeps.warn_offline_share,
            run.find_compared(listed, ()),
        ),
    )


def _due(run: DeviceRun, devices: Sequence[Device], at_ns: int) -> Sequence[Device]:
    """Those whose time has come since they last gave something."""
    asked: dict[str, int] = {}
    for point in run.shown_points():
        device, seconds = point.tags["device_id"], point.time_ns // NS_PER_SECOND
        asked[device] = max(seconds, asked.get(device, 0))
    every = run.settings.sweeps.metrics_minutes
    return select_due(devices, at_ns // NS_PER_SECOND, asked, lambda kind: 60 * every(kind))


def _open_probe(run: DeviceRun, protocol: str, memory: str) -> DeviceProbe:
    probe = run.settings.build_probe(protocol)
    if isinstance(probe, RemembersDevices):
        probe.load_memories(run.writer.load_memories(memory))
    return probe


def _save_memories(
    run: DeviceRun, probe: DeviceProbe, memory: str, devices: Sequence[Device]
) -> None:
    """Of the devices that the inventory still has."""
    if isinstance(probe, RemembersDevices):
        dumped = probe.dump_memories()
        kept = {device.id: dumped[device.id] for device in devices if device.id in dumped}
        run.writer.save_memories(memory, kept)
