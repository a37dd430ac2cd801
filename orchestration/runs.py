"""Dagster runs from a command: in this process, on the instance that the UI shows."""

from __future__ import annotations

import logging
import signal
import threading
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from dagster import AssetKey, DagsterEvent, DagsterInstance, Definitions, PreviewWarning

T = TypeVar("T")

# Dagster's console logger writes every step event to standard error; a command shows progress instead. The UI has the events.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunFailedError(Exception):
    """A run failed; the message says of which asset, why, and the run's id."""


class Runs:
    """Materializes assets in this process, one run after the other."""

    def __init__(self, definitions: Definitions, instance: DagsterInstance, command: str) -> None:
        self._job = definitions.resolve_implicit_global_asset_job_def()
        self._instance = instance
        self._tags = {"dyno/command": command}

    def materialize(
        self,
        assets: Sequence[AssetKey],
        partition_key: str | None = None,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> str:
        """Materialize the assets in one run.

        Args:
            assets: what to materialize.
            partition_key: their common partition, None for assets without partitions.
            config: run config by op name.

        Returns:
            The run's id.

        Raises:
            RunFailedError: a step failed.
            KeyboardInterrupt, SystemExit: a signal came; the run is reported cancelled, and its worker ends with this process.
        """
        run_id = str(uuid.uuid4())
        run_config = {**QUIET, "ops": {name: {"config": dict(values)} for name, values in (config or {}).items()}}
        disabled = logging.root.manager.disable
        logging.disable(logging.ERROR)  # resources are logged outside the run's own logger
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PreviewWarning)  # Dagster warns of its own Pipes
            try:
                result = _interruptible(
                    lambda: self._job.execute_in_process(
                        run_config=run_config,
                        instance=self._instance,
                        partition_key=partition_key,
                        asset_selection=list(assets),
                        tags=self._tags,
                        raise_on_error=False,
                        run_id=run_id,
                    )
                )
            except (KeyboardInterrupt, SystemExit):
                self._cancel(run_id)
                raise  # the log stays off: the run's thread lives on until the process ends
        logging.disable(disabled)
        if not result.success:
            what = ", ".join(key.to_user_string() for key in assets) + (f" [{partition_key}]" if partition_key else "")
            raise RunFailedError(f"{what}: {_reason(result.all_events)} (run {result.run_id}; ./dyno up shows its events)")
        return result.run_id

    def _cancel(self, run_id: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceled(run, f"the command was stopped; {self._tags['dyno/command']} goes on where it was")


def _interruptible(function: Callable[[], T]) -> T:
    """Call `function` in a thread, so that Ctrl-C and SIGTERM reach this one at once.

    In the main thread Dagster takes both for itself, and looks at them between steps. The thread has SIGINT blocked, and so have the
    processes that it starts: a terminal's Ctrl-C must not reach them before us.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            outcome.set_result(function())
        except BaseException as error:  # the caller gets it
            outcome.set_exception(error)

    threading.Thread(target=run, name="run", daemon=True).start()
    return outcome.result()


def _reason(events: Sequence[DagsterEvent]) -> str:
    """The first failure as a sentence: what our code said, not Dagster's wrapping of it."""
    for event in events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return data.user_failure_data.description
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return error.message.strip()
    return "the run failed before its first step"
