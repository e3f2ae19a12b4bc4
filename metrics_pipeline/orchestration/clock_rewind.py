"""Lets schedules and sensors go on after the clock of the daemon was ahead and was set back.

Dagster evaluates none of them before the time of its last tick has come again, were it in a year,
and switching one off and on does not change that. So what was noted in the future is forgotten.
"""

import os
import time
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, ScheduleInstigatorData

from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.orchestration.instance_findings import LATE_HEARTBEAT_SECONDS

TIMES = (
    *("start_timestamp", "last_iteration_timestamp"),
    *("last_tick_timestamp", "last_tick_start_timestamp", "last_sensor_start_timestamp"),
)
"""Of the data of schedules and of sensors: what keeps the next tick from coming."""


def rewind() -> list[str]:
    """`forget_the_future` for the instance of DAGSTER_HOME, now.

    ConfigurationError where there is none, or its daemon lives.
    """
    home = Path(os.environ["DAGSTER_HOME"])
    if not (home / "dagster.yaml").is_file():
        problem, fix = "there is no dagster.yaml in it", "Set it to the folder of the daemon."
        raise ConfigurationError(f"DAGSTER_HOME {home}", problem, fix)
    with dg.DagsterInstance.get() as instance:
        now = time.time()
        beats = instance.get_daemon_heartbeats().values()
        if any(0 <= now - beat.timestamp < LATE_HEARTBEAT_SECONDS for beat in beats):
            problem = f"its daemon said within {LATE_HEARTBEAT_SECONDS:.0f} s that it lives"
            raise ConfigurationError(f"DAGSTER_HOME {home}", problem, "End it, and wait so long.")
        return forget_the_future(instance, now)


def forget_the_future(instance: dg.DagsterInstance, now_seconds: float) -> list[str]:
    """The names of the schedules and sensors that were of a time after `now_seconds`.

    All ticks of these are forgotten, for Dagster deletes the older ones with them; cursors stay. To
    be called while no daemon runs, which would write again what it knows.
    """
    return [
        state.instigator_name
        for state in instance.all_instigator_state()
        if _bring_back(instance, state, now_seconds)
    ]


def _bring_back(instance: dg.DagsterInstance, state: InstigatorState, now: float) -> bool:
    origin, selector = state.instigator_origin_id, state.selector_id
    future = instance.get_ticks(origin, selector, after=now)
    data = state.instigator_data
    late = {name: now for name in TIMES if (getattr(data, name, None) or 0.0) > now}
    if not future and not late:
        return False
    if future:
        last = max(tick.timestamp for tick in future)
        instance.purge_ticks(origin, selector, before=last + 1)
    if data is not None:
        # A schedule without ticks would begin where it was switched on: so it was looked at now.
        is_schedule = isinstance(data, ScheduleInstigatorData)
        looked_at = {"last_iteration_timestamp": now} if is_schedule else {}
        changes: dict[str, Any] = {**late, **looked_at}
        instance.update_instigator_state(state.with_data(data._replace(**changes)))
    return True
