"""Every engine: what a deployment says becomes its command line, and what it cannot do is refused before anything starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from assets.benchmark.engines.environments import environment_of, process_environment
from assets.benchmark.engines.protocol import BadFlagError, EngineDriver, FlagValue, UnknownEngineError
from assets.benchmark.engines.registry import ALL_METRICS, DRIVERS, METRICS_PATHS, driver_for, metrics_paths
from assets.benchmark.load.api_formats import COMPLETIONS
from assets.matrix.dimensions import Framework, load_frameworks
from tests.unit.benchmark.engine_launches import LAUNCH, VALUES, every_launch, options_of
from tests.unit.matrix.examples import LLAMA_31_8B

LAUNCHED = [driver for driver in DRIVERS.values() if driver.name != "external"]
FRAMEWORKS = list(load_frameworks().values())


def flags_of(framework: Framework) -> set[str]:
    """All flags that a deployment of this framework may have."""
    names = set(framework.flags) | ({framework.context_flag} if framework.context_flag else set())
    return names.union(*(support.flags or {} for support in framework.quantizations.values()))


def by_name(driver: EngineDriver) -> str:
    """The id of a test."""
    return driver.name


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.framework)
def test_a_driver_knows_exactly_the_flags_of_its_frameworks_deployments(framework: Framework) -> None:
    assert set(driver_for(framework.framework).flags) == flags_of(framework)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.framework)
def test_every_deployment_of_the_matrix_has_a_command_line(framework: Framework) -> None:
    """With each quantization that the matrix gives the engine, and the flags that come with it."""
    driver = driver_for(framework.framework)
    for quantization in framework.quantizations:
        flags: dict[str, FlagValue] = framework.launch_flags(LLAMA_31_8B, quantization)
        line = driver.serve_command(replace(LAUNCH, quantization=quantization, flags=flags))
        assert any(LAUNCH.model in part for part in line)
        for name, value in flags.items():
            option = driver.flags[name]
            assert (f"{option.name}={value}" in line) if not isinstance(value, bool) else ((option.name in line) is value)


@pytest.mark.parametrize("driver", LAUNCHED, ids=by_name)
def test_an_unknown_flag_is_refused_and_the_known_ones_are_named(driver: EngineDriver) -> None:
    with pytest.raises(BadFlagError, match=f"{driver.name} has no flag speculative.*{min(driver.flags)}"):
        driver.serve_command(replace(LAUNCH, flags={"speculative": 1}))


@pytest.mark.parametrize("driver", LAUNCHED, ids=by_name)
def test_a_flags_value_of_the_wrong_kind_is_refused(driver: EngineDriver) -> None:
    for name, option in driver.flags.items():
        wrong: FlagValue = "many" if option.kind is not str else 8
        with pytest.raises(BadFlagError, match=rf"{name} must be .*{wrong}"):
            driver.serve_command(replace(LAUNCH, flags={name: wrong}))


@pytest.mark.parametrize("driver", LAUNCHED, ids=by_name)
def test_an_option_is_never_given_twice(driver: EngineDriver) -> None:
    """Which of two an engine takes is its own affair: the one that a deployment's id stands for must be the only one."""
    for launch in every_launch(driver):
        names = [part.partition("=")[0] for part in driver.serve_command(launch) if part.startswith("--")]
        assert len(names) == len(set(names)), launch


@pytest.mark.parametrize("driver", LAUNCHED, ids=by_name)
def test_a_quantization_that_the_engine_lacks_is_refused(driver: EngineDriver) -> None:
    lacking = "fp16" if driver.name == "llama.cpp" else "q4_0"
    with pytest.raises(BadFlagError, match=f"{driver.name} has no quantization '{lacking}'"):
        driver.serve_command(replace(LAUNCH, quantization=lacking))


@pytest.mark.parametrize("driver", LAUNCHED, ids=by_name)
def test_an_image_has_a_tag_that_names_the_version(driver: EngineDriver) -> None:
    image = driver.image("1.2.345")
    if image is not None:
        repository, _, tag = image.rpartition(":")
        assert "/" in repository
        assert "345" in tag
    assert (image is None) == (driver.name == "transformers")


