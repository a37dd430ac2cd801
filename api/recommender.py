"""From a request to an answer: out of the cache where it is there, computed from the marts otherwise, stale when the database is down."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import Any

from api.cache import AnswerCache, CatalogVersion
from api.errors import CatalogNotReadyError, DatabaseUnavailableError, UnknownUseCaseError
from api.metrics import Metrics
from api.present import document
from api.repository import Repository, use_case_row
from api.schemas.request import RecommendRequest
from api.schemas.response import CacheState
from api.singleflight import SingleFlight
from assets.rankings.recommend import recommend
from assets.rankings.request import RecommendRequest as Terms
from assets.rankings.rows import LoadPointRow, UseCaseRow

Rows = tuple[LoadPointRow, ...]


class RowMemory:
    """The load points of the use cases asked for lately, of one catalog version only."""

    def __init__(self, max_use_cases: int = 16) -> None:
        self._max = max_use_cases
        self._lock = Lock()
        self._version: CatalogVersion | None = None
        self._kept: OrderedDict[str, tuple[UseCaseRow, Rows]] = OrderedDict()

    def get(self, version: CatalogVersion, use_case: str) -> tuple[UseCaseRow, Rows] | None:
        """The use case and its load points, when they are of this version."""
        with self._lock:
            if version != self._version or use_case not in self._kept:
                return None
            self._kept.move_to_end(use_case)
            return self._kept[use_case]

    def put(self, version: CatalogVersion, use_case: UseCaseRow, rows: Rows) -> None:
        """Keep them; whatever is of another version goes."""
        with self._lock:
            if version != self._version:
                self._kept.clear()
                self._version = version
            self._kept[use_case.use_case] = (use_case, rows)
            if len(self._kept) > self._max:
                self._kept.popitem(last=False)


class Recommender:
    """Answers requests. Safe to share between threads."""

    def __init__(self, repository: Repository, cache: AnswerCache, metrics: Metrics) -> None:
        self._repository = repository
        self._cache = cache
        self._metrics = metrics
        self._memory = RowMemory()
        self._answers: SingleFlight[dict[str, Any]] = SingleFlight()
        self._rows: SingleFlight[Rows] = SingleFlight()
        self._last_version: CatalogVersion | None = None

    def answer(self, request: RecommendRequest) -> dict[str, Any]:
        """The response as JSON values.

        Raises:
            InvalidRequestError: the terms contradict themselves.
            UnknownUseCaseError: the taxonomy does not have the use case.
            CatalogNotReadyError: nothing has been built yet.
            DatabaseUnavailableError: the database does not answer, and nothing is kept that could stand in.
        """
        started = time.perf_counter()
        terms = request.terms()
        asked = request.model_dump(mode="json")
        try:
            version = self._repository.catalog_version()
        except DatabaseUnavailableError:
            found = self._stale(terms, asked)
            if found is None:
                raise
            state: CacheState = "stale"
        else:
            self._last_version = version
            kept = self._cache.get(version, asked)
            state = "miss" if kept is None else "hit"
            found = kept or self._answers.do(version.key(asked), lambda: self._fresh(version, terms, asked))
        self._metrics.cache_answers.labels(state).inc()
        elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
        return {**found, "metadata": {**found["metadata"], "cache": state, "elapsed_ms": elapsed_ms}}

    def _fresh(self, version: CatalogVersion, terms: Terms, asked: dict[str, Any]) -> dict[str, Any]:
        use_case = self._use_case(terms.use_case)
        answer = _computed(version, terms, use_case, self._load_points(version, use_case))
        self._cache.put(version, asked, answer)
        return answer

    def _stale(self, terms: Terms, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The answer for the last version that is known: kept in the cache, or computed from load points still in memory."""
        version = self._last_version or self._cache.last_version()
        if version is None:
            return None
        kept = self._cache.get(version, asked)
        if kept is not None:
            return kept
        remembered = self._memory.get(version, terms.use_case)
        return None if remembered is None else _computed(version, terms, *remembered)

    def _use_case(self, name: str) -> UseCaseRow:
        known = {row["use_case"]: row for row in self._repository.use_cases()}
        if not known:
            raise CatalogNotReadyError("catalog.use_case_taxonomy is empty")
        if name not in known:
            raise UnknownUseCaseError(name, list(known), "body.use_case")
        return use_case_row(known[name])

    def _load_points(self, version: CatalogVersion, use_case: UseCaseRow) -> Rows:
        remembered = self._memory.get(version, use_case.use_case)
        if remembered is not None and remembered[0].workloads == use_case.workloads:
            return remembered[1]
        rows = self._rows.do((version, use_case.workloads), lambda: self._repository.load_points(use_case.workloads))
        self._memory.put(version, use_case, rows)
        return rows


def _computed(version: CatalogVersion, terms: Terms, use_case: UseCaseRow, rows: Rows) -> dict[str, Any]:
    return document(recommend(terms, use_case, rows), version.number).model_dump(mode="json")
