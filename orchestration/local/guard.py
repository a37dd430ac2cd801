"""The guard: a small process that ends everything that a command started when the command itself is killed.

The kernel ends direct children with their parent (see launch.py), not grandchildren: Dagster's code servers and run workers, and their
engines. The guard waits for the end of its owner and then ends every process that carries the owner's mark.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from orchestration.local.processes import INSTANCE_VARIABLE, OWNER_VARIABLE, data_mark, end_processes, find_marked, owner_alive
from orchestration.settings import REPO_ROOT

CHECK_INTERVAL_S = 1.0
SWEEPS = 3
GUARD_END_TIMEOUT_S = 30


def end_owned(mark: str, grace_s: float = 5.0) -> int:
    """End every process that carries this owner mark; gives how many there were."""
    ended = 0
    for _ in range(SWEEPS):  # one that was found may have started another meanwhile
        found = find_marked(OWNER_VARIABLE, mark)
        if not found:
            break
        end_processes(found, grace_s)
        ended += len(found)
    return ended


@contextmanager
def guarded(owner: str, base: Mapping[str, str]) -> Iterator[None]:
    """For the block, have a guard for `owner` (this process). At the end of the block the guard ends what is left, too."""
    environment = {name: value for name, value in base.items() if name not in {INSTANCE_VARIABLE, OWNER_VARIABLE}}
    guard = subprocess.Popen(
        [sys.executable, "-m", "orchestration.local.guard", owner],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=REPO_ROOT,
        env=environment,
    )
    try:
        yield
    finally:
        if guard.stdin is not None:
            guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it goes on by itself
            guard.wait(GUARD_END_TIMEOUT_S)


def main(owner: str) -> None:
    """Wait until standard input closes or the owner is gone (a fork of the owner may keep the pipe open), then end what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], CHECK_INTERVAL_S)
        if (readable and not os.read(sys.stdin.fileno(), 1)) or not owner_alive(owner):
            break
    end_owned(owner)
    end_owned(data_mark(owner))


if __name__ == "__main__":
    main(sys.argv[1])
