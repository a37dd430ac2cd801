"""`./dyno matrix`: every configuration of a model, which of them can run, and why the others cannot. Works offline, starts nothing."""

from __future__ import annotations

import csv
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import typer

from assets.matrix.batches import batches_of
from assets.matrix.dimensions import load_frameworks, load_hardware, load_workloads
from assets.matrix.errors import UnknownDimensionError
from assets.matrix.generate import Cell, matrices_of
from assets.matrix.rules import RULES
from assets.matrix.spec import ModelVersion
from assets.models.facts import QUANTIZATIONS, ModelFacts
from assets.models.ids import is_hub_id
from assets.models.registration import plan_hub_model
from assets.models.registry import find_model, find_model_id
from orchestration import console
from orchestration.settings import load_settings

GIB = 1 << 30
TABLE_ROWS = 30


class MatrixCommandError(Exception):
    """The options contradict each other; the message says which."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What of the matrix is asked for; an empty list means all."""

    hardware: Sequence[str]
    framework: Sequence[str]
    quantization: Sequence[str]
    workload: Sequence[str]
    feasible: bool
    rejected: bool

    def check(self) -> None:
        """Raises UnknownDimensionError for a name that nothing has, MatrixCommandError for options that exclude each other."""
        if self.feasible and self.rejected:
            raise MatrixCommandError("--feasible and --rejected exclude each other: give one of them, or none for both")
        for kind, names, known in (
            ("hardware config", self.hardware, load_hardware()),
            ("framework", self.framework, load_frameworks()),
            ("quantization", self.quantization, QUANTIZATIONS),
            ("workload", self.workload, load_workloads()),
        ):
            for name in names:
                if name not in known:
                    raise UnknownDimensionError(kind, name, known)

    def has(self, cell: Cell) -> bool:
        deployment = cell.configuration.deployment
        return (
            _among(deployment.hardware_id, self.hardware)
            and _among(deployment.framework, self.framework)
            and _among(deployment.model_version.quantization, self.quantization)
            and _among(cell.configuration.load_point.workload.name, self.workload)
            and not (self.feasible and not cell.feasible)
            and not (self.rejected and cell.feasible)
        )


