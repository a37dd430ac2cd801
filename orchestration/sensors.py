"""What happens by itself: new models of the hub are registered, registered ones measured, new results ranked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING

from dagster import (
    AddDynamicPartitionsRequest,
    DagsterRunStatus,
    DefaultSensorStatus,
    ResourceParam,
    RunRequest,
    RunsFilter,
    RunStatusSensorContext,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    run_status_sensor,
    sensor,
)

from assets.benchmark.assets import partitions_of
from assets.catalog.repository import Catalog
from assets.matrix.batches import batches_of
from assets.matrix.errors import MatrixError
from assets.matrix.generate import matrices_of
from assets.matrix.spec import Batch, ModelVersion
from assets.models.assets import MODEL_KEY, models_partitions
from assets.models.config import ModelsConfig
from assets.models.errors import HubUnreachableError, ModelsError
from assets.models.registration import HubPlan, plan_hub_model
from orchestration.jobs import measure_jobs, rankings, register_model
from orchestration.settings import Settings, SettingsError

if TYPE_CHECKING:
    from assets.models.hub import Hub

FOUND_BY = "dyno/found_by"
PARTITION_TAG = "dagster/partition"
HUB_SENSOR = "hub_models"
HUB_INTERVAL_S = 60
RESULTS_INTERVAL_S = 30
# A tick has a minute; one model takes two or three requests.
MODELS_PER_TICK = 20
RANKING_ATTEMPTS = 3
FAILED = {DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}
UNDER_WAY = [DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]


def build_sensors(settings: Settings) -> Sequence[SensorDefinition]:
    """All sensors. They are on from the start: without followed authors or tags the hub is not asked."""
    return (_hub_models(settings), _measure_found_models(settings), new_results)


def _hub_models(settings: Settings) -> SensorDefinition:
    @sensor(
        name=HUB_SENSOR,
        job=register_model,
        minimum_interval_seconds=HUB_INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING,
        description="New and changed models of the followed authors and tags, with an allowed licence: their partitions, and a run.",
    )
    def hub_models(context: SensorEvaluationContext, models_config: ResourceParam[ModelsConfig]) -> SensorResult | SkipReason:
        if not settings.followed_authors and not settings.followed_tags:
            return SkipReason("nothing is followed: set DYNO_FOLLOWED_AUTHORS or DYNO_FOLLOWED_TAGS")
        from assets.models.hub import Hub  # noqa: PLC0415  # half a second that every load of the code location would pay
        from assets.models.hub_cursor import HubCursor  # noqa: PLC0415

        hub = Hub(models_config.hub_endpoint, models_config.hub_token)
        cursor = HubCursor.from_text(context.cursor)
        found: list[HubPlan] = []
        seen: list[tuple[str, datetime | None]] = []
        refused: list[str] = []
        try:
            changed = hub.changed_models(settings.followed_authors, settings.followed_tags, cursor)
            for model in changed[:MODELS_PER_TICK]:
                try:
                    found.append(_validated(hub, model.hub_id, models_config))
                except HubUnreachableError:
                    raise
                except (ModelsError, MatrixError) as error:
                    refused.append(f"{model.hub_id}: {error}")
                    context.log.info("not registered: %s", refused[-1])
                seen.append((model.hub_id, model.last_modified))
        except HubUnreachableError as error:
            # what was seen before it went away counts; the rest comes with the next tick
            if not seen:
                return SkipReason(str(error))
        after = HubCursor.after(cursor, seen)
        return SensorResult(
            run_requests=[_register(plan) for plan in found],
            dynamic_partitions_requests=_partitions(found),
            cursor=after.to_text() if after else context.cursor,
            skip_reason=None if found else SkipReason("; ".join(refused) or "nothing new"),
        )

    return hub_models


def _validated(hub: Hub, hub_id: str, config: ModelsConfig) -> HubPlan:
    """Raises ModelsError or MatrixError where the model cannot be registered."""
    from assets.models.hub import check_licence  # noqa: PLC0415  # see above

    plan = plan_hub_model(hub, hub_id, config)
    check_licence(plan.described.model, config.allowed_licences)
    batches_of_plan(plan)
    return plan


def batches_of_plan(plan: HubPlan) -> tuple[Batch, ...]:
    """The feasible batches that the model will have once it is registered. Raises MatrixModelError where no engine here reads it."""
    facts = plan.described.facts
    revisions = {} if plan.weights is None else plan.weights.revisions
    return batches_of(matrices_of(facts, [ModelVersion(facts.model_id, q, revision) for q, revision in revisions.items()]))


def _partitions(plans: Iterable[HubPlan]) -> list[AddDynamicPartitionsRequest]:
    models: list[str] = []
    batches: dict[str, list[str]] = {}
    for plan in plans:
        models.append(plan.described.facts.model_id)
        for batch in batches_of_plan(plan):
            batches.setdefault(batch.deployment.hardware_id, []).append(batch.partition_key)
    requests = [models_partitions.build_add_request(models)] if models else []
    return requests + [partitions_of(hardware_id).build_add_request(keys) for hardware_id, keys in batches.items()]


def _register(plan: HubPlan) -> RunRequest:
    facts = plan.described.facts
    return RunRequest(
        run_key=f"{facts.model_id}@{facts.revision}",
        partition_key=facts.model_id,
        run_config={"ops": {MODEL_KEY.to_python_identifier(): {"config": {"hub_id": plan.described.model.hub_id}}}},
        tags={FOUND_BY: HUB_SENSOR},
    )


def _measure_found_models(settings: Settings) -> SensorDefinition:
    unknown = sorted(set(settings.auto_benchmark_hardware) - set(measure_jobs))
    if unknown:
        raise SettingsError(f"DYNO_AUTO_BENCHMARK_HARDWARE: {', '.join(unknown)} unknown; hardware ids are {', '.join(measure_jobs)}")
    jobs = [measure_jobs[hardware_id] for hardware_id in settings.auto_benchmark_hardware]

    @run_status_sensor(
        name="measure_found_models",
        run_status=DagsterRunStatus.SUCCESS,
        monitored_jobs=[register_model],
        request_jobs=jobs,
        default_status=DefaultSensorStatus.RUNNING,
        description="When a model found on the hub is registered: its batches on DYNO_AUTO_BENCHMARK_HARDWARE.",
    )
    def measure_found_models(context: RunStatusSensorContext, catalog: ResourceParam[Catalog]) -> SkipReason | list[RunRequest]:
        tags = context.dagster_run.tags
        if tags.get(FOUND_BY) != HUB_SENSOR or PARTITION_TAG not in tags:
            return SkipReason("not a model that the hub sensor found")
        model_id = tags[PARTITION_TAG]
        batches = batches_of(matrices_of(catalog.model(model_id), catalog.model_versions(model_id)))
        return [_measure(batch, settings) for batch in batches if _wanted(batch, settings)]

    return measure_found_models


def _wanted(batch: Batch, settings: Settings) -> bool:
    hardware_id = batch.deployment.hardware_id
    if hardware_id not in settings.auto_benchmark_hardware:
        return False
    workloads = {configuration.load_point.workload.name for configuration in batch.configurations}
    return hardware_id != "cpu" or workloads <= set(settings.auto_benchmark_workloads)


def _measure(batch: Batch, settings: Settings) -> RunRequest:
    job = measure_jobs[batch.deployment.hardware_id]
    op = job.name.replace("measure_", "benchmark_", 1)
    return RunRequest(
        run_key=f"{batch.partition_key}/{settings.protocol}",
        job_name=job.name,
        partition_key=batch.partition_key,
        run_config={"ops": {op: {"config": {"protocol": settings.protocol}}}},
        tags={FOUND_BY: HUB_SENSOR},
    )


@sensor(
    job=rankings,
    minimum_interval_seconds=RESULTS_INTERVAL_S,
    default_status=DefaultSensorStatus.RUNNING,
    description="New results, whoever measured them: check them and build the marts.",
)
def new_results(context: SensorEvaluationContext, catalog: ResourceParam[Catalog]) -> SensorResult | SkipReason:
    """The cursor is the number of results for which a ranking was asked last. A run that failed is asked for again, a few times."""
    results = sum(count.results for count in catalog.result_counts())
    if context.instance.get_run_ids(RunsFilter(job_name=rankings.name, statuses=UNDER_WAY), limit=1):
        return SkipReason("a run that will rank them is under way")
    latest = context.instance.get_runs(RunsFilter(job_name=rankings.name), limit=RANKING_ATTEMPTS)
    failed = list(takewhile(lambda run: run.status in FAILED, latest))
    if str(results) == (context.cursor or "0"):
        if not failed:
            return SkipReason("no new results")
        if len(failed) == RANKING_ATTEMPTS:
            return SkipReason(f"the last {RANKING_ATTEMPTS} rankings failed: see their runs; new results will be tried again")
    attempt = f"-after-{failed[0].run_id}" if failed else ""
    return SensorResult(run_requests=[RunRequest(run_key=f"results-{results}{attempt}")], cursor=str(results))
