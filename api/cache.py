"""Answers in Redis (or Valkey), under keys that carry the catalog's version, so that new results make old answers unreachable at once."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any, TypeVar, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from api.metrics import Metrics
from api.settings import ApiSettings

logger = logging.getLogger("dyno.api.cache")

PREFIX = "dyno:v1"
VERSION_KEY = f"{PREFIX}:catalog_version"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CatalogVersion:
    """What `catalog.catalog_state` says. `updated_at` tells two databases apart that reached the same number."""

    number: int
    updated_at: datetime

    def key(self, request: Mapping[str, Any]) -> str:
        """The key of the answer to a request (as JSON values, defaults filled in) at this version."""
        canonical = json.dumps(
            {"request": request, "updated_at": self.updated_at.isoformat()}, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return f"{PREFIX}:recommend:{self.number}:{hashlib.sha256(canonical.encode('ascii')).hexdigest()}"


class Circuit:
    """Open for `retry_after_s` seconds after a failure; then one more try decides. Safe to share between threads."""

    def __init__(self, retry_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._lock = Lock()
        self._failed_at: float | None = None

    def allows(self) -> bool:
        """Whether to try. While one caller tries after the pause, the others are still told no."""
        with self._lock:
            if self._failed_at is None:
                return True
            if self._clock() - self._failed_at < self._retry_after_s:
                return False
            self._failed_at = self._clock()
            return True

    def failed(self) -> bool:
        """Note a failure. True when it is the first one since things last worked."""
        with self._lock:
            first = self._failed_at is None
            self._failed_at = self._clock()
            return first

    def worked(self) -> bool:
        """Note a success. True when it is the first one after a failure."""
        with self._lock:
            recovered = self._failed_at is not None
            self._failed_at = None
            return recovered


class AnswerCache:
    """Answers by version and request. Never raises: without Redis, or with Redis down, everything is a miss."""

    def __init__(self, settings: ApiSettings, metrics: Metrics) -> None:
        self._ttl_s = settings.api_cache_ttl_s
        self._metrics = metrics
        self._circuit = Circuit(settings.api_cache_retry_after_s)
        self._redis: Redis | None = None
        if settings.redis_url is not None:
            self._redis = Redis.from_url(
                settings.redis_url.get_secret_value(),
                socket_timeout=settings.api_cache_timeout_s,
                socket_connect_timeout=settings.api_cache_timeout_s,
                # a second try at once, because a restarted server has closed the pooled connections
                retry=Retry(NoBackoff(), 1),
            )

    @property
    def configured(self) -> bool:
        """Whether there is a Redis to ask."""
        return self._redis is not None

    def get(self, version: CatalogVersion, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The kept answer, or None."""
        found = self._call("get", lambda redis: redis.get(version.key(request)))
        return _document(cast("bytes | None", found))

    def put(self, version: CatalogVersion, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Keep an answer for the time to live, and with it the version that it belongs to."""
        state = json.dumps({"number": version.number, "updated_at": version.updated_at.isoformat()})
        body = json.dumps(answer, separators=(",", ":"), allow_nan=False)

        def store(redis: Redis) -> None:
            with redis.pipeline(transaction=False) as pipeline:
                pipeline.set(version.key(request), body, ex=self._ttl_s)
                pipeline.set(VERSION_KEY, state, ex=self._ttl_s)
                pipeline.execute()

        self._call("put", store)

    def last_version(self) -> CatalogVersion | None:
        """The version of the answer that was kept last, by this process or another; None when there is none any more."""
        state = _document(cast("bytes | None", self._call("get", lambda redis: redis.get(VERSION_KEY))))
        try:
            return None if state is None else CatalogVersion(state["number"], datetime.fromisoformat(state["updated_at"]))
        except (KeyError, TypeError, ValueError):
            return None

    def ping(self) -> bool:
        """Whether Redis answers now."""
        return bool(self._call("ping", lambda redis: redis.ping()))

    def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            self._redis.close()

    def _call(self, operation: str, action: Callable[[Redis], T]) -> T | None:
        if self._redis is None:
            return None
        if not self._circuit.allows():
            self._metrics.cache_skips.labels(operation).inc()
            return None
        try:
            result = action(self._redis)
        except (RedisError, OSError) as error:
            self._metrics.cache_errors.labels(operation).inc()
            if self._circuit.failed():
                logger.warning("the cache does not answer; recommendations are computed without it", extra={"cause": str(error)})
            return None
        if self._circuit.worked():
            logger.info("the cache answers again")
        return result


def _document(body: bytes | None) -> dict[str, Any] | None:
    """A kept JSON object; None for nothing, and for what is no JSON object (someone else wrote it)."""
    if body is None:
        return None
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
