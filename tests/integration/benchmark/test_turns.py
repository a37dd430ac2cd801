"""Batches on one machine take turns: two at once would measure each other."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from assets.benchmark.executors.protocol import WorkerExit
from assets.benchmark.executors.subprocess import TURN_NAME, SubprocessExecutor
from assets.benchmark.progress import Event
from assets.benchmark.worker import EXIT_BAD_JOB
from assets.matrix.spec import Batch
from assets.models.artifacts import LocalArtifact
from tests.integration.benchmark.support import folder_of, job_of


def test_a_batch_waits_until_the_machine_is_free(batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """While another process measures, the worker is not started and the run stays alive; then it goes on by itself."""
    job = job_of(batch, artifact, state_dir, model_path=state_dir / "missing.gguf")  # ends at once when it is its turn
    folder = folder_of(batch, state_dir)
    waited, ended = Flag(), list[WorkerExit]()

    def on_poll(_: Sequence[Event]) -> None:
        waited.set()

    turn = folder.parents[1] / TURN_NAME
    turn.parent.mkdir(parents=True)
    with turn.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = Thread(target=lambda: ended.append(SubprocessExecutor().run(job, {}, on_poll)))
        thread.start()
        assert waited.wait(30)
        assert not (folder / "job.json").exists()
    thread.join(60)
    assert [exit_.exit_code for exit_ in ended] == [EXIT_BAD_JOB]
