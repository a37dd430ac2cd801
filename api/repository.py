"""What the API reads: the catalog and the marts, read only, with bound parameters and a limit on every statement's time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Double,
    Engine,
    RowMapping,
    Select,
    column,
    create_engine,
    func,
    inspect,
    make_url,
    or_,
    select,
    table,
    type_coerce,
)
from sqlalchemy import exc as sa
from sqlalchemy.sql.expression import TableClause

from api.cache import CatalogVersion
from api.errors import CatalogNotReadyError, DatabaseUnavailableError
from api.metrics import Metrics
from api.settings import ApiSettings
from assets.catalog.tables import BenchmarkConfig, BenchmarkResult, CatalogState, Model, ModelVersion, UseCase
from assets.rankings.rows import LOAD_POINT_COLUMNS, LoadPointRow, UseCaseRow

MARTS = "marts"
REQUIRED_MARTS = ("load_points", "model_rankings", "model_use_cases")
RANKING_COLUMNS = (
    "use_case", "score_rank", "score", "weights", "config_id", "deployment_id", "model_id", "model_name", "model_version_id",
    "quantization", "framework", "framework_version", "hardware_id", "gpu_type", "gpu_count", "workload", "input_tokens",
    "output_tokens", "concurrency", "request_rate_per_s", "kind", "protocol", "measurement_id", "measured_at", "accuracy",
    "ttft_p90_ms", "tpot_p90_ms", "e2e_p90_ms", "requests_per_s", "output_tokens_per_s",
    "on_demand_usd_per_million_output_tokens", "spot_usd_per_million_output_tokens", "vram_required_bytes",
)  # fmt: skip
MODEL_USE_CASE_COLUMNS = (
    "model_id", "use_case", "workload", "input_tokens", "output_tokens", "load_points", "operating_points", "meets_sla", "suitability",
    "best_rank",
)  # fmt: skip

# https://www.postgresql.org/docs/current/errcodes-appendix.html
UNDEFINED_TABLE, UNDEFINED_COLUMN, INVALID_SCHEMA = "42P01", "42703", "3F000"

T = TypeVar("T")


def _mart(name: str, columns: Sequence[str]) -> TableClause:
    return table(name, *(column(c) for c in columns), schema=MARTS)


LOAD_POINTS = _mart("load_points", LOAD_POINT_COLUMNS)
MODEL_RANKINGS = _mart("model_rankings", RANKING_COLUMNS)
MODEL_USE_CASES = _mart("model_use_cases", MODEL_USE_CASE_COLUMNS)


def make_engine(settings: ApiSettings) -> Engine:
    """An engine whose sessions cannot write, cannot run for long and see one snapshot a transaction. Connects on first use."""
    url: URL = make_url(settings.database_url.get_secret_value())
    return create_engine(
        url,
        isolation_level="REPEATABLE READ",
        pool_size=settings.api_database_pool_size,
        max_overflow=0,
        pool_timeout=settings.api_database_connect_timeout_s,
        connect_args={
            "connect_timeout": settings.api_database_connect_timeout_s,
            # a server that vanished without a word: give up as soon as a statement would have timed out
            "tcp_user_timeout": settings.api_statement_timeout_ms,
            "application_name": "dyno-api",
            "options": f"-c default_transaction_read_only=on -c statement_timeout={settings.api_statement_timeout_ms} -c timezone=UTC",
        },
    )


class Repository:
    """Reads. Every method raises DatabaseUnavailableError when the database cannot answer, CatalogNotReadyError when tables are missing."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        # one statement needs no transaction: half the round trips for the read that every recommendation makes
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    def catalog_version(self) -> CatalogVersion:
        """The version of what is there now."""
        query = select(CatalogState.version, CatalogState.updated_at)
        row = self._read(lambda c: c.execute(query).one_or_none(), self._autocommit)
        if row is None:
            raise CatalogNotReadyError("catalog.catalog_state is empty")
        self._metrics.catalog_version.set(row.version)
        return CatalogVersion(row.version, row.updated_at)

    def missing_marts(self) -> list[str]:
        """The marts that the API reads and that are not there (or that this user may not see)."""
        present = self._read(lambda c: set(inspect(c).get_table_names(schema=MARTS)))
        return [name for name in REQUIRED_MARTS if name not in present]

    def use_cases(self) -> list[RowMapping]:
        """The taxonomy, by name."""
        query = select(UseCase.__table__).order_by(UseCase.use_case)
        return self._read(lambda c: list(c.execute(query).mappings()))

    def load_points(self, workloads: Sequence[str]) -> tuple[LoadPointRow, ...]:
        """The latest measurements under any of the workloads."""
        query = select(LOAD_POINTS).where(LOAD_POINTS.c.workload.in_(workloads))
        return self._read(lambda c: tuple(LoadPointRow.from_mapping(cast("Mapping[str, Any]", row)) for row in c.execute(query).mappings()))

    def rankings(self, use_case: UseCaseRow, filters: Mapping[str, str | int], limit: int, offset: int) -> tuple[list[RowMapping], int]:
        """A page of the rankings of one use case, and how many rows there are in all. `filters` are values by column.

        One ranking after the other, each best first; that of the lengths closest to the use case's typical ones comes first.
        """
        ranked = MODEL_RANKINGS.c
        where = [ranked.use_case == use_case.use_case]
        where += [func.lower(ranked[n]) == v.lower() if isinstance(v, str) else ranked[n] == v for n, v in filters.items()]
        # as assets.rankings.workloads.MeasuredWorkload.distance
        distance = _log_ratio(ranked.input_tokens, use_case.default_input_tokens) + _log_ratio(
            ranked.output_tokens, use_case.default_output_tokens
        )
        order = (distance, ranked.workload, ranked.input_tokens, ranked.output_tokens, ranked.score_rank, ranked.config_id)
        return self._page(select(MODEL_RANKINGS).where(*where).order_by(*order), limit, offset)

    def models(
        self, author: str | None, licence: str | None, search: str | None, limit: int, offset: int
    ) -> tuple[list[dict[str, Any]], int]:
        """A page of the registered models with their versions and numbers of results, by id, and how many there are in all."""
        query = select(Model.__table__).order_by(Model.model_id)
        if author is not None:
            query = query.where(func.lower(func.split_part(Model.hub_id, "/", 1)) == author.lower(), Model.hub_id.contains("/"))
        if licence is not None:
            query = query.where(func.lower(Model.licence) == licence.lower())
        if search is not None:
            query = query.where(or_(*(c.icontains(search, autoescape=True) for c in (Model.model_id, Model.name, Model.hub_id))))

        def read(connection: Connection) -> tuple[list[dict[str, Any]], int]:
            rows, total = _page(connection, query, limit, offset)
            return _with_versions(connection, rows), total

        return self._read(read)

    def model(self, name: str) -> dict[str, Any] | None:
        """One model by its id or its hub id (without regard to case), with versions and, once marts are built, its use cases."""
        query = select(Model.__table__).where(or_(Model.model_id == name.lower(), func.lower(Model.hub_id) == name.lower())).limit(1)

        def read(connection: Connection) -> dict[str, Any] | None:
            found = _with_versions(connection, list(connection.execute(query).mappings()))
            if not found:
                return None
            model = found[0]
            model["use_cases"] = None
            if inspect(connection).has_table(MODEL_USE_CASES.name, schema=MARTS):
                suits = select(MODEL_USE_CASES).where(MODEL_USE_CASES.c.model_id == model["model_id"])
                suits = suits.order_by(*(MODEL_USE_CASES.c[n] for n in ("use_case", "workload", "input_tokens", "output_tokens")))
                model["use_cases"] = list(connection.execute(suits).mappings())
            return model

        return self._read(read)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _page(self, query: Select[Any], limit: int, offset: int) -> tuple[list[RowMapping], int]:
        return self._read(lambda c: _page(c, query, limit, offset))

    def _read(self, query: Callable[[Connection], T], engine: Engine | None = None) -> T:
        try:
            return _retried(query, engine or self._engine)
        except sa.TimeoutError as error:
            self._metrics.database_errors.inc()
            raise DatabaseUnavailableError("all connections to the database are busy") from error
        except sa.DBAPIError as error:
            code = getattr(error.orig, "pgcode", None)
            cause = str(error.orig).partition("\n")[0]
            if code in (UNDEFINED_TABLE, UNDEFINED_COLUMN, INVALID_SCHEMA):
                raise CatalogNotReadyError(cause) from error
            if isinstance(error, sa.OperationalError | sa.InterfaceError):
                self._metrics.database_errors.inc()
                raise DatabaseUnavailableError(cause) from error
            raise


