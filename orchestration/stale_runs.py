"""Runs that nobody works on any more: their process was killed, so nothing has told Dagster of their end."""

from __future__ import annotations

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

IN_PROGRESS = (DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)
REASON = "Dyno was killed while this run was in progress. Materialize it again: what it had finished is kept."


def fail_stale_runs(instance: DagsterInstance) -> list[str]:
    """Mark every run in progress as failed and free its places in the pools, so that none holds up the queue for ever.

    Call it only while no process of this instance can be working on a run. Gives the runs' ids.
    """
    stale = instance.get_runs(RunsFilter(statuses=list(IN_PROGRESS)))
    for run in stale:
        instance.report_run_failed(run, REASON)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in stale]
