"""The dbt project on a real PostgreSQL, run as the Dagster assets run it: what it builds, that SQL and Python agree, how it fails."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from dagster import AssetKey, AssetsDefinition, AssetSelection, ExecuteInProcessResult, materialize
from sqlalchemy import Connection, Engine, Table, create_engine, insert, text

from assets.catalog.migrate import upgrade
from assets.catalog.tables import (
    SCHEMA,
    Base,
    BenchmarkConfig,
    BenchmarkResult,
    HardwareConfig,
    HardwarePrice,
    Model,
    ModelVersion,
    Provenance,
    QualityResult,
    UseCase,
)
from assets.rankings import dbt
from assets.rankings.assets import build_rankings_definitions
from assets.rankings.criteria import CRITERIA, DEFAULT_WEIGHTS
from assets.rankings.operating_points import operating_point
from assets.rankings.pareto import pareto_front
from assets.rankings.recommend import recommend
from assets.rankings.request import Load, RecommendRequest
from assets.rankings.rows import LOAD_POINT_COLUMNS, LoadPointRow, UseCaseRow
from assets.rankings.topsis import topsis
from orchestration.local.postgres import PostgresEndpoint
from tests.conftest import create_database

pytestmark = pytest.mark.services

# the migrations make the partitions of the current month
NOW = datetime.now(UTC).replace(day=1, hour=12, minute=0, second=0, microsecond=0)
CHATBOT = UseCaseRow(
    "chatbot",
    ("chat", "chat_short"),
    default_rps=3.0,
    default_input_tokens=512,
    default_output_tokens=256,
    sla_ttft_p90_ms=400.0,
    sla_tpot_p90_ms=40.0,
)
WORKLOADS = {"chat": (512, 256), "chat_short": (96, 32), "rag": (4096, 256)}


@dataclass(frozen=True)
class Built:
    """A catalog with its marts, and the Dagster run that built them."""

    engine: Engine
    environ: dict[str, str]
    state_dir: Path
    assets: AssetsDefinition
    run: ExecuteInProcessResult
    version: int

    def rows(self, query: str) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query)).mappings()]


@pytest.fixture(scope="module")
def built(postgres_server: PostgresEndpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Fill a catalog with made-up results, then materialize every dbt model and check once."""
    url = create_database(postgres_server, "dbt_marts")
    state_dir = tmp_path_factory.mktemp("state")
    upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        _fill(connection)
    with pytest.MonkeyPatch.context() as patch:
        for name in dbt.CONNECTION_VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("DYNO_DATABASE_URL", url)
        (assets,) = build_rankings_definitions(state_dir).assets or ()
        assert isinstance(assets, AssetsDefinition)
        run = materialize([assets], raise_on_error=False)
        with engine.connect() as connection:
            version: int = connection.execute(text("SELECT version FROM catalog.catalog_state")).scalar_one()
        yield Built(engine, {"DYNO_DATABASE_URL": url}, state_dir, assets, run, version)
    engine.dispose()


def _put(connection: Connection, model: type[Base], **values: Any) -> None:
    table = model.__table__
    assert isinstance(table, Table)
    connection.execute(insert(table).values(**values))


