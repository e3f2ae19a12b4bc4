"""The guard that skips a tick while the job's last run is still on its way.

Dagster has no such thing of its own. The pool of the job's assets is the hard limit behind it,
for runs somebody launches by hand; with the pool alone, runs would pile up in the queue.
"""

from collections.abc import Collection, Sequence

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

IN_FLIGHT = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def find_in_flight(
    instance: dg.DagsterInstance,
    job_name: str,
    assets: Collection[dg.AssetKey],
    partition: str | None = None,
) -> dg.DagsterRun | None:
    """The newest run that has not ended and is of the job, or makes one of its assets; or None.

    The latter are started from the asset graph, under a job of Dagster's own, and hold the pool.
    With `partition`, only runs of that one.
    """
    tags = {} if partition is None else {PARTITION_NAME_TAG: partition}
    runs = instance.get_runs(dg.RunsFilter(statuses=list(IN_FLIGHT), tags=tags))
    for run in runs:
        if run.job_name == job_name or not (run.asset_selection or set()).isdisjoint(assets):
            return run
    return None


def launch_unless_in_flight(
    context: dg.ScheduleEvaluationContext,
    job_name: str,
    assets: Collection[dg.AssetKey],
    partitions: Sequence[str] = (),
) -> Sequence[dg.RunRequest] | dg.SkipReason:
    """Requests to run the job, one a partition, or the reason why this tick is skipped."""
    requests, reasons = [], []
    wanted: Sequence[str | None] = partitions or [None]
    for partition in wanted:
        run = find_in_flight(context.instance, job_name, assets, partition)
        if run is None:
            requests.append(_request(context, partition))
        else:
            reasons.append(
                f"Run {run.run_id} of {run.job_name} is still {run.status.value.lower()}; this "
                "tick is skipped, the next one will count."
            )
    return requests or dg.SkipReason(" ".join(reasons))


def _request(context: dg.ScheduleEvaluationContext, partition: str | None) -> dg.RunRequest:
    """Of several requests of one tick Dagster wants to know which is which."""
    if partition is None:
        return dg.RunRequest()
    key = f"{context.scheduled_execution_time.isoformat()}/{partition}"
    return dg.RunRequest(run_key=key, partition_key=partition)
