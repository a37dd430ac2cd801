"""Runs the worker as a child process of this one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.process import import_environment
from assets.benchmark.executors.protocol import WorkerExit
from assets.benchmark.guard import guarded
from assets.benchmark.job import Job
from assets.benchmark.job_file import JobError, write_job
from assets.benchmark.progress import PROGRESS_NAME, Event, ProgressFollower
from assets.benchmark.storage.local import clear_errors
from assets.benchmark.storage.location import parse_location
from assets.benchmark.telemetry import GpuReader
from assets.matrix.spec import HardwareConfig

POLL_S = 0.5
TERM_GRACE_S = 15.0
LOG_TAIL_BYTES = 4096
JOB_NAME = "job.json"
LOG_NAME = "worker.log"
TURN_NAME = ".turn"
# The worker needs none of the platform's settings; some of them are secrets. It does need what opens the checkpoints' object storage.
WITHHELD_PREFIXES = ("DYNO_", "HF_TOKEN")


class SubprocessExecutor:
    """Runs batches on this machine: its CPU, and the GPUs that its NVIDIA driver lists.

    `work_dir` gets a folder for each batch with its job file, log and progress. Without one they are in the batch's checkpoint folder,
    which must then be a local one.
    """

    work_dir: Path | None = None

    def __init__(self, work_dir: Path | None = None) -> None:
        self.work_dir = work_dir

    def unavailable(self, hardware: HardwareConfig) -> str | None:
        """The CPU is always there; for a GPU config the driver must list enough GPUs of the type."""
        if hardware.gpu_count == 0:
            return None
        with GpuReader() as gpus:
            names = gpus.names()
        if sum(_is_a(hardware.gpu_type, name) for name in names) >= hardware.gpu_count:
            return None
        found = ", ".join(names) or "none"
        return (
            f"{hardware.hardware_id} needs {hardware.gpu_count} x {hardware.gpu_type}; GPUs on this machine: {found}. "
            "Run Dyno on a machine that has them, or materialize the batches of `cpu`"
        )

    def run(self, job: Job, environment: Mapping[str, str], on_poll: Callable[[Sequence[Event]], None]) -> WorkerExit:
        """See Executor.run. The worker dies with this process, even when that is killed.

        Batches on one machine take turns, whichever process runs them: two at once would measure each other.
        """
        folder = self._folder(job)
        with _turn((self.work_dir or folder.parents[1]) / TURN_NAME, on_poll):
            return self._run(job, folder, environment, on_poll)

    def _folder(self, job: Job) -> Path:
        if self.work_dir is not None:
            return self.work_dir / job.partition_key / f"{job.protocol}-r{job.repeat}"
        checkpoints = parse_location(job.checkpoint_dir)
        if isinstance(checkpoints, Path):
            return checkpoints
        raise JobError(f"checkpoint_dir: {checkpoints} is not on this machine: the executor needs a work_dir for the job file and the log")

    def _run(self, job: Job, folder: Path, environment: Mapping[str, str], on_poll: Callable[[Sequence[Event]], None]) -> WorkerExit:
        job_path, log_path, progress = folder / JOB_NAME, folder / LOG_NAME, folder / PROGRESS_NAME
        with clear_errors(folder):
            write_job(job, job_path)
            progress.unlink(missing_ok=True)
            log = log_path.open("wb")
        inherited = {name: value for name, value in import_environment().items() if not name.startswith(WITHHELD_PREFIXES)}
        with log:
            process = subprocess.Popen(
                guarded([sys.executable, "-m", "assets.benchmark", "--job", str(job_path), "--work-dir", str(folder)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**inherited, **environment},
                start_new_session=True,
            )
        follower = ProgressFollower(progress)
        try:
            while process.poll() is None:
                on_poll(follower.new_events())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
            on_poll(follower.new_events())
        finally:
            _stop(process)
        return WorkerExit(process.returncode, log_path.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace"))


@contextlib.contextmanager
def _turn(path: Path, on_poll: Callable[[Sequence[Event]], None]) -> Iterator[None]:
    """Hold the lock file; it is free again when this process ends, however it does."""
    with clear_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_poll(())
                time.sleep(POLL_S)
        yield


def _is_a(gpu_type: str, product: str) -> bool:
    """Whether a product name of the driver's, `NVIDIA A100-SXM4-80GB`, has all parts of our GPU type, `A100-80GB`, as words."""
    return all(re.search(rf"\b{re.escape(part)}\b", product, re.IGNORECASE) for part in gpu_type.split("-"))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM lets the worker stop its engine; SIGKILL after the grace period, upon which the engine dies by its guard."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERM_GRACE_S)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
