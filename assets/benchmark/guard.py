"""Runs a command that dies with the process that started it, even when that one is killed with SIGKILL.

`python guard.py PARENT_PID COMMAND...` asks the kernel for SIGKILL upon the parent's death (prctl(2), PR_SET_PDEATHSIG), then becomes the
command: the setting outlives exec. Linux only; elsewhere the command just runs. The signal follows the parent's *thread*, so a parent must
start the guard from a thread that lives as long as the command should.

Standard library only, and run by its path: it starts in milliseconds and needs no import path.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1


def guarded(command: Sequence[str]) -> list[str]:
    """`command` as one that dies with the calling process."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    """Become the command; only returns by raising."""
    parent, *command = arguments
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != int(parent):  # it died before the request was made
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  # the command is a list that we built


if __name__ == "__main__":
    main(sys.argv[1:])
