"""The generator: 9,000 cells, one verdict each, ids equal to the specs' own, and verdicts that change the right way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.matrix.dimensions import Dimensions, load_hardware, preset
from assets.matrix.errors import MatrixModelError
from assets.matrix.generate import Matrix, generate, matrices_of, versions_of
from assets.matrix.rules import RULES
from assets.matrix.spec import Configuration, ModelVersion
from assets.models.facts import ModelFacts
from tests.unit.matrix.examples import EXAMPLES, LLAMA_31_8B, LLAMA_31_70B, LOCAL_82M, QWEN_25_7B

SMALL = preset("gpu").only(hardware=["l4-x1", "l4-x4", "a100-80gb-x8", "h100-80gb-x2"], workloads=["chat", "rag"])


@pytest.mark.parametrize("facts", EXAMPLES, ids=lambda facts: facts.model_id)
def test_the_full_matrix_has_9000_cells_with_one_verdict_each(facts: ModelFacts) -> None:
    matrix = generate(facts, preset("gpu"))
    codes = {rule.code for rule in RULES}
    assert matrix.generated == 9000
    assert matrix.feasible + sum(matrix.rejected.values()) == 9000
    assert matrix.feasible > 0
    assert matrix.rejected.keys() <= codes
    assert all(cell.feasible == (cell.rejection is None) for cell in matrix.cells)
    assert all(cell.vram.fits for cell in matrix.cells if cell.feasible)
    assert len({cell.configuration.config_id for cell in matrix.cells}) == 9000


def test_ids_are_those_of_the_specs() -> None:
    """The shared hashing must give what `Configuration.config_id` gives: ids are for ever."""
    for cell in generate(LLAMA_31_8B, preset("gpu")).cells:
        fresh = Configuration(replace(cell.configuration.deployment), cell.configuration.load_point)
        assert fresh.config_id == cell.configuration.config_id


def test_an_id_is_for_ever() -> None:
    """A change of this id is a change of every stored measurement's identity: it must be meant."""
    cell = generate(LLAMA_31_8B, preset("gpu").only(hardware=["h100-80gb-x1"], frameworks=["vllm"])).cells[0]
    assert cell.configuration.deployment.spec == {
        "model_version": {"model_id": "llama-3.1-8b", "quantization": "fp16", "revision": ""},
        "framework": "vllm",
        "framework_version": "0.32.0",
        "hardware_id": "h100-80gb-x1",
        "tensor_parallel": 1,
        "flags": {
            "gpu_memory_utilization": 0.9,
            "max_num_seqs": 512,
            "max_num_batched_tokens": 8192,
            "enable_prefix_caching": False,
            "max_model_len": 8192,
        },
    }
    assert cell.configuration.config_id == "cc8fde152f47a75da555568afc67dc48"


def test_the_order_is_fixed() -> None:
    first, second = generate(QWEN_25_7B, SMALL), generate(QWEN_25_7B, SMALL)
    assert first == second


def test_no_flag_depends_on_the_load_point() -> None:
    """A deployment is one engine launch: its 20 load points here must share it."""
    deployments = [cell.configuration.deployment for cell in generate(LLAMA_31_8B, SMALL).cells]
    assert len({deployment.deployment_id for deployment in deployments}) == len(deployments) // 20 == 4 * 3 * 4


