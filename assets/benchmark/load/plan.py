"""What is sent when: the requests of a load point and the rule that releases them, as one load process takes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: the pieces of its body, between which the answers to the chain's earlier turns are set (escaped for JSON).

    A request that needs no answer is one piece. `think_s` is waited between the end of the turn before and this one.
    """

    pieces: tuple[bytes, ...]
    think_s: float = 0.0


# A conversation; a request that stands alone is a chain of one turn.
Chain = tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Chains in the order of their release, and the rule of release.

    Closed loop: `streams_start_s` has an instant for each stream, from which on it sends one chain after the other. Open loop: `due_s`
    has an instant for each chain. Exactly one of the two is set; instants are seconds from the start of the load point, ascending.
    After `duration_s` nothing new is sent, and what is under way is finished.
    """

    chains: Sequence[Chain]
    path: str
    timeout_s: float
    streams_start_s: Sequence[float] | None = None
    due_s: Sequence[float] | None = None
    duration_s: float | None = None
    max_response_bytes: int = 2**20

    def __post_init__(self) -> None:
        """Raises ValueError where the rule of release is not one."""
        if (self.streams_start_s is None) == (self.due_s is None):
            raise ValueError("a load plan is either a closed loop or an open one")
        if self.due_s is not None and len(self.due_s) != len(self.chains):
            raise ValueError("an open loop needs an instant for each chain")
        if not self.chains:
            raise ValueError("a load plan needs requests")

    def share(self, worker: int, workers: int) -> LoadPlan:
        """What one of `workers` processes sends: every `workers`-th chain, and as many streams."""
        mine = slice(worker, None, workers)
        return LoadPlan(
            chains=self.chains[mine],
            path=self.path,
            timeout_s=self.timeout_s,
            streams_start_s=None if self.streams_start_s is None else self.streams_start_s[mine],
            due_s=None if self.due_s is None else self.due_s[mine],
            duration_s=self.duration_s,
            max_response_bytes=self.max_response_bytes,
        )

    @property
    def requests(self) -> int:
        """How many requests it has, turns counted one by one."""
        return sum(len(chain) for chain in self.chains)

    def write(self, file: BinaryIO) -> None:
        """Hand it on: one line of JSON, then the pieces of the bodies end to end."""
        header = {
            "path": self.path,
            "timeout_s": self.timeout_s,
            "streams_start_s": None if self.streams_start_s is None else list(self.streams_start_s),
            "due_s": None if self.due_s is None else list(self.due_s),
            "duration_s": self.duration_s,
            "max_response_bytes": self.max_response_bytes,
            "chains": [[[turn.think_s, [len(piece) for piece in turn.pieces]] for turn in chain] for chain in self.chains],
        }
        file.write(json.dumps(header).encode() + b"\n")
        for chain in self.chains:
            for turn in chain:
                file.writelines(turn.pieces)

    @classmethod
    def read(cls, file: BinaryIO) -> LoadPlan:
        """The inverse of `write`."""
        header = json.loads(file.readline())
        header["chains"] = [
            tuple(Turn(tuple(file.read(size) for size in sizes), think_s) for think_s, sizes in chain) for chain in header["chains"]
        ]
        return cls(**header)
