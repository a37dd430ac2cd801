"""How long work on files tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]


def no_progress(what: str, done_bytes: int, total_bytes: int) -> None:
    """A progress callback that shows nothing: (what is being made, bytes done, bytes in all)."""