def _fill(connection: Connection) -> None:
    draw = random.Random(7)
    _put(connection, Provenance, provenance_id="p", tool="dyno", tool_version="0.1.0", source_uri="file:x", host={}, recorded_at=NOW)
    for use_case, workloads in (("chatbot", ["chat", "chat_short"]), ("rag", ["rag"]), ("agents", ["agentic"])):
        _put(
            connection, UseCase, use_case=use_case, title=use_case, description="", workloads=workloads, default_rps=3.0, sla_source="",
            default_input_tokens=512, default_output_tokens=256, sla_ttft_p90_ms=400.0, sla_tpot_p90_ms=40.0,
        )  # fmt: skip
    for hardware_id, gpu_count, price in (("l4-x1", 1, 0.8), ("h100-80gb-x4", 4, 30.0), ("cpu", 0, None)):
        _put(
            connection, HardwareConfig, hardware_id=hardware_id, gpu_type=hardware_id.split("-")[0].upper(), gpu_count=gpu_count,
            memory_bytes_per_device=24 * 2**30, memory_bandwidth_bytes_per_s=3e11, source="",
        )  # fmt: skip
        if price is not None:
            _put(
                connection, HardwarePrice, hardware_id=hardware_id, provider="aws", region="us-east-1", instance="i", as_of=NOW,
                on_demand_usd_per_hour=price, spot_usd_per_hour=price / 3, note="", source="list",
            )  # fmt: skip
    for model_id in ("alpha", "beta"):
        _put(
            connection, Model, model_id=model_id, name=model_id.title(), licence="mit", architecture="LlamaForCausalLM", params=8 * 10**9,
            active_params=8 * 10**9, max_context_tokens=8192, facts={}, source="", registered_at=NOW, updated_at=NOW,
        )  # fmt: skip
        for quantization in ("fp16", "int4"):
            version = f"{model_id}-{quantization}"
            _put(
                connection, ModelVersion, model_version_id=version, model_id=model_id, quantization=quantization, revision="", files={},
                created_at=NOW,
            )  # fmt: skip
            _put(
                connection, QualityResult, model_version_id=version, task="t", measured_at=NOW, kind="measured", samples=100,
                accuracy=draw.uniform(0.4, 0.8), accuracy_stderr=0.02, provenance_id="p",
            )  # fmt: skip
            for hardware_id in ("l4-x1", "h100-80gb-x4"):
                for workload in WORKLOADS:
                    for concurrency in (1, 4, 16):
                        _measure(connection, draw, version, hardware_id, workload=workload, concurrency=concurrency)


def _measure(connection: Connection, draw: random.Random, version: str, hardware_id: str, *, workload: str, concurrency: int) -> None:
    deployment_id = f"{version}-{hardware_id}"
    config_id = f"{deployment_id}-{workload}-{concurrency}"
    input_tokens, output_tokens = WORKLOADS[workload]
    _put(
        connection, BenchmarkConfig, config_id=config_id, deployment_id=deployment_id, model_version_id=version, hardware_id=hardware_id,
        framework="vllm", framework_version="0.11.0", flags={}, tensor_parallel=1, workload=workload, input_tokens=input_tokens,
        output_tokens=output_tokens, load_mode="closed", concurrency=concurrency, feasible=True, created_at=NOW,
        vram_required_bytes=draw.randrange(10**9, 10**11), vram_available_bytes=10**12, vram_quick_estimate_bytes=10**9, vram_parts={},
    )  # fmt: skip
    spoilt: tuple[dict[str, Any], ...] = (
        {"protocol": "demo"},
        {"kind": "simulated"},
        {"quality_flags": ["usage_missing"]},
        {"requests_completed": 90, "requests_failed": 10},
    )
    # the first may stand for the configuration; the others are newer, but none of them may
    for days, changes in enumerate(({}, *spoilt)):
        _result(connection, draw, config_id, output_tokens=output_tokens, concurrency=concurrency, newer=days, **changes)


def _result(
    connection: Connection, draw: random.Random, config_id: str, *, output_tokens: int, concurrency: int, newer: int = 0, **changes: Any
) -> None:
    rate = draw.uniform(0.5, 4) * concurrency**0.5
    values = {
        "kind": "measured",
        "protocol": "standard",
        "requests_completed": 100,
        "requests_failed": 0,
        "quality_flags": ["few_requests"],
        "ttft_p90_ms": draw.uniform(20, 120) * concurrency,
        "tpot_p90_ms": draw.uniform(2, 8) * concurrency**0.5,
        "e2e_p90_ms": draw.uniform(500, 5000),
    } | changes
    _put(
        connection, BenchmarkResult, measurement_id=UUID(int=draw.getrandbits(128)), measured_at=NOW + timedelta(days=newer),
        config_id=config_id, repeat=0, provenance_id="p", duration_s=60.0, requests_sent=100, failures={}, requests_per_s=rate,
        output_tokens_per_s=rate * output_tokens, total_tokens_per_s=rate * output_tokens, concurrency_mean=float(concurrency),
        intervals={"e2e_p90_ms": [1.0, 2.0]}, engine={}, **values,
    )  # fmt: skip


