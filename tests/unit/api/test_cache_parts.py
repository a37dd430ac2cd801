"""Keys, the circuit and single flight."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event, Semaphore

import pytest

from api.cache import CatalogVersion, Circuit
from api.schemas.request import EXAMPLE, RecommendRequest
from api.singleflight import SingleFlight

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_key_depends_on_the_question_and_the_version_only() -> None:
    """The order of fields and defaults written out change nothing; another version, database or question does."""

    def key(version: int = 1, updated_at: datetime = NOW, **changes: object) -> str:
        request = RecommendRequest.model_validate(EXAMPLE | changes)
        return CatalogVersion(version, updated_at).key(request.model_dump(mode="json"))

    reordered = RecommendRequest.model_validate(dict(reversed(EXAMPLE.items())))
    assert CatalogVersion(1, NOW).key(reordered.model_dump(mode="json")) == key() == key(method="topsis", kinds=["measured", "published"])
    assert key().startswith("dyno:v1:recommend:1:")
    different = {key(), key(2), key(updated_at=datetime(2026, 11, 2, tzinfo=UTC)), key(top=11), key(use_case="rag"), key(sla={})}
    assert len(different) == 6


def test_the_circuit_lets_one_try_through_after_the_pause() -> None:
    """Closed, open after a failure, one probe after the pause, closed again after a success."""
    now = 0.0
    circuit = Circuit(5.0, clock=lambda: now)
    assert circuit.allows()
    assert circuit.failed()
    assert not circuit.allows()
    now = 5.0
    assert circuit.allows()
    assert not circuit.allows(), "one probe at a time"
    assert not circuit.failed(), "not the first failure"
    now = 10.0
    assert circuit.allows()
    assert circuit.worked()
    assert not circuit.worked()
    assert circuit.allows()


def test_overlapping_calls_share_one_execution() -> None:
    """All callers that come while the work is running get its result; the next one after that runs it again."""
    flight: SingleFlight[int] = SingleFlight()
    started, looked_up, runs, followers = Event(), Semaphore(0), [], range(4)

    class FollowersKey(str):
        __slots__ = ()

        def __hash__(self) -> int:
            looked_up.release()
            return str.__hash__(self)

    def work() -> int:
        runs.append(1)
        started.set()
        # the work goes on until every follower has asked for it
        assert all(looked_up.acquire(timeout=30) for _ in followers)
        return len(runs)

    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(flight.do, "key", work)
        assert started.wait(30)
        results = [pool.submit(flight.do, FollowersKey("key"), work) for _ in followers]
        assert [first.result(30), *(r.result(30) for r in results)] == [1] * 5
    assert flight.do("key", lambda: 7) == 7


def test_an_error_reaches_the_caller_and_is_not_kept() -> None:
    flight: SingleFlight[int] = SingleFlight()

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        flight.do("key", fail)
    assert flight.do("key", lambda: 1) == 1
