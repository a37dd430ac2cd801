"""A second real engine, `transformers serve`, through the same partition path as llama.cpp; and how both tell that they cannot start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from assets.benchmark.checkpoint import CheckpointStore
from assets.benchmark.engines import process
from assets.benchmark.engines.environments import process_environment
from assets.benchmark.engines.llamacpp import LlamaCpp
from assets.benchmark.engines.process import EngineProcess, free_port
from assets.benchmark.engines.protocol import (
    BadFlagError,
    CorruptWeightsError,
    EngineDriver,
    EngineError,
    Launch,
    OutOfMemoryError,
    PortTakenError,
)
from assets.benchmark.engines.transformers_serve import TransformersServe
from assets.benchmark.executors.subprocess import SubprocessExecutor
from assets.benchmark.storage.local import LocalFolder
from assets.catalog.migrate import upgrade
from assets.catalog.repository import Catalog
from assets.matrix.batches import batches_of
from assets.matrix.dimensions import load_frameworks, preset
from assets.matrix.generate import Matrix, generate
from assets.matrix.spec import Batch, Workload
from assets.models.artifacts import LocalArtifact, resolve_local_artifact
from assets.models.local.build import local_facts
from assets.models.local.hugging_face import QUANTIZATION, WEIGHTS_NAME, ensure_local_safetensors
from tests.integration.benchmark.environments import environment_or_skip
from tests.integration.benchmark.support import MODEL_ID, assert_nothing_runs, folder_of, materialize, measured
from tests.integration.benchmark.test_failures import occupied_port

pytestmark = pytest.mark.engine
START_TIMEOUT_S = 180.0
WORKLOAD = Workload("tiny", 16, 24)
PEAK_OF_IMPORTS = """
import torch, transformers, transformers.cli.transformers, uvicorn, fastapi, openai
from transformers.cli.serving import chat_completion, completion, response, server, transcription
from transformers import AutoProcessor, AutoTokenizer, LlamaForCausalLM
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmPeak")][0])
"""
ROOM_BYTES = 64 << 20


@pytest.fixture(scope="session")
def environment() -> Path:
    """The environment with transformers and what its server needs."""
    return environment_or_skip("transformers")


@pytest.fixture(scope="session")
def built_safetensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `models` of a state folder with one small model in the Hugging Face layout."""
    folder = tmp_path_factory.mktemp("built-safetensors")
    ensure_local_safetensors(MODEL_ID, folder)
    return folder / "models"


@pytest.fixture
def safetensors(state_dir: Path, built_safetensors: Path) -> LocalArtifact:
    """The model in this test's state folder. Its files are links: replace them, never write into them."""
    shutil.copytree(built_safetensors, state_dir / "models", copy_function=os.link)
    return resolve_local_artifact(MODEL_ID, QUANTIZATION, state_dir)


@pytest.fixture(scope="session")
def matrix(environment: Path) -> Matrix:
    """Two load points of the model on the CPU, for the version that is installed."""
    version = TransformersServe().version(environment)
    assert version is not None
    framework = replace(load_frameworks()["transformers"], version=version)
    dimensions = replace(
        preset("local"), frameworks=(framework,), quantizations=(QUANTIZATION,), workloads=(WORKLOAD,), concurrencies=(1, 2)
    )
    return generate(local_facts(MODEL_ID), dimensions)


@pytest.fixture(scope="session")
def batch(matrix: Matrix) -> Batch:
    """All load points of the matrix: one engine launch."""
    [only] = batches_of([matrix])
    return only


@pytest.fixture
def catalog_url(empty_postgres_url: str, matrix: Matrix, batch: Batch) -> str:
    """URL of a database that holds the batch and no measurement."""
    upgrade(empty_postgres_url)
    catalog = Catalog(empty_postgres_url)
    catalog.register_model(local_facts(MODEL_ID))
    catalog.save_matrix([matrix], [batch])
    catalog.close()
    return empty_postgres_url


