"""The door of the rankings stage: every dbt model as an asset, every dbt test as a check, one op that runs dbt."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dagster import (
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Definitions,
    Failure,
    MaterializeResult,
    TableColumn,
    TableSchema,
    multi_asset,
)

from assets.rankings.dbt import DbtError, NodeResult, prepare, stream
from assets.rankings.manifest import Check, Manifest, Model, read_manifest

GROUP = "rankings"
POOL = "cpu"  # that of the batches on this machine: a build beside a measurement would be measured with it

RunDbt = Callable[[str, Sequence[str]], Iterator[NodeResult]]
Event = MaterializeResult[None] | AssetCheckResult


def build_rankings_definitions(state_dir: Path, manifest_path: Path | None = None) -> Definitions:
    """The dbt models and tests as Dagster definitions.

    Without `manifest_path` the project is read first if it has changed since the last time (about 7 s; needs no database). Runs take the
    database from DYNO_PG_* or DYNO_DATABASE_URL. Raises DbtError or RankingsError when the project cannot be read.
    """
    manifest = read_manifest(manifest_path or prepare(state_dir))
    return Definitions(assets=[dbt_assets(manifest, lambda command, select: stream(os.environ, state_dir, command=command, select=select))])


def dbt_assets(manifest: Manifest, run_dbt: RunDbt) -> AssetsDefinition:
    """One op for the whole project; any subset of its models and tests can be run."""
    models = {AssetKey(model.key): model for model in manifest.models}
    checks = {AssetCheckKey(AssetKey(check.model_key), check.name): check for check in manifest.checks}

    @multi_asset(
        name="dbt",
        specs=[_asset_spec(model) for model in models.values()],
        check_specs=[_check_spec(check) for check in checks.values()],
        can_subset=True,
        pool=POOL,
    )
    def dbt(context: AssetExecutionContext) -> Iterator[Event]:
        chosen_models = [models[key].name for key in context.selected_asset_keys]
        chosen_checks = [checks[key].name for key in context.selected_asset_check_keys]
        everything = len(chosen_models) == len(models) and len(chosen_checks) == len(checks)
        # only a build may say that the marts have changed
        command = "build" if chosen_models else "test"
        log = context.log.info
        try:
            yield from _events(run_dbt(command, [] if everything else sorted(chosen_models + chosen_checks)), manifest, log)
        except DbtError as error:
            raise Failure(description=str(error)) from error

    return dbt


def _asset_spec(model: Model) -> AssetSpec:
    columns = [TableColumn(name=c.name, type=c.data_type or "", description=c.description) for c in model.columns]
    return AssetSpec(
        key=AssetKey(model.key),
        deps=[AssetKey(key) for key in model.upstream],
        description=f"{model.description}\n\n#### SQL\n```sql\n{model.code}\n```",
        metadata={"dagster/column_schema": TableSchema(columns=columns), "dagster/table_name": ".".join(model.key)},
        group_name=GROUP,
        code_version=model.checksum,
        kinds={"dbt", "postgres", model.materialized},
        tags={"layer": model.key[0]},
    )


def _check_spec(check: Check) -> AssetCheckSpec:
    return AssetCheckSpec(name=check.name, asset=AssetKey(check.model_key), description=check.description or None)


def _events(results: Iterator[NodeResult], manifest: Manifest, log: Callable[[str], None]) -> Iterator[Event]:
    """Dagster's events for dbt's results. A unit test runs before its model is built; its result is kept until then."""
    models: Mapping[str, Model] = {model.unique_id: model for model in manifest.models}
    checks: Mapping[str, Check] = {check.unique_id: check for check in manifest.checks}
    built: set[tuple[str, ...]] = set()
    waiting: dict[tuple[str, ...], list[AssetCheckResult]] = defaultdict(list)
    error: DbtError | None = None
    try:
        for result in results:
            log(f"{result.status} {result.unique_id} in {result.execution_time_s:.2f} s {result.message}".rstrip())
            if result.unique_id in models and result.ok:
                model = models[result.unique_id]
                built.add(model.key)
                yield _materialization(model, result)
                yield from waiting.pop(model.key, [])
            elif result.unique_id in checks and result.status != "skipped":
                check = checks[result.unique_id]
                if check.model_key in built or result.resource_type == "test":
                    yield _check_result(check, result)
                else:
                    waiting[check.model_key].append(_check_result(check, result))
    except DbtError as failed:
        error = failed
    # unit tests whose model was not built: they failed, or only tests were asked for
    for late in waiting.values():
        yield from late
    if error is not None:
        raise error


def _materialization(model: Model, result: NodeResult) -> MaterializeResult[None]:
    metadata: dict[str, float | int] = {"execution_time_s": result.execution_time_s}
    if result.rows is not None:
        metadata["dagster/row_count"] = result.rows
    return MaterializeResult(asset_key=AssetKey(model.key), metadata=metadata)


def _check_result(check: Check, result: NodeResult) -> AssetCheckResult:
    severity = AssetCheckSeverity.WARN if result.status == "warn" or not check.blocking else AssetCheckSeverity.ERROR
    return AssetCheckResult(
        asset_key=AssetKey(check.model_key),
        check_name=check.name,
        passed=result.status == "pass",
        severity=severity,
        metadata={"status": result.status, "failures": result.failures, "execution_time_s": result.execution_time_s},
        description=result.message or None,
    )
