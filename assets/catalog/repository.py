"""`Catalog`: the one object that stages and commands are given. It opens transactions; the modules beside it hold the SQL."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from assets.benchmark.job import Measurement
from assets.benchmark.store import BatchFailure
from assets.catalog import batches, breakers, checks, configurations, failures, models, queries, reference, results, timeseries
from assets.catalog.checks import CheckOutcome
from assets.catalog.database import make_engine, transaction
from assets.catalog.queries import CatalogSummary, MeasuredPoint, ResultCount
from assets.catalog.reference import ReferenceChanges
from assets.catalog.timeseries import Edition, Month
from assets.matrix import dimensions
from assets.matrix.generate import Matrix
from assets.matrix.spec import Batch, ModelVersion
from assets.matrix.store import MatrixCounts
from assets.models.facts import ModelFacts
from assets.models.store import Weights

MONTHS_AHEAD = 3


class Catalog:
    """The catalog's database behind plain methods, each one transaction. Safe to share between threads.

    It is the `ModelStore`, the `MatrixStore` and the `ResultStore` of the stages. The schema must be there (`migrate.upgrade`).
    Every method raises CatalogUnavailableError when the database does not answer.
    """

    def __init__(self, database: str | Engine) -> None:
        self._engine = make_engine(database) if isinstance(database, str) else database
        self._ready_months: set[Month] = set()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # models

    def register_model(self, facts: ModelFacts) -> bool:
        """Store a model's facts; True when it is new or its facts changed."""
        with self._transaction() as connection:
            return models.register(connection, facts)

    def register_weights(self, weights: Weights) -> None:
        """Store a model version whose weights are in place. Raises UnknownModelError."""
        with self._transaction() as connection:
            models.register_weights(connection, weights)

    def hub_id_of(self, model_id: str) -> str | None:
        """The hub id of a registered model; None where there is none."""
        with self._transaction() as connection:
            return models.hub_id_of(connection, model_id)

    def model(self, model_id: str) -> ModelFacts:
        """The facts of a registered model. Raises UnknownModelError."""
        with self._transaction() as connection:
            return models.model(connection, model_id)

    def model_ids(self) -> Sequence[str]:
        """The registered models."""
        with self._transaction() as connection:
            return models.model_ids(connection)

    def model_versions(self, model_id: str) -> Sequence[ModelVersion]:
        """The versions of a model whose weights are in place, one a quantization."""
        with self._transaction() as connection:
            return models.versions(connection, model_id)

    # matrix

    def save_matrix(self, matrices: Sequence[Matrix], batches: Sequence[Batch]) -> None:
        """Store every cell. Raises UnknownModelError and UnknownHardwareError."""
        with self._transaction() as connection:
            configurations.save(connection, matrices, batches)

    def matrix_counts(self, model_id: str) -> MatrixCounts:
        """What is stored of a model."""
        with self._transaction() as connection:
            return configurations.counts(connection, model_id)

    # measurements

    def batch(self, partition_key: str) -> Batch:
        """The batch with its feasible configurations in measuring order. Raises UnknownBatchError."""
        with self._transaction() as connection:
            return batches.batch(connection, partition_key)

    def done(self, config_ids: Collection[str], protocol: str, repeat: int) -> set[str]:
        """Those of `config_ids` that are measured under this protocol at this repeat."""
        with self._transaction() as connection:
            return results.done(connection, config_ids, protocol, repeat)

    def next_repeat(self, config_ids: Collection[str], protocol: str) -> int:
        """The lowest repeat at which at least one of `config_ids` is not measured yet."""
        with self._transaction() as connection:
            return results.next_repeat(connection, config_ids, protocol)

    def add(self, measurement: Measurement, run_id: str | None) -> bool:
        """Store one measurement exactly once; False when its load point is already in.

        Raises UnknownConfigurationError and InvalidMeasurementError.
        """
        self._ensure_months(results.months_of(measurement))
        with self._transaction() as connection:
            return results.add(connection, measurement, run_id, tool_version=dyno_version())

    def record_failure(self, failure: BatchFailure) -> None:
        """Append one failure of a batch or a load point."""
        with self._transaction() as connection:
            failures.record(connection, failure)

    def admit(self, framework: str, hardware_id: str) -> timedelta | None:
        """Ask the circuit breaker of an engine on a hardware config to let a batch start: None, or how long to wait before asking again."""
        with self._transaction() as connection:
            return breakers.admit(connection, framework, hardware_id)

    def note_outcome(self, framework: str, hardware_id: str, *, succeeded: bool) -> None:
        """Tell the circuit breaker that a batch has measured something, or has failed in a way that counts."""
        with self._transaction() as connection:
            breakers.note_outcome(connection, framework, hardware_id, succeeded=succeeded)

    def batches_needing_review(self, hardware_id: str) -> Mapping[str, str]:
        """Partition key -> latest failure detail."""
        with self._transaction() as connection:
            return failures.needing_review(connection, hardware_id)

    def measurements_of(self, *, partition_keys: Collection[str] = (), model_ids: Collection[str] = ()) -> Sequence[MeasuredPoint]:
        """Measurements of these batches or models; all when neither is named."""
        with self._transaction() as connection:
            return queries.measurements_of(connection, partition_keys=partition_keys, model_ids=model_ids)

    # the whole

    def load_reference_data(self) -> ReferenceChanges:
        """Upsert the hardware, prices, engines and use cases of `assets/matrix/data`."""
        with self._transaction() as connection:
            return reference.load(
                connection,
                dimensions.load_hardware().values(),
                dimensions.load_prices(),
                dimensions.load_frameworks().values(),
                dimensions.load_use_cases(),
            )

    def summary(self) -> CatalogSummary:
        """How much there is of everything."""
        with self._transaction() as connection:
            return queries.summary(connection)

    def result_counts(self) -> Sequence[ResultCount]:
        """Measurements by kind and hardware config."""
        with self._transaction() as connection:
            return queries.result_counts(connection)

    def catalog_version(self) -> int:
        """The version of everything that the API reads."""
        with self._transaction() as connection:
            return queries.catalog_version(connection)

    def bump_catalog_version(self) -> int:
        """The next version, which is returned: cached answers of the API are no longer found."""
        with self._transaction() as connection:
            return queries.bump_catalog_version(connection)

    def maintain(self) -> list[str]:
        """Make the coming months' partitions and refresh the planner's statistics; returns the partitions made."""
        with self._transaction() as connection:
            made = timeseries.ensure_months(connection, timeseries.months_ahead(datetime.now(UTC), MONTHS_AHEAD))
        with self._transaction() as connection:
            connection.execute(text("ANALYZE catalog.benchmark_results, catalog.gpu_telemetry, catalog.benchmark_configs"))
        return made

    def edition(self) -> Edition:
        """What keeps the time series: plain PostgreSQL, or which TimescaleDB."""
        with self._transaction() as connection:
            return timeseries.edition(connection)

    def check_results(self) -> Sequence[CheckOutcome]:
        """Every quality check of the stored measurements."""
        with self._transaction() as connection:
            return checks.run_all(connection)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with transaction(self._engine) as connection:
            yield connection

    def _ensure_months(self, months: set[Month]) -> None:
        """In a transaction of its own: attaching a partition must not wait for the rows that need it."""
        missing = months - self._ready_months
        if missing:
            with self._transaction() as connection:
                timeseries.ensure_months(connection, missing)
            self._ready_months |= missing


def dyno_version() -> str:
    """The version of this Dyno, whether installed or run from its source."""
    try:
        return importlib.metadata.version("dyno")
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
