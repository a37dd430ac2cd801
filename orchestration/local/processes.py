"""Start, mark, find and stop processes, so that none is left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

INSTANCE_VARIABLE = "DYNO_INSTANCE"
OWNER_VARIABLE = "DYNO_OWNER"
DATA_SUFFIX = ":data"
POLL_INTERVAL_S = 0.05
LAUNCHER = Path(__file__).with_name("launch.py")


def instance_id(state_dir: Path) -> str:
    """The mark of every process that works on this state folder: 16 hex digits of the hash of its path."""
    return hashlib.sha256(os.fsencode(os.path.realpath(state_dir))).hexdigest()[:16]


def owner_mark(pid: int | None = None) -> str:
    """`pid:start time` of a process; unlike a bare pid it is not true of a later process with the same number.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    process = psutil.Process(pid)
    stat = Path(f"/proc/{process.pid}/stat")
    if stat.exists():  # ticks since boot: psutil's create_time() moves when the clock is set
        try:
            return f"{process.pid}:{stat.read_text(encoding='utf-8', errors='replace').rpartition(')')[2].split()[19]}"
        except OSError:
            raise psutil.NoSuchProcess(process.pid) from None
    return f"{process.pid}:{process.create_time():.0f}"


def data_mark(owner: str) -> str:
    """The owner mark of PostgreSQL and the cache: they outlive the other processes of their owner, which write to them to the end."""
    return owner + DATA_SUFFIX


def owner_alive(mark: str) -> bool:
    """Whether the process that `owner_mark` was taken of still runs."""
    mark = mark.removesuffix(DATA_SUFFIX)
    pid, _, _ = mark.partition(":")
    try:
        return pid.isdigit() and owner_mark(int(pid)) == mark and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def launch_command(command: Sequence[str], identity: str | None = None, parent_death_signal: signal.Signals | None = None) -> list[str]:
    """`command` behind launch.py: under another identity, and ending with this process when a signal is given.

    The kernel binds a child to the *thread* that started it: start it in the main thread, or in one that lives as long.
    """
    options = [] if identity is None else ["--identity", identity]
    if parent_death_signal is not None:
        options += ["--signal", str(int(parent_death_signal)), "--parent", str(os.getpid())]
    if not options:
        return list(command)
    return [sys.executable, "-I", "-S", str(LAUNCHER), *options, "--", *command]


@dataclass(frozen=True, slots=True)
class Spawned:
    """A child of ours, its log file, and the signal that stops it in good order."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path
    stop_signal: signal.Signals = signal.SIGTERM

    def stop(self, timeout_s: float) -> None:
        """Stop it in good order, by force after `timeout_s`. Safe to call twice."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, for an error message."""
        try:
            return "\n".join(self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def spawn(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    log_file: Path,
    *,
    identity: str | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    parent_death_signal: signal.Signals = signal.SIGTERM,
    cwd: Path | None = None,
) -> Spawned:
    """Start a child in a process group of its own (a terminal's Ctrl-C must not reach it before us) that writes to `log_file`."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            launch_command(command, identity, parent_death_signal),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
    return Spawned(name, process, log_file, stop_signal)


def find_marked(variable: str, value: str) -> list[psutil.Process]:
    """Every process but this one whose environment has `variable` set to `value`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # it ended meanwhile, or is another user's
            continue
    return found


def leftovers(instance: str) -> list[psutil.Process]:
    """Processes of this instance whose owner (the command or supervisor that they were started for) has ended."""
    orphans = []
    for process in find_marked(INSTANCE_VARIABLE, instance):
        try:
            owner = process.environ().get(OWNER_VARIABLE, "")
        except (psutil.Error, OSError):
            continue
        if not owner_alive(owner):
            orphans.append(process)
    return orphans


def end_processes(processes: Sequence[psutil.Process], grace_s: float = 5.0) -> None:
    """Ask them to end, and end by force those that have not after `grace_s`."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    alive = wait_for_end(processes, grace_s)
    for process in alive:
        _signal(process, signal.SIGKILL)
    wait_for_end(alive, grace_s)


def wait_for_end(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until they have ended; gives those that have not. One that only waits for its parent to take notice (a zombie) has."""
    deadline = time.monotonic() + timeout_s
    alive = [process for process in processes if _runs(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
        alive = [process for process in alive if _runs(process)]
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
