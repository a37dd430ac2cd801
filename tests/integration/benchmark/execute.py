"""Runs one job through the local executor: a process for a test to kill."""

from __future__ import annotations

import sys
from pathlib import Path

from assets.benchmark.executors.subprocess import SubprocessExecutor
from assets.benchmark.job_file import read_job

if __name__ == "__main__":
    sys.exit(SubprocessExecutor().run(read_job(Path(sys.argv[1])).job, {}, lambda _: None).exit_code)