def test_every_model_is_materialized_and_every_test_of_dbt_passes_as_a_check(built: Built) -> None:
    assert built.run.success
    materialized = {event.asset_key for event in built.run.get_asset_materialization_events()}
    assert materialized == set(built.assets.keys)
    evaluations = built.run.get_asset_check_evaluations()
    assert {e.asset_check_key for e in evaluations} == set(built.assets.check_keys)
    assert len(evaluations) > 100
    assert all(e.passed for e in evaluations)


def test_the_ui_gets_descriptions_column_types_row_counts_and_upstream_assets(built: Built) -> None:
    key = AssetKey(["marts", "load_points"])
    spec = built.assets.specs_by_key[key]
    assert "latest rankable measurement" in (spec.description or "")
    columns = spec.metadata["dagster/column_schema"].columns
    assert {c.name for c in columns} == set(LOAD_POINT_COLUMNS)
    assert all(c.description and c.type for c in columns)
    (event,) = [e for e in built.run.get_asset_materialization_events() if e.asset_key == key]
    assert event.materialization.metadata["dagster/row_count"].value == len(built.rows("SELECT 1 FROM marts.load_points"))
    upstream = {dep.asset_key.to_user_string() for s in built.assets.specs for dep in s.deps if dep.asset_key not in built.assets.keys}
    assert upstream == {"model", "test_matrix", "benchmark_results", "reference_data"}


def test_every_column_of_every_model_and_source_is_described(built: Built) -> None:
    there = built.rows(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns "
        "WHERE table_schema IN ('staging', 'intermediate', 'marts')"
    )
    manifest = json.loads(dbt.prepare(built.state_dir).read_text())
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    described = {(n["schema"], n["name"], c["name"]) for n in models for c in n["columns"].values() if c["description"]}
    assert {tuple(row.values()) for row in there} == described
    for source in manifest["sources"].values():
        columns = {c["name"] for c in source["columns"].values() if c["description"]}
        assert columns == set(Base.metadata.tables[f"{SCHEMA}.{source['name']}"].columns.keys())


def test_each_mart_moves_the_catalog_version_on_as_it_changes(built: Built) -> None:
    """A build that is killed half-way has moved it too; the migrations leave version 1."""
    marts = built.rows("SELECT count(*) AS marts FROM pg_tables WHERE schemaname = 'marts'")[0]["marts"]
    assert built.version == 1 + marts


def test_one_load_point_per_configuration_is_the_newest_that_may_rank(built: Built) -> None:
    rows = built.rows("SELECT config_id, kind, protocol, quality_flags, failure_rate, measured_at FROM marts.load_points")
    assert len(rows) == 2 * 2 * 2 * 3 * 3
    # a flag that does not disqualify stays beside the numbers
    assert {(r["kind"], r["protocol"], tuple(r["quality_flags"]), r["failure_rate"], r["measured_at"]) for r in rows} == {
        ("measured", "standard", ("few_requests",), 0.0, NOW)
    }


def _load_points(built: Built) -> list[LoadPointRow]:
    return [LoadPointRow.from_mapping(row) for row in built.rows("SELECT * FROM marts.load_points")]


def test_sql_and_python_choose_the_same_operating_points(built: Built) -> None:
    bounds = {"ttft_p90_ms": 400.0, "tpot_p90_ms": 40.0}
    groups: dict[tuple[str, str], list[LoadPointRow]] = {}
    for row in _load_points(built):
        groups.setdefault((row.deployment_id, row.workload), []).append(row)
    expected = {point.config_id for rows in groups.values() if (point := operating_point(rows, bounds)) is not None}
    found = {row["config_id"] for row in built.rows("SELECT config_id FROM marts.operating_points")}
    assert found == expected
    assert 0 < len(found) <= len(groups)


