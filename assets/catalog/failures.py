"""What went wrong with batches, and which of them wait for a person."""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from assets.benchmark.store import BatchFailure
from assets.catalog import tables


def record(connection: Connection, failure: BatchFailure) -> None:
    """Append one row. Characters that PostgreSQL's text cannot hold (an engine's log may have any) become U+FFFD."""
    detail = failure.detail.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    connection.execute(
        insert(tables.JobFailure).values(
            failure_id=uuid4(),
            partition_key=failure.partition_key,
            config_id=failure.config_id,
            run_id=failure.run_id,
            attempt=failure.attempt,
            failure_kind=failure.failure_kind,
            detail=detail,
            needs_review=failure.needs_review,
            occurred_at=func.clock_timestamp(),
        )
    )


def needing_review(connection: Connection, hardware_id: str) -> dict[str, str]:
    """Partition key -> latest failure detail. A load point that completes later clears the mark (see `results.add`)."""
    failure, config = tables.JobFailure, tables.BenchmarkConfig
    of_hardware = select(config.partition_key).where(config.hardware_id == hardware_id)
    rows = connection.execute(
        select(failure.partition_key, failure.detail)
        .where(failure.needs_review, failure.partition_key.in_(of_hardware))
        .order_by(failure.partition_key, failure.occurred_at.desc())
        .ext(distinct_on(failure.partition_key))
    )
    return {row.partition_key: row.detail for row in rows}
