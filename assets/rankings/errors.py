"""What may go wrong in ranking. Every message says what is wrong and what to do."""

from __future__ import annotations


class RankingsError(Exception):
    """Base of the errors of this stage; its message is meant for people."""


class InvalidRequestError(RankingsError, ValueError):
    """A request that cannot be answered as asked. `field` is the path of the offending field, for example `sla.ttft_p90_ms`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