@pytest.mark.parametrize(
    ("engine", "image"),
    [
        ("vllm", "vllm/vllm-openai:v0.32.0"),
        ("tgi", "ghcr.io/huggingface/text-generation-inference:3.3.7"),
        ("lmdeploy", "openmmlab/lmdeploy:v0.16.0-cu12.8"),
        ("llama.cpp", "ghcr.io/ggml-org/llama.cpp:server-b11549"),
    ],
)
def test_the_matrix_versions_have_these_images(engine: str, image: str) -> None:
    assert driver_for(engine).image(load_frameworks()[engine].version) == image


@pytest.mark.parametrize(
    ("engine", "off", "on"),
    [
        ("vllm", "--no-enable-prefix-caching", "--enable-prefix-caching"),
        ("sglang", "--disable-radix-cache", None),
        ("lmdeploy", None, "--enable-prefix-caching"),
        ("llama.cpp", "--no-cache-prompt", None),
    ],
)
def test_prefix_caching_is_off_unless_asked_for(engine: str, off: str | None, on: str | None) -> None:
    """A cache that answers repeated prompts would be measured instead of the engine."""
    driver = driver_for(engine)
    line = driver.serve_command(LAUNCH)
    assert off is None or off in line
    assert on is None or on not in line
    if engine != "llama.cpp":
        line = driver.serve_command(replace(LAUNCH, prefix_caching=True))
        assert off is None or off not in line
        assert on is None or on in line


def test_the_prefix_caches_of_tgi_and_tensorrt_llm_are_off_in_their_own_ways() -> None:
    assert driver_for("tgi").variables(LAUNCH)["PREFIX_CACHING"] == "0"
    assert driver_for("tgi").variables(replace(LAUNCH, prefix_caching=True))["PREFIX_CACHING"] == "1"
    [[*_, path, options]] = driver_for("tensorrt-llm").prepare_commands(LAUNCH)
    assert json.loads(options)["kv_cache_config"]["enable_block_reuse"] is False
    assert f"--extra_llm_api_options={path}" in driver_for("tensorrt-llm").serve_command(LAUNCH)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_dummy_weights_where_the_engine_makes_them(engine: str) -> None:
    assert "--load-format=dummy" in driver_for(engine).serve_command(replace(LAUNCH, dummy_weights=True))
    assert "--load-format=dummy" not in driver_for(engine).serve_command(LAUNCH)


@pytest.mark.parametrize("engine", ["tgi", "lmdeploy", "llama.cpp", "transformers"])
def test_dummy_weights_are_refused_where_the_engine_has_none(engine: str) -> None:
    with pytest.raises(BadFlagError):
        driver_for(engine).serve_command(replace(LAUNCH, dummy_weights=True))


def test_a_deployments_flag_holds_over_what_the_launch_would_say_otherwise() -> None:
    """The flag is part of the deployment's identity: the batch's own maxima must not change what it stands for."""
    line = driver_for("vllm").serve_command(
        replace(LAUNCH, memory_fraction=0.5, flags={"gpu_memory_utilization": 0.9, "max_num_seqs": 512})
    )
    assert {"--gpu-memory-utilization=0.9", "--max-num-seqs=512"} <= set(line)
    assert "--max-model-len=128" in line


def test_tgi_is_not_given_a_type_beside_a_quantization() -> None:
    """Its launcher takes one or the other."""
    quantized = driver_for("tgi").serve_command(replace(LAUNCH, dtype="float16", quantization="fp8"))
    assert "--quantize=fp8" in quantized
    assert not any(part.startswith("--dtype") for part in quantized)
    assert "--dtype=float16" in driver_for("tgi").serve_command(replace(LAUNCH, dtype="float16"))
    assert "--max-input-tokens=127" in driver_for("tgi").serve_command(LAUNCH)