@pytest.mark.services
def test_a_partition_is_measured_on_transformers_serve(
    catalog: Catalog,
    catalog_url: str,
    batch: Batch,
    *,
    safetensors: LocalArtifact,
    state_dir: Path,
    environment: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same asset, run, worker and rows as llama.cpp's; every answer is as long as asked, without the field that this engine refuses."""
    ids = {configuration.config_id for configuration in batch.configurations}
    monkeypatch.setenv("DYNO_ENGINE_ENVIRONMENTS", str(environment.parent))
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(catalog, batch, SubprocessExecutor(), instance).success
    assert set(measured(catalog_url)) == ids
    finished, _ = CheckpointStore(LocalFolder(folder_of(batch, state_dir))).finished(ids)
    for measurement in finished.values():
        client = measurement.host["client"]
        assert isinstance(client, dict)
        assert (measurement.engine["name"], measurement.engine["launched"]) == ("transformers", True)
        assert (client["prompts"], client["fixed_output_length"]) == ("text", True)
        assert (measurement.requests_failed, measurement.output_tokens_mean) == (0, WORKLOAD.output_tokens)
        assert measurement.input_tokens_mean == pytest.approx(WORKLOAD.input_tokens, abs=1)
    assert_nothing_runs(state_dir)


def failure_of(driver: EngineDriver, launch: Launch, log: Path) -> EngineError:
    """The error of a start that must fail."""
    with pytest.raises(EngineError) as caught:
        EngineProcess(driver, launch, log, START_TIMEOUT_S).__enter__()
    return caught.value


@pytest.fixture
def launch(safetensors: LocalArtifact, environment: Path) -> Launch:
    """A launch that would succeed."""
    return Launch(str(safetensors.model_path), free_port(), 1, 64, environment=environment)


def test_transformers_serve_tells_a_flag_that_it_does_not_know(launch: Launch, tmp_path: Path) -> None:
    class Misspelt(TransformersServe):
        def command(self, launch: Launch) -> Sequence[str]:
            return [*super().command(launch), "--max-model-len=64"]

    reason = failure_of(Misspelt(), launch, tmp_path / "engine.log")
    assert type(reason) is BadFlagError
    assert "--max-model-len" in str(reason)


def test_transformers_serve_tells_a_value_that_it_does_not_know(launch: Launch, tmp_path: Path) -> None:
    reason = failure_of(TransformersServe(), replace(launch, dtype="float7"), tmp_path / "engine.log")
    assert type(reason) is BadFlagError
    assert "float7" in str(reason)


def test_transformers_serve_tells_torn_weights(launch: Launch, safetensors: LocalArtifact, tmp_path: Path) -> None:
    weights = safetensors.model_path / WEIGHTS_NAME
    content = weights.read_bytes()[: weights.stat().st_size // 2]
    weights.unlink()
    weights.write_bytes(content)
    reason = failure_of(TransformersServe(), launch, tmp_path / "engine.log")
    assert type(reason) is CorruptWeightsError
    assert not reason.retryable


def test_transformers_serve_tells_an_architecture_that_it_has_no_code_for(
    launch: Launch, safetensors: LocalArtifact, tmp_path: Path
) -> None:
    config = safetensors.model_path / "config.json"
    document = json.loads(config.read_text(encoding="utf-8"))
    config.unlink()
    config.write_text(json.dumps({**document, "model_type": "abacus", "architectures": ["AbacusForCausalLM"]}), encoding="utf-8")
    reason = failure_of(TransformersServe(), launch, tmp_path / "engine.log")
    assert reason.kind == "unsupported_model"
    assert "abacus" in str(reason).lower()


def test_transformers_serve_tells_a_port_that_is_taken(launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check before the start cannot see who comes after it: uvicorn itself fails to bind."""
    monkeypatch.setattr(process, "check_port", lambda host, port: None)
    with occupied_port() as port:
        reason = failure_of(TransformersServe(), replace(launch, port=port), tmp_path / "engine.log")
    assert type(reason) is PortTakenError


class _Confined:
    """A driver whose engine gets only so much memory: `prlimit` sets what malloc and mmap may have together."""

    limit_bytes: int

    def confined(self, command: Sequence[str]) -> Sequence[str]:
        return ["prlimit", f"--as={self.limit_bytes}", *command]


class ConfinedTransformers(_Confined, TransformersServe):
    """transformers serve that can be imported, but has no room for the weights."""

    def command(self, launch: Launch) -> Sequence[str]:
        return self.confined(super().command(launch))


class ConfinedLlamaCpp(_Confined, LlamaCpp):
    """llama.cpp's server that has room for the weights, but not for a large KV cache."""

    limit_bytes = 2 << 30

    def command(self, launch: Launch) -> Sequence[str]:
        return self.confined(super().command(launch))


def test_transformers_serve_tells_weights_that_do_not_fit(launch: Launch, environment: Path, tmp_path: Path) -> None:
    """Imports take what they took before; of what is left the weights need more."""
    imported = subprocess.run(
        [str(environment / "bin" / "python"), "-c", PEAK_OF_IMPORTS],
        capture_output=True,
        text=True,
        check=True,
        env=process_environment(environment, {}),
    )
    driver = ConfinedTransformers()
    driver.limit_bytes = int(imported.stdout.split()[-1]) * 1024 + ROOM_BYTES
    reason = failure_of(driver, replace(launch, dtype="float32"), tmp_path / "engine.log")
    assert type(reason) is OutOfMemoryError, (tmp_path / "engine.log").read_text(encoding="utf-8", errors="replace")[-3000:]


def test_llama_cpp_tells_a_kv_cache_that_does_not_fit(artifact: LocalArtifact, tmp_path: Path) -> None:
    reason = failure_of(ConfinedLlamaCpp(), Launch(str(artifact.model_path), free_port(), 64, 32_768), tmp_path / "engine.log")
    assert type(reason) is OutOfMemoryError