@pytest.mark.parametrize(("use_case", "workload"), [("chatbot", "chat"), ("chatbot", "chat_short"), ("rag", "rag")])
def test_sql_and_python_give_the_same_scores_ranks_and_front(built: Built, use_case: str, workload: str) -> None:
    """Within a workload and its lengths: what differs in them is not compared."""
    rows = built.rows(
        "SELECT config_id, accuracy, e2e_p90_ms, output_tokens_per_s, on_demand_usd_per_million_output_tokens, vram_required_bytes, "
        f"score, score_rank FROM marts.model_rankings WHERE use_case = '{use_case}' AND workload = '{workload}' ORDER BY config_id"
    )
    assert len(rows) > 4
    columns = ("accuracy", "e2e_p90_ms", "output_tokens_per_s", "on_demand_usd_per_million_output_tokens", "vram_required_bytes")
    values = [[row[column] for column in columns] for row in rows]
    result = topsis(values, list(DEFAULT_WEIGHTS.values()), [c.maximize for c in CRITERIA])
    assert [row["score"] for row in rows] == pytest.approx(result.scores.tolist(), abs=1e-9)
    assert [row["score_rank"] for row in rows] == result.ranks.tolist()
    front = pareto_front([[v[1], v[0], v[3]] for v in values], [False, True, False])
    condition = f"use_case = '{use_case}' AND workload = '{workload}'"
    in_sql = {row["config_id"] for row in built.rows(f"SELECT config_id FROM marts.pareto_front WHERE {condition}")}
    assert in_sql == {row["config_id"] for row, kept in zip(rows, front, strict=True) if kept}


def test_the_front_is_right_with_more_points_than_are_compared_pairwise(built: Built) -> None:
    """The statement as dbt compiled it, on 1,000 points with many ties in two comparisons: the same front as in Python."""
    draw = random.Random(11)
    points: list[dict[str, Any]] = [
        {
            "config_id": f"point {n}",
            "input_tokens": 512 + n % 2,
            "e2e_p90_ms": draw.randrange(1, 300),
            "accuracy": draw.randrange(60) / 60,
            "on_demand_usd_per_million_output_tokens": draw.randrange(1, 300),
        }
        for n in range(1000)
    ]
    statement = (built.state_dir / "dbt/target/compiled/dyno/models/marts/pareto_front.sql").read_text()
    with built.engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE template ON COMMIT DROP AS SELECT * FROM marts.model_rankings LIMIT 1"))
        connection.execute(text("DELETE FROM marts.model_rankings"))
        connection.execute(
            text(
                "INSERT INTO marts.model_rankings SELECT (jsonb_populate_record(template, changes)).* "
                "FROM template, jsonb_array_elements(CAST(:points AS jsonb)) AS changes"
            ),
            {"points": json.dumps(points)},
        )
        in_sql = {row.config_id for row in connection.exec_driver_sql(statement)}
        connection.rollback()
    expected = set()
    for length in (512, 513):
        alike = [p for p in points if p["input_tokens"] == length]
        values = [[p["e2e_p90_ms"], p["accuracy"], p["on_demand_usd_per_million_output_tokens"]] for p in alike]
        expected |= {p["config_id"] for p, kept in zip(alike, pareto_front(values, [False, True, False]), strict=True) if kept}
    assert in_sql == expected
    assert len(expected) > 20


@pytest.mark.parametrize(("load", "workload"), [(Load(), "chat"), (Load(input_tokens=100, output_tokens=30), "chat_short")])
def test_a_recommendation_from_the_marts_agrees_with_the_ranking_of_the_marts(built: Built, load: Load, workload: str) -> None:
    """Without wishes of its own, a request gets what `model_rankings` shows for the use case's typical lengths, or for those asked for."""
    response = recommend(RecommendRequest("chatbot", load, top=1000), CHATBOT, _load_points(built))
    ranking = built.rows(
        f"SELECT config_id, score_rank, score FROM marts.model_rankings WHERE use_case = 'chatbot' AND workload = '{workload}'"
    )
    asked = {r.operating_point.config_id: (r.rank, pytest.approx(r.score, abs=1e-9)) for r in response.recommendations}
    assert {row["config_id"]: (row["score_rank"], row["score"]) for row in ranking} == asked
    assert response.recommendations[0].cost.per_million_output_tokens_usd is not None


