"""The door of the models stage: the asset `model`, one partition a model.

No `from __future__ import annotations` here: Dagster reads the annotations.
"""

import dagster as dg
from dagster import ResourceParam
from pydantic import Field

from assets.models.config import ModelsConfig
from assets.models.errors import HubUnreachableError, ModelsError
from assets.models.registration import Registration, prepare_model
from assets.models.store import ModelStore

MODEL_KEY = dg.AssetKey("model")
MODELS_PARTITIONS = "models"
LICENCE_ALLOWED = "licence_allowed"
PARAMS_AGREE = "params_agree"
# Files may hold a few tensors that are no parameters of the architecture (old rotary tables, tied copies).
PARAMS_TOLERANCE = 0.02

models_partitions = dg.DynamicPartitionsDefinition(name=MODELS_PARTITIONS)


class ModelRunConfig(dg.Config):
    """Where the model comes from."""

    hub_id: str = Field("", description="Hugging Face id (organisation/name), for a model that is not registered yet.")


@dg.asset(
    key=MODEL_KEY,
    group_name="models",
    partitions_def=models_partitions,
    kinds={"python", "huggingface"},
    retry_policy=dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL),
    check_specs=[
        dg.AssetCheckSpec(LICENCE_ALLOWED, asset=MODEL_KEY, description="The licence is among DYNO_ALLOWED_LICENCES."),
        dg.AssetCheckSpec(
            PARAMS_AGREE,
            asset=MODEL_KEY,
            description=f"The parameters computed from the shape are those that the hub counts, within {PARAMS_TOLERANCE:.0%}.",
        ),
    ],
)
def model(
    context: dg.AssetExecutionContext,
    config: ModelRunConfig,
    catalog: ResourceParam[ModelStore],
    models_config: ResourceParam[ModelsConfig],
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster refuses a parameter here
    """A model: its architecture facts, and its weights for the local engine (built here, or fetched from the Hugging Face hub)."""
    model_id = context.partition_key
    try:
        registration = prepare_model(model_id, config.hub_id or catalog.hub_id_of(model_id), models_config)
    except ModelsError as error:
        raise dg.Failure(str(error), allow_retries=isinstance(error, HubUnreachableError)) from error
    changed = catalog.register_model(registration.facts)
    for weights in registration.weights:
        catalog.register_weights(weights)
    context.log.info("%s: %s, %d versions with weights", model_id, "new facts" if changed else "known facts", len(registration.weights))
    return dg.MaterializeResult(
        metadata=_metadata(registration, changed),
        check_results=[_licence_check(registration, models_config), _params_check(registration)],
    )


def _metadata(registration: Registration, changed: bool) -> dict[str, dg.MetadataValue | int | str | bool]:
    facts = registration.facts
    metadata: dict[str, dg.MetadataValue | int | str | bool] = {
        "origin": registration.origin,
        "architecture": facts.architecture,
        "params": facts.params,
        "licence": facts.licence or "unknown",
        "formats": ", ".join(facts.formats),
        "source": facts.source,
        "facts_changed": changed,
    }
    if registration.weights:
        columns = [dg.TableColumn("quantization"), dg.TableColumn("size_bytes", "int"), dg.TableColumn("revision")]
        rows = [
            dg.TableRecord({"quantization": weights.quantization, "size_bytes": weights.size_bytes, "revision": weights.revision})
            for weights in registration.weights
        ]
        metadata["weights"] = dg.MetadataValue.table(rows, dg.TableSchema(columns))
    if registration.no_weights:
        metadata["no_local_weights"] = registration.no_weights
    return metadata


def _licence_check(registration: Registration, config: ModelsConfig) -> dg.AssetCheckResult:
    licence = registration.facts.licence
    allowed = registration.origin == "local" or (licence is not None and licence in config.allowed_licences)
    return dg.AssetCheckResult(
        check_name=LICENCE_ALLOWED,
        passed=allowed,
        severity=dg.AssetCheckSeverity.WARN,
        description=None
        if allowed
        else f"{licence or 'no known licence'}: add it to DYNO_ALLOWED_LICENCES if you have read and accepted it",
        metadata={"licence": licence or "unknown"},
    )


def _params_check(registration: Registration) -> dg.AssetCheckResult:
    computed, counted = registration.facts.params, registration.hub_params
    agree = counted is None or abs(computed - counted) <= PARAMS_TOLERANCE * counted
    return dg.AssetCheckResult(
        check_name=PARAMS_AGREE,
        passed=agree,
        severity=dg.AssetCheckSeverity.WARN,
        description=None if counted is not None else "the hub gives no count for this model",
        metadata={"computed": computed, "hub": -1 if counted is None else counted},
    )
