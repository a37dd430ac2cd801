"""Marks, ports and stopping: what makes sure that no process is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator

import psutil
import pytest

from orchestration.local import ports
from orchestration.local.processes import end_processes, find_marked, leftovers, owner_alive, owner_mark
from orchestration.local.supervisor import LONGEST_BACKOFF_S, backoff_s
from tests.deadlines import eventually

SLEEPER = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def start(started: list[subprocess.Popen[bytes]], code: str, **marks: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **marks}, stdout=subprocess.PIPE)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_an_owner_is_alive_until_it_ends(started: list[subprocess.Popen[bytes]]) -> None:
    process = start(started, SLEEPER)
    mark = owner_mark(process.pid)
    assert owner_alive(mark)
    process.kill()
    # a zombie (not yet waited for) is dead too
    eventually(lambda: not owner_alive(mark), "the owner counts as dead", 10)


def test_a_later_process_with_the_same_number_is_not_the_owner() -> None:
    assert owner_alive(owner_mark())
    assert not owner_alive(f"{os.getpid()}:1")
    assert not owner_alive("")
    assert not owner_alive("nonsense")


def test_leftovers_are_the_marked_processes_of_dead_owners_only(started: list[subprocess.Popen[bytes]]) -> None:
    """`up` must end what a killed command left, and must not touch what a living command runs."""
    instance = uuid.uuid4().hex
    orphan = start(started, SLEEPER, DYNO_INSTANCE=instance, DYNO_OWNER="999999999:1")
    start(started, SLEEPER, DYNO_INSTANCE=instance, DYNO_OWNER=owner_mark())
    start(started, SLEEPER, DYNO_INSTANCE="another", DYNO_OWNER="999999999:1")
    assert len(find_marked("DYNO_INSTANCE", instance)) == 2
    assert [process.pid for process in leftovers(instance)] == [orphan.pid]


def test_a_process_that_ignores_sigterm_is_ended_too(started: list[subprocess.Popen[bytes]]) -> None:
    process = start(started, STUBBORN)
    end_processes([psutil.Process(process.pid)], grace_s=0.2)
    assert process.wait(10) == -signal.SIGKILL


def test_waits_double_up_to_a_limit() -> None:
    assert [backoff_s(n) for n in range(1, 5)] == [1, 2, 4, 8]
    assert backoff_s(50) == LONGEST_BACKOFF_S


def test_a_taken_port_that_was_asked_for_is_an_error_that_names_the_process() -> None:
    with socket.socket() as listener:
        listener.bind((ports.HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ports.PortTakenError, match=rf"port {port} is taken by .*\(process {os.getpid()}\).*DYNO_API_PORT"):
            ports.choose(port, "DYNO_API_PORT")


def test_a_taken_port_that_is_only_preferred_is_passed_over() -> None:
    with socket.socket() as listener:
        listener.bind((ports.HOST, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        chosen = ports.choose(None, "DYNO_API_PORT", preferred=taken)
    assert chosen != taken
    assert ports.choose(None, "DYNO_API_PORT", preferred=chosen) == chosen
