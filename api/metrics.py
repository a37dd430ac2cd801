"""What Prometheus is told about the API."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The metrics of one application, in a registry of its own so that several applications can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "dyno_api_requests", "Requests by route template and status.", ["method", "route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "dyno_api_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its response.",
            ["method", "route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.cache_answers = Counter(
            "dyno_api_recommendations", "Recommendations by where they came from: hit, miss or stale.", ["cache"], registry=self.registry
        )
        self.cache_errors = Counter(
            "dyno_api_cache_errors", "Calls to Redis that failed, by operation.", ["operation"], registry=self.registry
        )
        self.cache_skips = Counter(
            "dyno_api_cache_skips", "Calls to Redis left out because it failed a moment ago.", ["operation"], registry=self.registry
        )
        self.database_errors = Counter(
            "dyno_api_database_errors", "Reads that failed because the database could not answer.", registry=self.registry
        )
        self.catalog_version = Gauge(
            "dyno_api_catalog_version",
            "Version of the catalog that was read last; it grows with every build of the marts.",
            registry=self.registry,
        )