def test_lmdeploys_w8a8_runs_on_its_pytorch_engine() -> None:
    assert "--backend=pytorch" in driver_for("lmdeploy").serve_command(replace(LAUNCH, quantization="int8"))
    assert not any(part.startswith("--backend") for part in driver_for("lmdeploy").serve_command(replace(LAUNCH, quantization="int4")))


def test_requests_name_the_model_as_the_engine_does() -> None:
    """transformers serve refuses any other name than the one that it was started with."""
    launch = replace(LAUNCH, served_model_name="m")
    assert driver_for("transformers").request_model(launch) == "/models/llama"
    assert driver_for("tensorrt-llm").request_model(launch) == "llama"
    assert driver_for("vllm").request_model(launch) == "m"
    assert "--served-model-name=m" in driver_for("vllm").serve_command(launch)
    assert "--alias=m" in driver_for("llama.cpp").command(launch)


@pytest.mark.parametrize("driver", LAUNCHED, ids=by_name)
def test_only_fields_that_the_engine_takes_are_sent(driver: EngineDriver) -> None:
    """TGI has none that fixes the length; transformers serve refuses `ignore_eos`, which the others know."""
    fields = driver.body_fields()
    assert driver.fixes_output_length == bool(fields)
    assert ("ignore_eos" in fields) == (driver.name not in {"tgi", "transformers"})
    assert not driver.takes_token_ids or driver.api is COMPLETIONS


def test_an_external_server_is_never_launched_and_its_page_may_be_any_engines() -> None:
    external = driver_for("external")
    assert list(external.command(LAUNCH)) == list(external.serve_command(LAUNCH)) == []
    assert external.version(None) is None
    assert metrics_paths(external) == METRICS_PATHS == ("/metrics", "/prometheus/metrics")
    assert external.metrics is ALL_METRICS
    assert metrics_paths(driver_for("transformers")) == ()
    assert metrics_paths(driver_for("vllm")) == ("/metrics",)


@pytest.mark.parametrize("driver", [driver for driver in LAUNCHED if driver.name != "llama.cpp"], ids=by_name)
def test_an_engine_without_its_environment_says_how_to_give_it_one(driver: EngineDriver, tmp_path: Path) -> None:
    with pytest.raises(UnknownEngineError, match="DYNO_ENGINE_ENVIRONMENTS=FOLDER"):
        driver.command(LAUNCH)
    (tmp_path / "bin").mkdir()
    with pytest.raises(UnknownEngineError, match="is not installed in"):
        driver.command(replace(LAUNCH, environment=tmp_path))


def test_an_engine_is_started_from_its_environment_and_knows_its_version_there(tmp_path: Path) -> None:
    environment = tmp_path / "vllm"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "vllm").touch()
    package = environment / "lib" / "python3.12" / "site-packages" / "vllm-9.9.9.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9.9\n")
    vllm = driver_for("vllm")
    assert environment_of(tmp_path, "vllm") == environment
    assert environment_of(tmp_path, "sglang") is None
    launch = replace(LAUNCH, environment=environment)
    assert vllm.command(launch)[:2] == [str(environment / "bin" / "vllm"), "serve"]
    assert vllm.version(environment) == "9.9.9"
    with pytest.raises(UnknownEngineError, match="sglang is not installed"):
        driver_for("sglang").version(environment)


def test_an_engines_process_sees_nothing_of_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our modules on its path would hide its own."""
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours/.venv")
    seen = process_environment(tmp_path, {"A": "1"})
    assert "PYTHONPATH" not in seen
    assert seen["VIRTUAL_ENV"] == str(tmp_path)
    assert seen["PATH"].startswith(f"{tmp_path}/bin")
    assert seen["A"] == "1"


@pytest.mark.parametrize("driver", LAUNCHED, ids=by_name)
def test_the_launches_of_the_help_checks_write_every_flag(driver: EngineDriver) -> None:
    """What `test_engine_help` compares with an engine's `--help` is all that the driver can write."""
    options = options_of(driver)
    for option in driver.flags.values():
        written = set(VALUES[option.kind]) - {False} or option.off is not None
        assert not written or option.name in options
        assert option.off is None or option.off in options
