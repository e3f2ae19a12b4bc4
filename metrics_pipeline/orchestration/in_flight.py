"""The guard that skips a tick while the job's last run is still on its way.

Dagster has no such thing of its own. The pool of the job's assets is the hard limit behind it,
for runs somebody launches by hand; with the pool alone, runs would pile up in the queue.
"""

import time
from collections.abc import Collection, Sequence

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from metrics_pipeline.orchestration.run_launcher import end_if_dead

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
) -> list[dg.RunRecord]:
    """The runs that have not ended and are of the job, or make one of its assets; newest first.

    The latter are started from the asset graph, under a job of Dagster's own, and hold the pool.
    With `partition`, only runs of that one. A run that will never start is failed, and left out.
    """
    tags = {} if partition is None else {PARTITION_NAME_TAG: partition}
    records = instance.get_run_records(dg.RunsFilter(statuses=list(IN_FLIGHT), tags=tags))
    ours = [record for record in records if _makes(record.dagster_run, job_name, assets)]
    return [record for record in ours if not end_if_dead(instance, record, time.time())]


def _makes(run: dg.DagsterRun, job_name: str, assets: Collection[dg.AssetKey]) -> bool:
    return run.job_name == job_name or not (run.asset_selection or set()).isdisjoint(assets)


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
        in_flight = find_in_flight(context.instance, job_name, assets, partition)
        if not in_flight:
            requests.append(_request(context, partition))
        else:
            run = in_flight[0].dagster_run
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
