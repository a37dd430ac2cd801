"""The settings of a cluster: environment variables that start with `DYNO_K8S_`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from assets.benchmark.executors.cluster import GPU_PRODUCTS, ClusterConfig, Provider, Taint
from orchestration.settings import settings_error

Pairs = Annotated[dict[str, str], NoDecode]


class KubernetesSettings(BaseSettings):
    """How batches run on a cluster. Secrets are named here, never held."""

    model_config = SettingsConfigDict(env_prefix="DYNO_K8S_", extra="ignore", frozen=True, env_ignore_empty=True)

    namespace: str = Field("gpu-workloads", description="Namespace of the pods that measure.")
    provider: Provider = Field(
        "karpenter", description="How nodes tell spot from on-demand capacity: `karpenter`, `eks`, `gke`, `aks`, or `none` (all are alike)."
    )
    worker_image: str = Field("dyno-worker:0.1.0", description="Image of the worker, built from k8s/images/worker.Dockerfile.")
    checkpoints: str = Field(
        "s3://dyno/checkpoints",
        description="Object store that both the pods and Dagster's runs reach: s3://bucket/prefix or gs://bucket/prefix.",
    )
    service_account: str = Field("dyno-benchmark", description="Service account of the pods. It needs no rights and gets no token.")
    priority_class: str = Field("dyno-benchmark", description="Priority class of the pods: below everything that serves people.")
    model_cache_claim: str = Field("dyno-models", description="Volume claim that weights are kept on (ReadWriteMany).")
    storage_secret: str = Field("dyno-storage", description="Secret with the object store's credentials as environment variables.")
    hub_secret: str = Field("dyno-hub", description="Secret with the Hugging Face token under DYNO_HUB_TOKEN; may be missing.")
    image_pull_secret: str | None = Field(None, description="Secret for a private registry.")
    gpu_products: Pairs = Field(
        {},
        description="Further values of the label nvidia.com/gpu.product for a GPU type, e.g. `H100=NVIDIA-H100-PCIe+NVIDIA-H100-NVL`.",
    )
    weights: Pairs = Field(
        {},
        description="Hub repositories of quantized weights, e.g. `llama-3.1-8b/int4=ORG/NAME`. fp16 and fp8 load the model's own.",
    )
    node_labels: Pairs = Field({}, description="Labels that a node must have besides, e.g. `pool=benchmarks`.")
    deadline_s: int = Field(6 * 3600, gt=0, description="Longest that a pod may live, in seconds.")
    engine_start_timeout_s: int = Field(1800, gt=0, description="Longest that an engine may take to be healthy, in seconds.")

    @field_validator("gpu_products", "node_labels", "weights", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [word.partition("=") for word in value.split(",") if word.strip()]
        if not all(name.strip() and separator and text.strip() for name, separator, text in pairs):
            raise ValueError("expected name=value, separated by commas")
        return {name.strip(): text.strip() for name, _, text in pairs}

    @field_validator("checkpoints")
    @classmethod
    def _object_store(cls, value: str) -> str:
        if not value.startswith(("s3://", "gs://")):
            raise ValueError("expected s3://bucket/prefix or gs://bucket/prefix: a pod cannot write into a folder of another machine")
        return value.rstrip("/")

    @field_validator("gpu_products")
    @classmethod
    def _known_types(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value) - set(GPU_PRODUCTS))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no GPU type: one of {', '.join(GPU_PRODUCTS)}")
        return value

    def cluster(self) -> ClusterConfig:
        """What the executor needs of the settings."""
        products = {
            gpu_type: (*known, *(name for name in self.gpu_products.get(gpu_type, "").split("+") if name))
            for gpu_type, known in GPU_PRODUCTS.items()
        }
        fields = self.model_dump(exclude={"gpu_products"})
        return ClusterConfig(**fields, gpu_taints=(Taint("nvidia.com/gpu"),), gpu_products=products)


def load_kubernetes_settings() -> KubernetesSettings:
    """The settings that the environment gives.

    Raises:
        SettingsError: a variable has a value that cannot be used.
    """
    try:
        return KubernetesSettings()
    except ValidationError as error:
        raise settings_error(error, "DYNO_K8S_") from None
