"""The guard that skips a tick while the job's last run is still on its way.

Dagster has no such thing of its own. The pool of the job's assets is the hard limit behind it,
for runs somebody launches by hand; with the pool alone, runs would pile up in the queue.
"""

import dagster as dg

IN_FLIGHT = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def find_in_flight(instance: dg.DagsterInstance, job_name: str) -> dg.DagsterRun | None:
    """The newest run of the job that has not ended, or None."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=list(IN_FLIGHT)), limit=1)
    return runs[0] if runs else None


def launch_unless_in_flight(
    context: dg.ScheduleEvaluationContext, job_name: str
) -> dg.RunRequest | dg.SkipReason:
    """A request to run the job, or the reason why this tick is skipped."""
    run = find_in_flight(context.instance, job_name)
    if run is None:
        return dg.RunRequest()
    return dg.SkipReason(
        f"Run {run.run_id} of {job_name} is still {run.status.value.lower()}; this tick is "
        "skipped, the next one will count."
    )