def _retried(query: Callable[[Connection], T], engine: Engine) -> T:
    """Run a read in a transaction; once more when the pooled connection turns out dead, since a restarted server answers a new one."""
    try:
        with engine.connect() as connection, connection.begin():
            return query(connection)
    except sa.DBAPIError as error:
        if not error.connection_invalidated:
            raise
    with engine.connect() as connection, connection.begin():
        return query(connection)


def _log_ratio(tokens: ColumnElement[int], wanted: int) -> ColumnElement[float]:
    return func.abs(func.ln(type_coerce(func.greatest(tokens, 1), Double) / float(max(wanted, 1))))


def use_case_row(row: RowMapping) -> UseCaseRow:
    """The part of a taxonomy row that recommendations need."""
    return UseCaseRow(
        use_case=row["use_case"],
        workloads=tuple(row["workloads"]),
        default_rps=row["default_rps"],
        default_input_tokens=row["default_input_tokens"],
        default_output_tokens=row["default_output_tokens"],
        sla_ttft_p90_ms=row["sla_ttft_p90_ms"],
        sla_tpot_p90_ms=row["sla_tpot_p90_ms"],
        sla_source=row["sla_source"],
    )


def _page(connection: Connection, query: Select[Any], limit: int, offset: int) -> tuple[list[RowMapping], int]:
    total = connection.execute(select(func.count()).select_from(query.order_by(None).subquery())).scalar_one()
    return list(connection.execute(query.limit(limit).offset(offset)).mappings()), total


def _with_versions(connection: Connection, models: Sequence[RowMapping]) -> list[dict[str, Any]]:
    results = (
        select(BenchmarkConfig.model_version_id, BenchmarkResult.kind, func.count().label("results"))
        .join(BenchmarkResult, BenchmarkResult.config_id == BenchmarkConfig.config_id)
        .join(ModelVersion, ModelVersion.model_version_id == BenchmarkConfig.model_version_id)
        .where(ModelVersion.model_id.in_([m["model_id"] for m in models]))
        .group_by(BenchmarkConfig.model_version_id, BenchmarkResult.kind)
    )
    counts: dict[str, dict[str, int]] = {}
    for row in connection.execute(results):
        counts.setdefault(row.model_version_id, {})[row.kind] = row.results
    versions: dict[str, list[dict[str, Any]]] = {}
    query = (
        select(ModelVersion.__table__)
        .where(ModelVersion.model_id.in_([m["model_id"] for m in models]))
        .order_by(ModelVersion.model_id, ModelVersion.quantization, ModelVersion.created_at)
    )
    for version in connection.execute(query).mappings():
        found = {**version, "results": counts.get(version["model_version_id"], {})}
        versions.setdefault(version["model_id"], []).append(found)
    return [{**model, "versions": versions.get(model["model_id"], [])} for model in models]
