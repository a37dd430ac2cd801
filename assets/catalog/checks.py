"""What must hold for the stored measurements, each as one SQL query that finds the rows where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from sqlalchemy import Connection, text

SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class ResultCheck:
    """`violations` selects (id, what is wrong) of every row that breaks the rule."""

    name: str
    description: str
    violations: str


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """How many rows break a rule, and what is wrong with the first few."""

    check: ResultCheck
    violations: int
    examples: Sequence[str]

    @property
    def passed(self) -> bool:
        return self.violations == 0


def _disordered(metric: str) -> str:
    ordered = [f"{metric}_{p}_ms" for p in ("p50", "p90", "p95", "p99")]
    pairs = " OR ".join(f"{low} > {high}" for low, high in pairwise(ordered))
    shown = ", ".join(ordered)
    return f"SELECT measurement_id::text, concat_ws(' ', '{metric}', {shown}) FROM catalog.benchmark_results WHERE {pairs}"  # noqa: S608


CHECKS: Final = (
    ResultCheck(
        "percentiles_ordered",
        "p50 <= p90 <= p95 <= p99 in TTFT, TPOT, ITL and end-to-end latency.",
        " UNION ALL ".join(_disordered(metric) for metric in ("ttft", "tpot", "itl", "e2e")),
    ),
    ResultCheck(
        "requests_add_up",
        "Requests sent = completed + failed, and the failures by kind add up to the failed ones.",
        "SELECT measurement_id::text, "
        "concat(requests_sent, ' sent, ', requests_completed, ' completed, ', requests_failed, ' failed, by kind ', failures) "
        "FROM catalog.benchmark_results WHERE requests_sent <> requests_completed + requests_failed "
        "OR requests_failed <> (SELECT coalesce(sum(value::numeric), 0) FROM jsonb_each_text(failures))",
    ),
    ResultCheck(
        "simulated_not_rankable",
        "Nothing made up passes as real: a row of a rankable kind (measured, published) names a file with its SHA-256 as evidence.",
        "SELECT r.measurement_id::text, concat(r.kind, ' by ', p.tool, ' from ', p.source_uri) FROM catalog.benchmark_results r "
        "JOIN catalog.provenance p USING (provenance_id) WHERE r.kind IN ('measured', 'published') AND p.file_sha256 IS NULL",
    ),
    ResultCheck(
        "measured_once",
        "A configuration has one result under one protocol at one repeat, and a checkpoint that names it.",
        "SELECT min(r.measurement_id::text), concat(r.config_id, ' ', r.protocol, '-r', r.repeat, ': ', count(*), ' results') "
        "FROM catalog.benchmark_results r LEFT JOIN catalog.job_checkpoints c USING (measurement_id) "
        "GROUP BY r.config_id, r.protocol, r.repeat HAVING count(*) > 1 OR count(c.measurement_id) = 0",
    ),
    ResultCheck(
        "in_flight_within_concurrency",
        "A closed loop never has more requests in flight than it was asked for: summed latencies / duration <= concurrency.",
        "SELECT r.measurement_id::text, concat(r.concurrency_mean, ' in flight of ', c.concurrency) "
        "FROM catalog.benchmark_results r JOIN catalog.benchmark_configs c USING (config_id) "
        "WHERE r.kind = 'measured' AND r.concurrency_mean > c.concurrency * 1.001",
    ),
)


def run_all(connection: Connection) -> list[CheckOutcome]:
    """Every check over all stored measurements."""
    return [run(connection, check) for check in CHECKS]


def run(connection: Connection, check: ResultCheck) -> CheckOutcome:
    """One check; examples say which measurement and what is wrong."""
    violations: int = connection.execute(text(f"SELECT count(*) FROM ({check.violations}) AS violation")).scalar_one()  # noqa: S608
    if not violations:
        return CheckOutcome(check, 0, ())
    found = connection.execute(text(f"SELECT * FROM ({check.violations}) AS violation (id, wrong) ORDER BY id LIMIT {SHOWN}"))  # noqa: S608
    return CheckOutcome(check, violations, tuple(f"{row.id}: {row.wrong}" for row in found))
