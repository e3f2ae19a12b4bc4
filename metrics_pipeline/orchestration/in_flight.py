"""The guard that skips a tick while the job's last run is still on its way.

Dagster has no such thing of its own. The pool of the job's assets is the hard limit behind it,
for runs somebody launches by hand; with the pool alone, runs would pile up in the queue.
"""

from collections.abc import Collection

import dagster as dg

IN_FLIGHT = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def find_in_flight(
    instance: dg.DagsterInstance, job_name: str, assets: Collection[dg.AssetKey]
) -> dg.DagsterRun | None:
    """The newest run that has not ended and is of the job, or makes one of its assets; or None.

    The latter are started from the asset graph, under a job of Dagster's own, and hold the pool.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=list(IN_FLIGHT)))
    for run in runs:
        if run.job_name == job_name or not (run.asset_selection or set()).isdisjoint(assets):
            return run
    return None


def launch_unless_in_flight(
    context: dg.ScheduleEvaluationContext, job_name: str, assets: Collection[dg.AssetKey]
) -> dg.RunRequest | dg.SkipReason:
    """A request to run the job, or the reason why this tick is skipped."""
    run = find_in_flight(context.instance, job_name, assets)
    if run is None:
        return dg.RunRequest()
    return dg.SkipReason(
        f"Run {run.run_id} of {run.job_name} is still {run.status.value.lower()}; this tick is "
        "skipped, the next one will count."
    )
