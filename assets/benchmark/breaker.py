"""A circuit breaker for one engine on one hardware config: after failure upon failure it keeps further batches from burning GPU hours.

Closed, it lets every batch through. After `FAILURES` failures without a success between them it opens: nothing starts for `RECOVERY`. Then
it is half open: `TRIALS` batches may try; a success closes it, a failure opens it again. The state is immutable and knows no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

FAILURES = 5
RECOVERY = timedelta(seconds=30)
TRIALS = 3
# A trial whose run was killed tells nothing: its place is given to another one after this.
TRIAL_EXPIRES = timedelta(hours=1)
# Kinds of failure that speak against the engine or the hardware, not against one model, one job or the capacity that was taken away.
COUNTING_KINDS = frozenset(
    {"engine_error", "crashed", "start_timeout", "driver_error", "image_pull", "engine_crashed", "worker_crashed", "deadline"}
)


@dataclass(frozen=True, slots=True)
class Breaker:
    """`failures` in a row, when it opened (None while closed), and when the trials of the half-open state began."""

    failures: int = 0
    opened_at: datetime | None = None
    trials: tuple[datetime, ...] = ()

    def admit(self, now: datetime) -> Breaker | None:
        """The breaker after letting one batch start at `now`; None when it must wait."""
        if self.opened_at is None:
            return self
        running = self._running(now)
        if now < self.opened_at + RECOVERY or len(running) >= TRIALS:
            return None
        return replace(self, trials=(*running, now))

    def succeeded(self) -> Breaker:
        """A batch has measured something: closed."""
        return Breaker()

    def failed(self, now: datetime) -> Breaker:
        """A batch has failed in a way that counts."""
        failures = self.failures + 1
        if self.opened_at is not None or failures >= FAILURES:
            return Breaker(failures, opened_at=now)
        return Breaker(failures)

    def wait(self, now: datetime) -> timedelta:
        """How long until it may be worth asking again; zero when it admits."""
        if self.opened_at is None:
            return timedelta()
        running = self._running(now)
        until_trials = min(running) + TRIAL_EXPIRES - now if len(running) >= TRIALS else timedelta()
        return max(timedelta(), self.opened_at + RECOVERY - now, min(until_trials, RECOVERY))

    def _running(self, now: datetime) -> tuple[datetime, ...]:
        return tuple(began for began in self.trials if now - began < TRIAL_EXPIRES)
