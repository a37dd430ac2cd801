"""A model of the hub on its way to the local engine: fetched or converted, checked, resumed, refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load

from assets.models.artifacts import resolve_local_artifact
from assets.models.config import ModelsConfig
from assets.models.errors import (
    CorruptArtifactError,
    GatedModelError,
    HubUnreachableError,
    InvalidModelError,
    MissingArtifactError,
    ModelNotFoundError,
)
from assets.models.folders import model_dir
from assets.models.gguf_header import read_gguf_header_of
from assets.models.gguf_writer import GGUF_QUANTIZATIONS
from assets.models.hub import Hub, HubFile, HubModel
from assets.models.llama import GgufArchitecture
from assets.models.registration import prepare_model
from tests.hub_standin import TINY, HubStandin, gguf_files, params_of, safetensors_files

MIB = 1 << 20


@pytest.fixture
def hub() -> Iterator[HubStandin]:
    with HubStandin() as standin:
        yield standin


@pytest.fixture
def config(hub: HubStandin, tmp_path: Path) -> ModelsConfig:
    return ModelsConfig(tmp_path, hub.endpoint, ("apache-2.0",), 64 * MIB)


def downloads(hub: HubStandin, name: str) -> list[str]:
    """Requests for the whole content of a large file."""
    return [request for request in hub.requests if request.startswith("GET") and name in request and request.endswith("stored=1")]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_safetensors_become_gguf_with_every_number_in_place(hub: HubStandin, config: ModelsConfig, architecture: GgufArchitecture) -> None:
    """Converted from shards of bfloat16 values, each quantization has the shape and the parameter count of its source."""
    spec = replace(TINY, architecture=architecture, attention_bias=architecture == "qwen2")
    hub.publish("acme/tiny", safetensors_files(spec), params=params_of(spec))
    registration = prepare_model("acme--tiny", "acme/tiny", config)
    assert [weights.quantization for weights in registration.weights] == list(GGUF_QUANTIZATIONS)
    assert registration.facts.params == registration.hub_params == params_of(spec)
    for quantization in GGUF_QUANTIZATIONS:
        artifact = resolve_local_artifact("acme--tiny", quantization, config.state_dir)
        header = read_gguf_header_of(artifact.model_path)
        assert (header.architecture, header.params) == (architecture, params_of(spec))
        assert artifact.tokenizer_path is not None


def test_how_the_weights_are_stored_makes_no_difference(hub: HubStandin, config: ModelsConfig) -> None:
    """The same numbers in bfloat16 in one file and in float32 over three files become the same tensors."""
    hub.publish("acme/one", safetensors_files(TINY))
    hub.publish("acme/three", safetensors_files(TINY, stored_as=np.float32, shards=3))
    tensors = []
    for name in ("one", "three"):
        prepare_model(f"acme--{name}", f"acme/{name}", config)
        reader = GGUFReader(resolve_local_artifact(f"acme--{name}", "q8_0", config.state_dir).model_path)
        tensors.append({tensor.name: tensor.data.tobytes() for tensor in reader.tensors})
    assert tensors[0] == tensors[1]
    assert len(tensors[0]) == 3 + 9 * TINY.layers


def test_a_head_is_reordered_as_llama_cpp_reads_it(hub: HubStandin, config: ModelsConfig) -> None:
    """Rotary pairs: row i and row i + half of a head in the Hugging Face layout lie side by side in llama.cpp's."""
    hub.publish("acme/tiny", safetensors_files(TINY, stored_as=np.float32))
    prepare_model("acme--tiny", "acme/tiny", config)
    reader = GGUFReader(resolve_local_artifact("acme--tiny", "f16", config.state_dir).model_path)
    stored = next(tensor.data for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    source = load(safetensors_files(TINY, stored_as=np.float32)["model.safetensors"])["model.layers.0.self_attn.q_proj.weight"]
    half = TINY.head_dim // 2
    for head in range(TINY.heads):
        first = head * TINY.head_dim
        for pair in range(half):
            np.testing.assert_array_equal(stored[first + 2 * pair], source[first + pair].astype(np.float16))
            np.testing.assert_array_equal(stored[first + 2 * pair + 1], source[first + half + pair].astype(np.float16))


def test_gguf_files_are_taken_as_they_are_and_fetched_once(hub: HubStandin, config: ModelsConfig) -> None:
    """The file on disk is the file on the hub; a second time nothing is downloaded."""
    files = gguf_files(TINY)
    hub.publish("acme/tiny-GGUF", files)
    first = prepare_model("acme--tiny-gguf", "acme/tiny-GGUF", config)
    assert [weights.quantization for weights in first.weights] == ["q8_0", "q4_0"]
    artifact = resolve_local_artifact("acme--tiny-gguf", "q4_0", config.state_dir)
    assert artifact.model_path.read_bytes() == files["tiny-Q4_0.gguf"]
    assert artifact.tokenizer_path is None
    before = len(downloads(hub, "gguf"))
    assert prepare_model("acme--tiny-gguf", "acme/tiny-GGUF", config) == first
    assert len(downloads(hub, "gguf")) == before


def test_an_interrupted_download_is_an_error_and_goes_on_the_next_time(hub: HubStandin, config: ModelsConfig) -> None:
    """No half file is ever used, and what had arrived is not fetched again."""
    cut = 400_000  # within the weights: all other files are smaller
    hub.publish("acme/tiny", safetensors_files(TINY))
    with hub.cutting_off(after_bytes=cut), pytest.raises(HubUnreachableError):
        prepare_model("acme--tiny", "acme/tiny", config)
    with pytest.raises(MissingArtifactError):
        resolve_local_artifact("acme--tiny", "q8_0", config.state_dir)
    hub.requests.clear()
    assert len(prepare_model("acme--tiny", "acme/tiny", config).weights) == len(GGUF_QUANTIZATIONS)
    (request,) = (request for request in hub.requests if "stored=1" in request)
    assert request.endswith(f"model.safetensors?stored=1 bytes={cut}-")


def test_a_download_that_breaks_off_again_and_again_still_arrives(hub: HubStandin, config: ModelsConfig) -> None:
    """Behind a bad line every answer ends early: each goes on where the last one ended."""
    files = safetensors_files(TINY)
    hub.publish("acme/tiny", files)
    hub.truncate_after_bytes = len(files["model.safetensors"]) // 5
    assert len(prepare_model("acme--tiny", "acme/tiny", config).weights) == len(GGUF_QUANTIZATIONS)
    assert len([request for request in hub.requests if "stored=1" in request]) > 5


def test_a_file_that_arrives_damaged_is_not_kept(hub: HubStandin, config: ModelsConfig) -> None:
    """The right size and one wrong byte: the hub's SHA-256 tells, and the next attempt begins anew."""
    hub.publish("acme/tiny-GGUF", gguf_files(TINY, ["q8_0"]))
    with hub.damaging(), pytest.raises(InvalidModelError, match="arrived damaged"):
        prepare_model("acme--tiny-gguf", "acme/tiny-GGUF", config)
    assert len(prepare_model("acme--tiny-gguf", "acme/tiny-GGUF", config).weights) == 1


def test_a_name_that_leads_out_of_the_models_folder_is_refused(hub: HubStandin, tmp_path: Path) -> None:
    """A hub, or who speaks in its name, may list anything."""
    model = HubModel("acme/evil", "r", "acme", "mit", (), False, None, (HubFile("../../evil.gguf", 1, None),))
    with pytest.raises(InvalidModelError, match="outside"):
        Hub(hub.endpoint).download(model, "../../evil.gguf", tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


def test_the_token_reaches_the_hub_and_never_the_storage(hub: HubStandin, config: ModelsConfig) -> None:
    """Large files come from another host, which is not to see it."""
    hub.publish("acme/tiny-GGUF", gguf_files(TINY, ["q8_0"]), gated=True)
    prepare_model("acme--tiny-gguf", "acme/tiny-GGUF", replace(config, hub_token="hf_secret"))
    assert any(".gguf" in request for request in hub.requests_with_token)
    assert all(hub.endpoint in request for request in hub.requests_with_token)
    assert any(hub.storage in request for request in hub.requests_with_token) is False


def test_a_damaged_file_is_refused_when_used_and_fetched_again_when_prepared(
    hub: HubStandin, config: ModelsConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Measuring stops with what to do; preparing the model says what was damaged and mends it."""
    hub.publish("acme/tiny-GGUF", gguf_files(TINY, ["q8_0"]))
    prepare_model("acme--tiny-gguf", "acme/tiny-GGUF", config)
    path = model_dir(config.state_dir, "acme--tiny-gguf") / "q8_0" / "model.gguf"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CorruptArtifactError, match=r"model\.gguf is damaged"):
        resolve_local_artifact("acme--tiny-gguf", "q8_0", config.state_dir)
    prepare_model("acme--tiny-gguf", "acme/tiny-GGUF", config)
    assert "is damaged" in caplog.text
    assert resolve_local_artifact("acme--tiny-gguf", "q8_0", config.state_dir).model_path == path


def test_models_that_the_local_engine_cannot_have_keep_their_facts(hub: HubStandin, config: ModelsConfig) -> None:
    """Too large, or in another quantization: registered with a reason that says what would help, and nothing is downloaded."""
    hub.publish("acme/large", safetensors_files(TINY))
    small_limit = replace(config, local_download_limit_bytes=1000)
    large = prepare_model("acme--large", "acme/large", small_limit)
    assert large.weights == ()
    assert "DYNO_LOCAL_DOWNLOAD_LIMIT_GIB" in str(large.no_weights)
    other = {name.replace("Q8_0", "Q4_K_M"): content for name, content in gguf_files(TINY, ["q8_0"]).items()}
    hub.publish("acme/other-GGUF", other)
    assert "tiny-Q4_K_M.gguf" in str(prepare_model("acme--other-gguf", "acme/other-GGUF", config).no_weights)
    assert downloads(hub, ".") == []


def test_tensors_that_are_not_those_of_the_config_are_refused(hub: HubStandin, config: ModelsConfig) -> None:
    """A config.json that does not fit the weights would convert into nonsense."""
    files = safetensors_files(TINY)
    wrong = json.loads(files["config.json"]) | {"num_hidden_layers": 3}
    hub.publish("acme/wrong", {**files, "config.json": json.dumps(wrong).encode()})
    with pytest.raises(InvalidModelError, match="missing"):
        prepare_model("acme--wrong", "acme/wrong", config)


def test_the_hubs_refusals_say_what_to_do(hub: HubStandin, config: ModelsConfig) -> None:
    """No such model, gated, out of reach: each is an error of its own."""
    with pytest.raises(ModelNotFoundError, match="check the spelling"):
        prepare_model("acme--none", "acme/none", config)
    hub.publish("acme/gated", safetensors_files(TINY), gated=True)
    with pytest.raises(GatedModelError, match="DYNO_HUB_TOKEN"):
        prepare_model("acme--gated", "acme/gated", config)
    hub.publish("acme/closed", safetensors_files(TINY), gated="closed")
    with pytest.raises(GatedModelError, match="or use another token"):
        prepare_model("acme--closed", "acme/closed", replace(config, hub_token="hf_other"))
    with hub.failing(503), pytest.raises(HubUnreachableError, match="DYNO_HUB_ENDPOINT"):
        prepare_model("acme--gated", "acme/gated", config)
    nobody = replace(config, hub_endpoint="http://127.0.0.1:9")
    with pytest.raises(HubUnreachableError, match="out of reach"):
        prepare_model("acme--gated", "acme/gated", nobody)
