"""The worker's command line: reads a job, measures its batch, and says in its exit code how that went.

Exit codes (sysexits.h where one fits): 0 all load points are finished; 65 the job cannot be done as written; 69 a load point failed, the
others are finished; 70 the engine failed; 71 the load generator failed; 73 the checkpoint folder cannot be used; 75 stopped by SIGTERM or
SIGINT, start again to go on: the load point that was under way is marked partial and measured anew.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes

from assets.benchmark.checkpoint import CheckpointStore
from assets.benchmark.engines.protocol import EngineError
from assets.benchmark.job_file import JobError, read_job
from assets.benchmark.load.fleet import LoadProcessError
from assets.benchmark.load.probe import NoAnswerError
from assets.benchmark.load.prompts import TokenizerError
from assets.benchmark.load.session import StoppedError
from assets.benchmark.progress import PROGRESS_NAME, Event, Reporter, Sink, describe, json_to_file, json_to_stderr, text_to_stderr
from assets.benchmark.runner import Runner
from assets.benchmark.storage.local import clear_errors
from assets.benchmark.storage.location import Bucket, parse_location
from assets.benchmark.storage.protocol import BusyError, CheckpointError
from assets.benchmark.storage.registry import open_folder

EXIT_DONE = 0
EXIT_BAD_JOB = 65
EXIT_LOAD_POINT_FAILED = 69
EXIT_ENGINE_FAILED = 70
EXIT_CLIENT_FAILED = 71
EXIT_CHECKPOINT = 73
EXIT_STOPPED = 75


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m assets.benchmark", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--job",
        required=True,
        help="job (JSON, as assets.benchmark.job_file.write_job writes it): a file, an s3:// or gs:// URL, - for stdin",
    )
    parser.add_argument(
        "--work-dir", type=Path, help="folder for progress.jsonl and engine.log (default: a local checkpoint folder, else a temporary one)"
    )
    parser.add_argument("--progress-json", action="store_true", help="progress on standard error as JSON lines instead of text")
    arguments = parser.parse_args(argv)
    reporter = Reporter(json_to_stderr if arguments.progress_json else text_to_stderr)
    with _stop_on_signal() as stopped, _dagster_sink(reporter):
        try:
            return _measure(arguments.job, arguments.work_dir, reporter, stopped)
        except (JobError, TokenizerError) as error:
            return _failed(reporter, EXIT_BAD_JOB, "bad_job", error, retryable=False)
        except EngineError as error:
            return _failed(reporter, EXIT_ENGINE_FAILED, error.kind, error, retryable=error.retryable)
        except (LoadProcessError, NoAnswerError) as error:
            return _failed(reporter, EXIT_CLIENT_FAILED, "load_generator", error, retryable=True)
        except CheckpointError as error:
            return _failed(reporter, EXIT_CHECKPOINT, "checkpoint", error, retryable=error.retryable)
        except StoppedError:
            reporter.emit("failed", kind="stopped", detail="asked to stop: start again to go on where it was", retryable=True)
            return EXIT_STOPPED


def _measure(source: str, work_dir: Path | None, reporter: Reporter, stopped: threading.Event) -> int:
    plan = read_job(source)
    checkpoints = parse_location(plan.job.checkpoint_dir)
    store = CheckpointStore(open_folder(plan.job.checkpoint_dir))
    with _work_folder(work_dir, checkpoints) as folder:
        # what is in the checkpoint folder may be another worker's until we hold it
        shared = folder == checkpoints
        if not shared:
            reporter.add(json_to_file(folder / PROGRESS_NAME))
        with store.locked(stopped.is_set) as lost:
            if shared:
                reporter.add(json_to_file(folder / PROGRESS_NAME))
            try:
                outcome = Runner(plan, store, reporter, lambda: stopped.is_set() or lost(), folder).run()
            except StoppedError:
                if lost() and not stopped.is_set():
                    raise BusyError(f"another worker has taken over {store.location}: what was finished before is kept") from None
                raise
    return EXIT_LOAD_POINT_FAILED if outcome.failed else EXIT_DONE


@contextmanager
def _work_folder(given: Path | None, checkpoints: Path | Bucket) -> Iterator[Path]:
    """Where this worker's logs go: they are for whoever is on this machine, and no part of what is finished."""
    if given is not None:
        with clear_errors(given):
            given.mkdir(parents=True, exist_ok=True)
        yield given
    elif isinstance(checkpoints, Path):
        yield checkpoints
    else:
        with clear_errors(Path(tempfile.gettempdir())):
            temporary = tempfile.TemporaryDirectory(prefix="dyno-worker-")
        with temporary as path:
            yield Path(path)


def _failed(reporter: Reporter, exit_code: int, kind: str, error: Exception, retryable: bool) -> int:
    reporter.emit("failed", kind=kind, detail=str(error), retryable=retryable)
    return exit_code


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _dagster_sink(reporter: Reporter) -> Iterator[None]:
    """When a Dagster run started this worker, its sentences go to that run's log."""
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        yield
        return
    with open_dagster_pipes() as pipes:
        reporter.add(_log_to(pipes))
        yield


def _log_to(pipes: PipesContext) -> Sink:
    def sink(event: Event) -> None:
        sentence = describe(event)
        if sentence is None:
            return
        if event["event"] in {"failed", "load_point_failed"}:
            pipes.log.error(sentence)
        else:
            pipes.log.info(sentence)

    return sink
