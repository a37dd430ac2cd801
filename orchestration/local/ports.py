"""Loopback ports: a free one, or the one that the person asked for."""

from __future__ import annotations

import socket

import psutil

HOST = "127.0.0.1"


class PortTakenError(Exception):
    """A port that was asked for is in use; the message says by which process and what to do."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT counts as free, one that listens does not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """A port that nobody listens on, chosen by the kernel."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def choose(asked: int | None, variable: str, preferred: int | None = None) -> int:
    """The port to listen on: `asked` when it is set, else `preferred` when it is free, else any free one.

    Raises:
        PortTakenError: `asked` is in use; `variable` is the setting to change.
    """
    if asked is None:
        return preferred if preferred is not None and is_free(preferred) else any_free()
    if not is_free(asked):
        raise PortTakenError(
            f"port {asked} is taken by {_listener(asked)}: stop that process, set {variable} to another port, or unset it for a free one"
        )
    return asked


def _listener(port: int) -> str:
    try:
        for connection in psutil.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:  # other users' processes are hidden
        pass
    return "another process"
