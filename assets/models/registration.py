"""One model, from its id to facts and weights: built here, shipped with Dyno, or from the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from assets.models.artifacts import GGUF_NAME
from assets.models.config import ModelsConfig
from assets.models.errors import InvalidModelError
from assets.models.facts import ModelFacts
from assets.models.gguf_writer import GGUF_QUANTIZATIONS
from assets.models.local.build import LOCAL_MODELS, ensure_local_model, local_facts, local_revision
from assets.models.manifest import Manifest
from assets.models.progress import Progress, no_progress
from assets.models.registry import find_model_id, model_facts
from assets.models.store import Weights

if TYPE_CHECKING:
    from assets.models.hub import Hub
    from assets.models.hub_facts import Described
    from assets.models.hub_weights import WeightsPlan

Origin = Literal["local", "shipped", "hub"]


@dataclass(frozen=True)
class Registration:
    """A model's facts and the weights that are in place for the local engine; `no_weights` says why there are none.

    `hub_params` is the hub's own count of the stored parameters, where it gives one.
    """

    origin: Origin
    facts: ModelFacts
    weights: tuple[Weights, ...]
    no_weights: str | None = None
    hub_params: int | None = None


@dataclass(frozen=True)
class HubPlan:
    """A model of the hub and the weights that would be fetched; `no_weights` says why none would."""

    described: Described
    weights: WeightsPlan | None
    no_weights: str | None


def prepare_model(model_id: str, hub_id: str | None, config: ModelsConfig, progress: Progress = no_progress) -> Registration:
    """Find a model's facts and put its weights in place. Doing it again costs a check of the files.

    Args:
        model_id: Dyno's id.
        hub_id: the hub id, where it is known. Of a model of the hub that is not, it is guessed from the model id.
        config: settings.
        progress: told about long work.

    Raises:
        ModelsError: one of its kinds, with what to do.
    """
    if model_id in LOCAL_MODELS:
        built = [(q, ensure_local_model(model_id, q, config.state_dir, progress)) for q in GGUF_QUANTIZATIONS]
        revision = local_revision(model_id)
        return Registration("local", local_facts(model_id), tuple(_weights(model_id, q, revision, manifest) for q, manifest in built))
    if find_model_id(model_id) == model_id:
        return Registration("shipped", model_facts(model_id), (), "only its facts ship with Dyno; GPU engines fetch the weights themselves")
    return _from_hub(hub_id or model_id.replace("--", "/", 1), model_id, config, progress)


def plan_hub_model(hub: Hub, hub_id: str, config: ModelsConfig) -> HubPlan:
    """What the hub's metadata say about a model, and which weights would be fetched; downloads the small files only.

    Raises:
        ModelNotFoundError, GatedModelError, HubUnreachableError, InvalidModelError: with what to do.
    """
    from assets.models.hub_facts import describe  # noqa: PLC0415  # see _from_hub
    from assets.models.hub_weights import plan_weights  # noqa: PLC0415

    described = describe(hub, hub_id)
    try:
        return HubPlan(described, plan_weights(described, config.local_download_limit_bytes), None)
    except InvalidModelError as error:
        return HubPlan(described, None, str(error))


def _from_hub(hub_id: str, model_id: str, config: ModelsConfig, progress: Progress) -> Registration:
    # imported here: huggingface_hub takes half a second that a model made here must not pay
    from assets.models.hub import Hub  # noqa: PLC0415
    from assets.models.hub_weights import ensure_hub_weights  # noqa: PLC0415

    hub = Hub(config.hub_endpoint, config.hub_token)
    planned = plan_hub_model(hub, hub_id, config)
    described, plan = planned.described, planned.weights
    params = described.model.safetensors_params
    if described.facts.model_id != model_id:
        raise InvalidModelError(f"the model id of {described.model.hub_id} is {described.facts.model_id}, not {model_id}")
    if plan is None:
        return Registration("hub", described.facts, (), planned.no_weights, params)
    manifests = ensure_hub_weights(hub, described, plan, config.state_dir, progress)
    weights = tuple(_weights(model_id, q, plan.revisions[q], manifest) for q, manifest in manifests.items())
    return Registration("hub", described.facts, weights, None, params)


def _weights(model_id: str, quantization: str, revision: str, manifest: Manifest) -> Weights:
    files: dict[str, dict[str, str | int]] = {
        name: {"size_bytes": record.size_bytes, "sha256": record.sha256} for name, record in manifest.files.items()
    }
    return Weights(model_id, quantization, revision, manifest.files[GGUF_NAME].size_bytes, files)
