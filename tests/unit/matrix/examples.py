"""Models that the tests of the matrix use; figures as in their config.json."""

from __future__ import annotations

from assets.models.facts import ModelFacts

LLAMA_31_8B = ModelFacts(
    "llama-3.1-8b", "Llama 3.1 8B", "LlamaForCausalLM", 8_030_261_248, 8_030_261_248, 32, 4096, 14336, 32, 8, 128, 128_256, 131_072
)
LLAMA_31_70B = ModelFacts(
    "llama-3.1-70b", "Llama 3.1 70B", "LlamaForCausalLM", 70_553_706_496, 70_553_706_496, 80, 8192, 28672, 64, 8, 128, 128_256, 131_072
)
LLAMA_2_7B = ModelFacts(
    "llama-2-7b", "Llama 2 7B", "LlamaForCausalLM", 6_738_415_616, 6_738_415_616, 32, 4096, 11008, 32, 32, 128, 32_000, 4096
)
QWEN_25_7B = ModelFacts(
    "qwen2.5-7b", "Qwen2.5 7B", "Qwen2ForCausalLM", 7_615_616_512, 7_615_616_512, 28, 3584, 18944, 28, 4, 128, 152_064, 32_768
)
DEEPSEEK_V3 = ModelFacts(
    "deepseek-v3",
    "DeepSeek V3",
    "DeepseekV3ForCausalLM",
    671_026_419_200,
    37_000_000_000,
    61,
    7168,
    2048,
    128,
    128,
    128,
    129_280,
    163_840,
    native_dtype="fp8",
    kv_lora_rank=512,
    qk_rope_head_dim=64,
    experts=256,
    experts_per_token=8,
)
LOCAL_82M = ModelFacts(
    "dyno-82m", "Dyno 82M", "LlamaForCausalLM", 82_000_000, 82_000_000, 8, 768, 2048, 12, 12, 64, 8192, 2048, formats=("gguf",)
)
EXAMPLES = (LLAMA_31_8B, LLAMA_31_70B, LLAMA_2_7B, QWEN_25_7B, DEEPSEEK_V3)
