"""How many connections a process may have: each is an open file."""

from __future__ import annotations

import resource
from contextlib import suppress


def raise_file_limit() -> None:
    """To what the machine allows. The usual soft limit of 1,024 is there for programs that use select on single files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
