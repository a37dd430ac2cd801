"""`./dyno demo`: the product's whole flow, once, on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import httpx2
import typer

from assets.models.ids import is_hub_id, model_slug
from assets.models.local.build import LOCAL_MODELS
from assets.models.registry import find_model
from orchestration import console
from orchestration.local import state
from orchestration.local.data import data_services
from orchestration.local.environment import applied, process_environment
from orchestration.local.prepare import prepare_all
from orchestration.local.processes import owner_mark
from orchestration.local.services import service_api
from orchestration.recommendations import render_recommendation
from orchestration.settings import Settings, load_settings

if TYPE_CHECKING:
    from assets.benchmark.job import Protocol
    from assets.catalog.queries import MeasuredPoint

USE_CASE = "chatbot"
# Small enough for a CPU: what the demo measures, at one request a second, with bounds that a patient reader accepts.
REQUEST = {
    "use_case": USE_CASE,
    "load": {"rps": 1.0, "input_tokens": 96, "output_tokens": 32},
    "sla": {"ttft_p90_ms": 2000, "tpot_p90_ms": 100},
    "top": 4,
}
ASKED = "Asked: what serves a chatbot at 1 request/s, 96 tokens in and 32 out, with a TTFT p90 within 2 s and a TPOT p90 within 100 ms?"
HTTP_TIMEOUT_S = 60.0


def demo(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="ORG/NAME", help="Measure this model of the Hugging Face hub instead of the two that Dyno builds."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output; progress stays on standard error.")
    ] = False,
) -> None:
    """From nothing to a recommendation, with real parts, on this machine.

    Builds two small Llama-shaped models (random weights, real arithmetic), launches llama.cpp on each in two quantizations, measures five
    load levels, stores everything in PostgreSQL, ranks it with dbt and asks the API for a recommendation. Takes about three minutes; the
    second time it measures nothing that is already there. The demo takes 20 requests a load point, 32 at 16
    streams: quick, with wide intervals.

    Examples:

      ./dyno demo

      ./dyno demo --json > demo.json

      ./dyno demo --model Qwen/Qwen3-0.6B                a model of the hub, in the formats that llama.cpp reads

      DYNO_HUB_ENDPOINT=http://127.0.0.1:9000 ./dyno demo --model acme/tiny-llama
    """
    settings = load_settings()
    models = _models(model)
    begun = time.monotonic()
    with _services(settings) as environment:
        from assets.catalog.repository import Catalog  # noqa: PLC0415  # these take seconds to import, which --help must not pay
        from orchestration.demo_flow import PROTOCOL, DemoFlow  # noqa: PLC0415

        catalog = Catalog(environment["DYNO_DATABASE_URL"])
        try:
            flow = DemoFlow(settings, catalog)
            flow.register(models)
            batches = flow.batches(models)
            added = flow.measure(batches)
            flow.rank()
            measured = flow.measured(batches)
        finally:
            catalog.close()
        with (
            service_api(settings, environment) as api_url,
            httpx2.Client(base_url=api_url, timeout=HTTP_TIMEOUT_S, trust_env=False) as client,
        ):
            rankings = _get(client, "/api/v1/rankings", {"use_case": USE_CASE})
            recommendation = _post(client, "/api/v1/recommend", REQUEST)
    elapsed_s = time.monotonic() - begun
    if as_json:
        console.print_json(
            {
                "protocol": asdict(PROTOCOL),
                "measured_now": added,
                "measured": [asdict(point) for point in measured],
                "rankings": rankings,
                "recommendation": recommendation,
                "elapsed_s": round(elapsed_s, 1),
            }
        )
        return
    _print_measured(PROTOCOL, measured, added)
    _print_rankings(rankings)
    console.out.print()
    console.out.print(ASKED, soft_wrap=True)
    console.out.print(render_recommendation(recommendation))
    _print_next(settings, elapsed_s)


def _models(name: str | None) -> dict[str, str | None]:
    """Model id -> hub id of what to measure: the two local models, or the one that is named. Raises UnknownModelError."""
    if name is None:
        return dict.fromkeys(LOCAL_MODELS)
    if name in LOCAL_MODELS:
        return {name: None}
    hub_id = name if is_hub_id(name) else find_model(name).hub_id
    return {} if hub_id is None else {model_slug(hub_id): hub_id}


@contextmanager
def _services(settings: Settings) -> Iterator[Mapping[str, str]]:
    running = settings.state_dir.is_dir() and state.read_record(settings.state_dir) is not None
    console.note("using the PostgreSQL and Valkey that run already" if running else "starting PostgreSQL and Valkey")
    with data_services(settings) as endpoints:
        environment = process_environment(settings, endpoints, base=os.environ, owner=owner_mark())
        with applied(environment):
            with console.err.status("preparing the catalog, Dagster's instance and dbt"):
                prepare_all(settings, endpoints)
            console.done("PostgreSQL, Valkey, the catalog and dbt are ready")
            yield environment


def _get(client: httpx2.Client, path: str, parameters: Mapping[str, str]) -> Any:
    response = client.get(path, params=dict(parameters))
    response.raise_for_status()
    return response.json()


def _post(client: httpx2.Client, path: str, body: Mapping[str, Any]) -> Any:
    response = client.post(path, json=dict(body))
    response.raise_for_status()
    return response.json()


def _print_measured(protocol: Protocol, measured: Sequence[MeasuredPoint], added: int) -> None:
    rows = [
        (
            row.model_id,
            row.quantization,
            row.concurrency,
            row.requests_completed,
            row.requests_failed,
            _rounded(row.ttft_p50_ms),
            _rounded(row.ttft_p90_ms),
            _rounded(row.tpot_p50_ms),
            _rounded(row.e2e_p90_ms),
            _interval(row.intervals.get("e2e_p90_ms")),
            _rounded(row.output_tokens_per_s),
        )
        for row in measured
    ]
    columns = (
        *("model", "quantization", "concurrency", "requests", "failed", "TTFT p50 ms", "TTFT p90 ms", "TPOT p50 ms"),
        *("latency p90 ms", "95 % interval", "output tokens/s"),
    )
    console.print_table("Measured on this machine: chat_short, 96 tokens in, 32 out, llama.cpp on the CPU", columns, rows)
    console.out.print(
        f"{len(measured)} load points under the `{protocol.name}` protocol ({protocol.description}); {added} measured now, "
        f"{len(measured) - added} were there. Every token came out of an engine process. Intervals are block bootstraps over "
        "requests in the order of their starts: they are wide for so few requests, and say nothing of another day (docs/metrics.md)."
    )


def _print_rankings(rankings: Mapping[str, Any]) -> None:
    rows = [
        (
            entry["score_rank"],
            entry["model_id"],
            entry["quantization"],
            entry["framework"],
            entry["hardware_id"],
            entry["concurrency"],
            f"{entry['score']:.3f}",
        )
        for entry in rankings["items"]
    ]
    console.out.print()
    console.print_table(
        f"Ranking for {USE_CASE}: each deployment at its best load point that meets the use case's default SLA",
        ("rank", "model", "quantization", "engine", "hardware", "concurrency", "TOPSIS score"),
        rows,
    )
    if not rows:
        console.out.print(
            "On this machine no deployment meets the default SLA of the use case (see ./dyno recommend --help to ask with your own)."
        )


def _print_next(settings: Settings, elapsed_s: float) -> None:
    console.out.print()
    console.out.print(f"Done in {elapsed_s:.0f} s. Everything is in {settings.state_dir}. Where to look next:", highlight=False)
    console.out.print("  ./dyno up                    the Dagster UI with these runs, the API, the dbt docs")
    console.out.print("  ./dyno recommend --help      ask with your own load, bounds and weights")
    console.out.print("  ./dyno matrix llama-3.1-8b   what would be measured on GPUs, and what cannot run and why")
    console.out.print("  ./dyno bench --help          measure any OpenAI-compatible server")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _interval(bounds: Sequence[float] | None) -> str | None:
    return None if bounds is None else f"{bounds[0]:.0f} to {bounds[1]:.0f}"
