"""How devices are doing: one poll a run of those that are due, over one protocol."""

from collections.abc import Sequence
from datetime import timedelta

from metrics_pipeline.core.device_assets import part_of
from metrics_pipeline.core.device_points import metric_points
from metrics_pipeline.core.devices import Device
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import DeviceProbe, RemembersDevices
from metrics_pipeline.core.validation import NS_PER_SECOND
from metrics_pipeline.orchestration.device_report import Report, describe, judge
from metrics_pipeline.orchestration.device_run import DeviceRun
from metrics_pipeline.orchestration.poll_list import points_to_keep, select_due
from metrics_pipeline.orchestration.run_time import is_scheduled, time_ns
from metrics_pipeline.polling import Question
from metrics_pipeline.settings import SweepSettings
from metrics_pipeline.sources.probe_registry import PROBES


def poll_metrics(run: DeviceRun, protocol: str) -> Report:
    """Poll the devices of `protocol` that are due once, and show what they answered."""
    sweeps = run.settings.sweeps
    listed = run.list_devices((protocol,))
    cadence = timedelta(minutes=sweeps.tick_minutes)
    at_ns = time_ns(run.context, cadence)
    shown = run.shown_points() if len(sweeps.metrics_cadences()) > 1 else ()
    due = listed.devices
    if is_scheduled(run.context, cadence):
        due = _due(listed.devices, at_ns, shown, sweeps)
    memory = part_of(protocol, run.shard)
    probe = _open_probe(run, protocol, memory)
    asked = PROBES[protocol].metrics + sweeps.detail_tables
    question = Question(probe, due, asked, run.settings.max_in_flight(protocol))
    unchanged = points_to_keep(shown, listed.devices, due)
    swept = run.sweep([question], lambda reading: metric_points(reading, at_ns), listed, unchanged)
    _save_memories(run, probe, memory, listed.devices)
    return Report(
        describe(swept, listed, due), judge(swept, listed, due, sweeps.warn_offline_share)
    )


def _due(
    devices: Sequence[Device], at_ns: int, shown: Sequence[Point], sweeps: SweepSettings
) -> Sequence[Device]:
    last_ns = max((point.time_ns for point in shown), default=None)
    last = None if last_ns is None else last_ns // NS_PER_SECOND
    return select_due(
        devices, at_ns // NS_PER_SECOND, last, lambda kind: 60 * sweeps.metrics_minutes(kind)
    )


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