@settings(max_examples=40)
@given(st.sampled_from(EXAMPLES), st.sampled_from(SMALL.hardware), st.integers(10, 400))
def test_more_memory_never_makes_infeasible(facts: ModelFacts, hardware: object, percent: int) -> None:
    base = next(h for h in SMALL.hardware if h is hardware)
    grown = replace(base, memory_bytes_per_device=base.memory_bytes_per_device * (100 + percent) // 100)
    before = generate(facts, replace(SMALL, hardware=(base,)))
    after = generate(facts, replace(SMALL, hardware=(grown,)))
    for small, large in zip(before.cells, after.cells, strict=True):
        assert large.feasible or not small.feasible


@settings(max_examples=40)
@given(st.sampled_from(EXAMPLES), st.lists(st.integers(1, 600), min_size=2, max_size=6, unique=True))
def test_more_concurrency_never_makes_feasible(facts: ModelFacts, concurrencies: list[int]) -> None:
    rising = tuple(sorted(concurrencies))
    matrix = generate(facts, replace(SMALL, concurrencies=rising))
    for start in range(0, matrix.generated, len(rising)):
        verdicts = [cell.feasible for cell in matrix.cells[start : start + len(rising)]]
        assert verdicts == sorted(verdicts, reverse=True)


@settings(max_examples=15)
@given(st.sampled_from(EXAMPLES), st.sets(st.sampled_from([h.hardware_id for h in preset("gpu").hardware]), min_size=1), st.data())
def test_a_verdict_does_not_depend_on_what_else_is_generated(facts: ModelFacts, hardware: set[str], data: st.DataObject) -> None:
    part = preset("gpu").only(hardware=sorted(hardware), frameworks=[data.draw(st.sampled_from(["vllm", "tgi", "lmdeploy"]))])
    whole = {cell.configuration.config_id: cell for cell in _full(facts).cells}
    matrix = generate(facts, part)
    assert matrix.generated == part.size
    assert all(whole[cell.configuration.config_id] == cell for cell in matrix.cells)


_FULL: dict[str, Matrix] = {}


def _full(facts: ModelFacts) -> Matrix:
    return _FULL.setdefault(facts.model_id, generate(facts, preset("gpu")))


def test_models_that_fit_nowhere_and_everywhere() -> None:
    """Llama 3.1 70B in 16 bits needs more than one 80 GB GPU; in 4 bits it does not."""

    def feasible(dimensions: Dimensions) -> int:
        return generate(LLAMA_31_70B, dimensions).feasible

    one = preset("gpu").only(hardware=["h100-80gb-x1"], frameworks=["vllm"])
    assert feasible(one.only(quantizations=["fp16"])) == 0
    assert feasible(one.only(quantizations=["int4"])) > 0
    assert feasible(preset("gpu").only(hardware=["h100-80gb-x4"], frameworks=["vllm"], quantizations=["fp16"])) > 0


def test_only_registered_versions_are_generated() -> None:
    local = preset("local")
    version = ModelVersion("dyno-82m", "q8_0", "abc")
    matrix = generate(LOCAL_82M, local, [version, ModelVersion("dyno-82m", "fp16", "abc")])
    assert matrix.model_versions == (version,)
    assert matrix.generated == local.size // 3
    assert versions_of(LOCAL_82M, local)[0] == ModelVersion("dyno-82m", "f16", "")
    with pytest.raises(MatrixModelError, match="other-model"):
        generate(LOCAL_82M, local, [ModelVersion("other-model", "q8_0", "abc")])


def test_formats_choose_the_presets() -> None:
    assert [m.generated for m in matrices_of(LLAMA_31_8B)] == [9000]
    assert [m.hardware_ids for m in matrices_of(LOCAL_82M)] == [("cpu",)]
    both = matrices_of(LLAMA_31_8B, [ModelVersion("llama-3.1-8b", "q4_0", "abc")])
    assert [m.generated for m in both] == [9000, 30]
    with pytest.raises(MatrixModelError, match="onnx"):
        matrices_of(replace(LOCAL_82M, formats=("onnx",)))


def test_the_local_matrix_leaves_out_what_does_not_fit_the_context() -> None:
    matrix = generate(LOCAL_82M, replace(preset("local"), hardware=(load_hardware()["cpu"],)))
    assert matrix.generated == 90
    assert matrix.rejected["context_too_short"] == 3 * 3 * 5  # rag, summarization and agentic need more than 2,048 tokens