def matrix(  # noqa: PLR0917  # one parameter an option; typer passes them by name
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model that ships with Dyno, a local one, or organisation/name on the Hugging Face hub."),
    ],
    count: Annotated[bool, typer.Option("--count", help="Only how many: generated, feasible, and rejected by reason.")] = False,
    hardware: Annotated[list[str] | None, typer.Option(help="Only this hardware, e.g. h100-80gb-x4. May be given several times.")] = None,
    framework: Annotated[list[str] | None, typer.Option(help="Only this engine, e.g. vllm. May be given several times.")] = None,
    quantization: Annotated[list[str] | None, typer.Option(help="Only this quantization, e.g. fp8. May be given several times.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help="Only this workload, e.g. chat. May be given several times.")] = None,
    feasible: Annotated[bool, typer.Option("--feasible", help="Only what can run.")] = False,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only what cannot run.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=0, help=f"How many to list at most; 0 is all. Default: {TABLE_ROWS} in a table, else all.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header line on standard output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """List every configuration of a model - hardware, engine, quantization, workload, concurrency - and why some cannot run.

    The full matrix of a model with safetensors weights is 15 hardware configs x 3 engines x 4 quantizations x 5 workloads x 10 load
    levels = 9,000. Nothing is started or measured: the verdicts come from the model's architecture, from what the engines support, and
    from the memory that weights, KV cache, activations and the engine need. Models that ship with Dyno need no network.

    Examples:

      ./dyno matrix llama-3.1-8b --count

      ./dyno matrix llama-3.1-70b --hardware h100-80gb-x1 --rejected

      ./dyno matrix qwen3-8b --framework vllm --feasible --csv > feasible.csv
    """
    selection = Selection(hardware or (), framework or (), quantization or (), workload or (), feasible, rejected)
    if as_csv and (as_json or count):
        raise MatrixCommandError(f"--csv and {'--json' if as_json else '--count'} exclude each other: give one of them")
    selection.check()
    facts, versions = _known_or_from_hub(model)

    started = time.perf_counter()
    matrices = matrices_of(facts, versions)
    elapsed_ms = (time.perf_counter() - started) * 1000

    cells = [cell for one in matrices for cell in one.cells if selection.has(cell)]
    if count:
        _print_counts(facts, cells, elapsed_ms, as_json)
        return
    shown = list(islice(cells, limit or (None if as_csv or as_json or limit == 0 else TABLE_ROWS)))
    if not (as_csv or as_json):
        _print_table(facts, shown, len(cells))
        return
    keys = {c.config_id: batch.partition_key for batch in batches_of(matrices) for c in batch.configurations}
    records = [_record(cell, keys) for cell in shown]
    if as_json:
        console.print_json({"model": facts.model_id, "configurations": records})
        return
    columns = list(_record(matrices[0].cells[0], keys))
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)


def _known_or_from_hub(name: str) -> tuple[ModelFacts, list[ModelVersion] | None]:
    """Facts of a shipped or local model, else of organisation/name on the hub; and the versions that a hub model would have.

    Raises ModelsError, which says what to do.
    """
    if find_model_id(name) is not None or not is_hub_id(name):
        return find_model(name), None
    from assets.models.hub import Hub  # noqa: PLC0415  # the hub's library takes half a second that a shipped model must not pay

    config = load_settings().models_config()
    plan = plan_hub_model(Hub(config.hub_endpoint, config.hub_token), name, config)
    revisions = {} if plan.weights is None else plan.weights.revisions
    facts = plan.described.facts
    return facts, [ModelVersion(facts.model_id, quantization, revision) for quantization, revision in revisions.items()]


def _among(name: str, names: Collection[str]) -> bool:
    return not names or name in names


def _print_counts(facts: ModelFacts, cells: Sequence[Cell], elapsed_ms: float, as_json: bool) -> None:
    reasons = Counter(cell.rejection.code for cell in cells if cell.rejection)
    feasible = sum(cell.feasible for cell in cells)
    if as_json:
        console.print_json(
            {
                "model": facts.model_id,
                "generated": len(cells),
                "feasible": feasible,
                "rejected": dict(reasons.most_common()),
                "elapsed_ms": round(elapsed_ms, 1),
            }
        )
        return
    sentences = {rule.code: rule.sentence for rule in RULES}
    rows: list[tuple[str, int, str]] = [("generated", len(cells), ""), ("feasible", feasible, "")]
    rows += [(f"rejected: {code}", number, sentences[code]) for code, number in reasons.most_common()]
    console.print_table(f"{facts.name}: configurations", ("", "Configurations", "Condition that does not hold"), rows)
    console.note(f"generated in {elapsed_ms:.0f} ms")


def _print_table(facts: ModelFacts, cells: Sequence[Cell], selected: int) -> None:
    rows = []
    for cell in cells:
        deployment, point = cell.configuration.deployment, cell.configuration.load_point
        needs, has = cell.vram.required_bytes_per_device / GIB, cell.vram.available_bytes_per_device / GIB
        verdict = f"no - {cell.rejection.code}: {cell.rejection.detail}" if cell.rejection else "yes"
        rows.append(
            (
                deployment.hardware_id,
                f"{deployment.framework} {deployment.framework_version}",
                deployment.model_version.quantization,
                point.workload.name,
                point.concurrency,
                f"{needs:.1f} / {has:.1f}",
                verdict,
            )
        )
    columns = ("Hardware", "Engine", "Quantization", "Workload", "Concurrency", "GiB per device: needed / available", "Runs")
    console.print_table(f"{facts.name}: {len(cells):,} of {selected:,} configurations", columns, rows)
    if len(cells) < selected:
        console.note(
            f"{selected - len(cells):,} more: --limit 0 lists all; --hardware, --framework, ... choose; --csv and --json have all columns"
        )


def _record(cell: Cell, keys: Mapping[str, str]) -> dict[str, Any]:
    configuration = cell.configuration
    deployment, point = configuration.deployment, configuration.load_point
    return {
        "config_id": configuration.config_id,
        "model_id": deployment.model_version.model_id,
        "quantization": deployment.model_version.quantization,
        "framework": deployment.framework,
        "framework_version": deployment.framework_version,
        "hardware_id": deployment.hardware_id,
        "tensor_parallel": deployment.tensor_parallel,
        "workload": point.workload.name,
        "input_tokens": point.workload.input_tokens,
        "output_tokens": point.workload.output_tokens,
        "concurrency": point.concurrency,
        "feasible": cell.feasible,
        "rejection_code": cell.rejection.code if cell.rejection else None,
        "rejection_detail": cell.rejection.detail if cell.rejection else None,
        "partition_key": keys.get(configuration.config_id),
        "vram_required_bytes_per_device": cell.vram.required_bytes_per_device,
        "vram_available_bytes_per_device": cell.vram.available_bytes_per_device,
        "vram_quick_estimate_bytes": cell.vram_quick_estimate_bytes,
    }
