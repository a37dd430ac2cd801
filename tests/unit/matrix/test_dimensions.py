"""The data files: what they hold, that figures carry sources, and that a wrong file is refused with a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assets.matrix.dimensions import (
    Framework,
    Preset,
    Price,
    load_frameworks,
    load_hardware,
    load_prices,
    load_use_cases,
    load_workloads,
    parse,
    preset,
)
from assets.matrix.errors import DimensionDataError
from assets.models.facts import QUANTIZATIONS
from tests.unit.matrix.examples import LLAMA_2_7B, LLAMA_31_8B

ROOT = Path(__file__).parents[3]
PRICE = """
- hardware_id: l4-x1
  provider: aws
  region: us-east-1
  instance: g6.xlarge
  as_of: 2026-07-20
  on_demand_usd_per_hour: 0.8048
  spot_usd_per_hour: null
  note: ""
  source: somewhere
"""


def test_fifteen_gpu_configs_and_the_cpu() -> None:
    hardware = load_hardware()
    assert len(hardware) == 16
    assert [h for h in hardware if h.startswith("h200")] == ["h200-141gb-x1", "h200-141gb-x4", "h200-141gb-x8"]
    assert {h.gpu_type for h in hardware.values()} == {"L4", "A100-80GB", "H100", "H200", "cpu"}
    assert hardware["cpu"].gpu_count == 0
    assert hardware["cpu"].devices == 1
    assert hardware["cpu"].memory_bytes_per_device > 0
    assert all(h.source for h in hardware.values())


def test_presets_have_the_sizes_of_the_plan() -> None:
    assert preset("gpu").size == 15 * 3 * 4 * 5 * 10 == 9000
    assert preset("local").size == 1 * 1 * 3 * 6 * 5


def test_every_hardware_config_has_a_price_with_day_and_source() -> None:
    prices = {price.hardware_id: price for price in load_prices()}
    assert prices.keys() == load_hardware().keys()
    assert all(price.source and price.instance and price.as_of.year == 2026 for price in prices.values())
    assert prices["h100-80gb-x8"].on_demand_usd_per_hour == 55.04
    for price in prices.values():
        if price.spot_usd_per_hour is None:
            assert "no spot figure" in price.note
        else:
            assert "spot: " in price.note
            assert price.on_demand_usd_per_hour is not None
            assert price.spot_usd_per_hour < price.on_demand_usd_per_hour


def test_a_share_of_a_node_costs_its_share() -> None:
    prices = {price.hardware_id: price.on_demand_usd_per_hour for price in load_prices()}
    node = prices["a100-80gb-x8"]
    assert node is not None
    assert prices["a100-80gb-x2"] == pytest.approx(node / 4, rel=1e-5)


def test_flags_and_memory_of_an_engine_say_the_same() -> None:
    """The memory maths and the launch must not drift apart: both hold the same limits."""
    vllm, tgi, lmdeploy = (load_frameworks()[name] for name in ("vllm", "tgi", "lmdeploy"))
    assert vllm.flags["gpu_memory_utilization"] == vllm.memory.memory_fraction
    assert vllm.flags["max_num_batched_tokens"] == vllm.memory.prefill_tokens
    assert vllm.flags["max_num_seqs"] == vllm.memory.max_sequences == vllm.max_concurrency
    assert tgi.flags["max_batch_prefill_tokens"] == tgi.memory.prefill_tokens
    assert tgi.flags["max_concurrent_requests"] == tgi.memory.max_sequences == tgi.max_concurrency
    assert lmdeploy.flags["cache_max_entry_count"] == lmdeploy.memory.kv_share_of_free
    assert lmdeploy.flags["max_batch_size"] == lmdeploy.memory.max_sequences == lmdeploy.max_concurrency


def test_llama_cpp_is_the_version_that_the_requirements_pin() -> None:
    pinned = re.search(r"^xllamacpp==(\S+)", (ROOT / "requirements/runtime.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    assert load_frameworks()["llama.cpp"].version == pinned.group(1)


def test_support_cells_carry_sources_and_known_quantizations() -> None:
    for framework in load_frameworks().values():
        assert framework.source
        for quantization, support in framework.quantizations.items():
            assert quantization in QUANTIZATIONS
            assert support.source
        for of_architecture in framework.architectures.values():
            assert of_architecture == "all" or set(of_architecture) <= set(framework.quantizations)


def test_the_context_of_a_launch_is_the_shorter_of_model_and_limit() -> None:
    vllm = load_frameworks()["vllm"]
    assert vllm.launch_flags(LLAMA_31_8B, "fp16")["max_model_len"] == 8192
    assert vllm.launch_flags(LLAMA_2_7B, "fp16")["max_model_len"] == 4096
    assert vllm.launch_flags(LLAMA_31_8B, "fp8")["quantization"] == "fp8"


def test_use_cases_name_workloads_that_exist_and_the_source_of_their_bounds() -> None:
    workloads = load_workloads()
    use_cases = load_use_cases()
    assert {u.use_case for u in use_cases} == {"chatbot", "rag", "summarization", "code_completion", "agents"}
    for use_case in use_cases:
        assert set(use_case.workloads) <= set(workloads)
        assert "MLPerf Inference v5.1" in use_case.sla_source
        assert use_case.default_input_tokens == workloads[use_case.workloads[0]].input_tokens
    assert {w for u in use_cases for w in u.workloads} == set(workloads)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(PRICE + "  discount: 0.1\n", "discount", id="unknown key"),
        pytest.param(PRICE.replace("  source: somewhere\n", ""), "source", id="missing key"),
        pytest.param(PRICE.replace("0.8048", "cheap"), "on_demand_usd_per_hour", id="no number"),
        pytest.param("- [", "not YAML", id="no YAML"),
    ],
)
def test_a_wrong_file_is_refused_and_the_message_names_the_place(text: str, says: str) -> None:
    with pytest.raises(DimensionDataError, match=says) as caught:
        parse(tuple[Price, ...], text, "prices.yaml")
    assert "prices.yaml" in str(caught.value)


def test_unknown_keys_are_refused_in_nested_records_too() -> None:
    text = (ROOT / "assets/matrix/data/frameworks.yaml").read_text(encoding="utf-8")
    with pytest.raises(DimensionDataError, match="swap_space"):
        parse(tuple[Framework, ...], text.replace("    memory_fraction: 0.9\n", "    memory_fraction: 0.9\n    swap_space: 4\n"), "f.yaml")
    with pytest.raises(DimensionDataError, match="quantizations"):
        parse(dict[str, Preset], (ROOT / "assets/matrix/data/presets.yaml").read_text("utf-8").replace("fp8", "fp7"), "p.yaml")