def test_models_and_days_are_summed_up(built: Built) -> None:
    suits = built.rows("SELECT * FROM marts.model_use_cases WHERE use_case = 'chatbot'")
    ranked = built.rows(
        "SELECT model_id, workload, max(score) AS best, min(score_rank) AS first, count(*) AS points FROM marts.model_rankings "
        "WHERE use_case = 'chatbot' GROUP BY model_id, workload"
    )
    assert len(suits) == 4, "two models under two workloads"
    assert sorted(
        (row["model_id"], row["workload"], row["suitability"], row["best_rank"], row["operating_points"]) for row in suits
    ) == sorted((row["model_id"], row["workload"], row["best"], row["first"], row["points"]) for row in ranked)
    assert {row["workload"] for row in suits if row["best_rank"] == 1} == {"chat", "chat_short"}, "each has its first"
    days = built.rows("SELECT measured_on, sum(measurements) AS n FROM marts.daily_model_stats GROUP BY 1 ORDER BY 1")
    # the standard ones on the first day, the demo ones on the second; what may not rank does not count
    assert [row["n"] for row in days] == [72, 72]


def test_only_what_is_selected_runs_and_a_failing_test_fails_the_run_with_the_reason(built: Built) -> None:
    """A negative price: its check fails, the run fails and says why, and the version of the marts moves on as they were touched."""
    with built.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.hardware_prices SET spot_usd_per_hour = -1 WHERE hardware_id = 'l4-x1'"))
    key = AssetKey(["staging", "stg_hardware_prices"])
    try:
        run = materialize([built.assets], selection=AssetSelection.assets(key), raise_on_error=False)
    finally:
        with built.engine.begin() as connection:
            connection.execute(text("UPDATE catalog.hardware_prices SET spot_usd_per_hour = 0.2 WHERE hardware_id = 'l4-x1'"))
    assert not run.success
    assert [event.asset_key for event in run.get_asset_materialization_events()] == [key]
    failed = [e for e in run.get_asset_check_evaluations() if not e.passed]
    assert [(e.check_name, e.metadata["failures"].value) for e in failed] == [("within_range_stg_hardware_prices_0__spot_usd_per_hour", 1)]
    (failure,) = run.get_step_failure_events()
    assert "Got 1 result, configured to fail if != 0" in str(failure.step_failure_data.user_failure_data)


def test_the_docs_site_is_one_page_that_needs_nothing_else(built: Built) -> None:
    page = dbt.docs(built.environ, built.state_dir) / "index.html"
    html = page.read_text()
    assert "latest rankable measurement" in html
    assert 'src="http' not in html


def test_the_manifest_is_made_once_for_the_same_project(built: Built) -> None:
    before = dbt.prepare(built.state_dir)
    stamp = before.stat().st_mtime_ns
    assert dbt.prepare(built.state_dir) == before
    assert before.stat().st_mtime_ns == stamp
    assert list((built.state_dir / "dbt").glob("parse-*")) == []


def test_a_database_out_of_reach_is_said_in_one_message_without_the_password(tmp_path: Path) -> None:
    environ = {"DYNO_DATABASE_URL": "postgresql+psycopg2://someone:s3cret@127.0.0.1:9/dyno"}
    with pytest.raises(dbt.DbtError) as caught:
        dbt.build(environ, tmp_path)
    assert "127.0.0.1" in str(caught.value)
    assert "dbt.log" in str(caught.value)
    assert "s3cret" not in str(caught.value) + (tmp_path / "dbt" / "logs" / "dbt.log").read_text()


def test_a_folder_without_a_project_and_a_missing_url_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(dbt.DbtError, match="no dbt project"):
        dbt.prepare(tmp_path, tmp_path)
    with pytest.raises(dbt.DbtError, match="DYNO_DATABASE_URL"):
        dbt.connection_environment({})
    with pytest.raises(dbt.DbtError, match="not a database URL"):
        dbt.connection_environment({"DYNO_DATABASE_URL": "nonsense"})
