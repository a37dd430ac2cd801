"""`./dyno recommend`: ask the API, the running one or one in this process."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from orchestration import console
from orchestration.local import state
from orchestration.local.data import data_services
from orchestration.local.environment import Endpoints
from orchestration.recommendations import render_recommendation
from orchestration.settings import Settings, load_settings

PATH = "/api/v1/recommend"
TIMEOUT_S = 60.0
JSON_BODY = {"content-type": "application/json"}
DEFAULT_USE_CASE = "chatbot"

# where in the request an option's value goes; its name is also how an error about that place is reported
OPTIONS: Mapping[str, str] = {
    "use_case": "--use-case",
    "load.rps": "--rps",
    "load.input_tokens": "--input-tokens",
    "load.output_tokens": "--output-tokens",
    "sla.ttft_p90_ms": "--ttft-p90-ms",
    "sla.tpot_p90_ms": "--tpot-p90-ms",
    "sla.latency_p90_ms": "--latency-p90-ms",
    "sla.min_accuracy": "--min-accuracy",
    "constraints.gpus": "--gpu",
    "constraints.max_gpus": "--max-gpus",
    "constraints.max_cost_per_hour_usd": "--max-cost-per-hour-usd",
    "constraints.frameworks": "--framework",
    "constraints.quantizations": "--quantization",
    "constraints.models": "--model",
    "constraints.licences": "--licence",
    "constraints.capacity": "--capacity",
    "weights": "--weights",
    "method": "--method",
    "top": "--top",
}


class RecommendError(Exception):
    """The question cannot be answered; the message says why and what to do."""


def recommend(  # noqa: PLR0917  # one parameter an option; typer passes them by name
    use_case: Annotated[str | None, typer.Option(help="What the model is for. Default: chatbot.")] = None,
    rps: Annotated[float | None, typer.Option(help="Requests per second over all replicas. Default: the use case's.")] = None,
    input_tokens: Annotated[int | None, typer.Option(help="Mean tokens of a prompt; the closest measured lengths are compared.")] = None,
    output_tokens: Annotated[int | None, typer.Option(help="Mean tokens of an answer; the closest measured lengths are compared.")] = None,
    ttft_p90_ms: Annotated[float | None, typer.Option(help="Bound on the 90th percentile of the time to first token, ms.")] = None,
    tpot_p90_ms: Annotated[float | None, typer.Option(help="Bound on the 90th percentile of the time per output token, ms.")] = None,
    latency_p90_ms: Annotated[float | None, typer.Option(help="Bound on the 90th percentile of the end-to-end latency, ms.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Smallest accuracy, a share of 1.")] = None,
    max_cost_per_hour_usd: Annotated[float | None, typer.Option(help="Most that all replicas may cost together.")] = None,
    max_gpus: Annotated[int | None, typer.Option(help="Most GPUs over all replicas.")] = None,
    gpu: Annotated[list[str] | None, typer.Option(help="Allowed GPU type or hardware id, e.g. H100. May be given several times.")] = None,
    framework: Annotated[list[str] | None, typer.Option(help="Allowed engine, e.g. vllm. May be given several times.")] = None,
    quantization: Annotated[list[str] | None, typer.Option(help="Allowed quantization, e.g. fp8. May be given several times.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Allowed model. May be given several times.")] = None,
    licence: Annotated[list[str] | None, typer.Option(help="Allowed licence, e.g. apache-2.0. May be given several times.")] = None,
    capacity: Annotated[str | None, typer.Option(help="Which price counts: on_demand, spot or any.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Criteria that count, e.g. accuracy=0.3,cost=0.7. Of: accuracy, latency, throughput, cost, memory.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="topsis (all that is feasible) or pareto (only what nothing else beats).")] = None,
    top: Annotated[int | None, typer.Option(help="How many to show at most. Default: 10.")] = None,
    request: Annotated[
        str | None, typer.Option(metavar="FILE", help="The request as JSON, as the API takes it; - is standard input. Options come on top.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's answer: one JSON document on standard output.")] = False,
) -> None:
    """Recommend model, engine, quantization and hardware for a load, with the measurements that say so.

    Without bounds the use case's own apply; as soon as one is given, only the given ones count. When nothing is feasible, the answer
    says which bound would have to give, and by how much. Asks the API of ./dyno up when it runs, and answers by itself when it does not.

    Examples:

      ./dyno recommend --use-case chatbot --rps 30 --input-tokens 512 --latency-p90-ms 300

      ./dyno recommend --gpu H100 --gpu H200 --max-cost-per-hour-usd 60 --method pareto

      ./dyno recommend --weights cost=0.7,latency=0.3 --top 3 --json
    """
    document = _from_file(request) if request is not None else {}
    values: dict[str, Any] = {
        "use_case": use_case,
        "load.rps": rps,
        "load.input_tokens": input_tokens,
        "load.output_tokens": output_tokens,
        "sla.ttft_p90_ms": ttft_p90_ms,
        "sla.tpot_p90_ms": tpot_p90_ms,
        "sla.latency_p90_ms": latency_p90_ms,
        "sla.min_accuracy": min_accuracy,
        "constraints.gpus": gpu,
        "constraints.max_gpus": max_gpus,
        "constraints.max_cost_per_hour_usd": max_cost_per_hour_usd,
        "constraints.frameworks": framework,
        "constraints.quantizations": quantization,
        "constraints.models": model,
        "constraints.licences": licence,
        "constraints.capacity": capacity,
        "weights": None if weights is None else parse_weights(weights),
        "method": method,
        "top": top,
    }
    lay_over(document, values)
    document.setdefault("use_case", DEFAULT_USE_CASE)
    status, answer = ask(load_settings(), document)
    if as_json:
        console.print_json(answer)
    if status != HTTPStatus.OK:
        raise RecommendError(explain(answer))
    if not as_json:
        console.out.print(render_recommendation(answer))


def ask(settings: Settings, document: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The API's status and answer (a problem document unless the status is 200).

    From the API of a running `./dyno up`; otherwise from the same application in this process, on data services that are started for
    the moment.

    Raises:
        RecommendError: the running API does not answer as an API should.
        The errors of `data_services`.
    """
    # NaN and infinity pass here, and are refused in the API's words
    body = json.dumps(document)
    api_url = _running_api(settings)
    if api_url is not None:
        try:
            # a loopback address: never through a proxy
            response = httpx2.post(api_url + PATH, content=body, headers=JSON_BODY, timeout=TIMEOUT_S, trust_env=False)
        except httpx2.TransportError:
            console.warn("the API of ./dyno up does not answer; answering without it")
        else:
            return _decoded(response)
    with data_services(settings) as endpoints:
        return _decoded(asyncio.run(_in_process(endpoints, body)))


def explain(problem: Mapping[str, Any]) -> str:
    """A problem document in one message, with the options' names where the API names fields."""
    lines = []
    for item in problem.get("errors", []):
        place = str(item["location"]).removeprefix("body.")
        section, _, name = place.partition(".")
        # weights.cost is given by --weights
        inside = f"{OPTIONS[section]} {name}" if section in OPTIONS else place
        lines.append(f"{OPTIONS.get(place, inside)}: {item['detail']}; {item['fix']}")
    return "\n".join(lines) or str(problem.get("detail", "the API gave no reason"))


def parse_weights(text: str) -> dict[str, float]:
    """`accuracy=0.3,cost=0.7` as a mapping. Raises RecommendError when it is not of that form."""
    found: dict[str, float] = {}
    for word in text.split(","):
        name, separator, number = word.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            separator = ""
        if not separator or not name.strip():
            raise RecommendError(
                f"--weights: '{word.strip()}' is not of the form criterion=number; write for example accuracy=0.3,cost=0.7"
            )
    return found


def lay_over(document: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Put what was given as options into the request at `section.field`; None was not given."""
    for place, value in values.items():
        if value is None:
            continue
        section, _, name = place.partition(".")
        if not name:
            document[section] = value
            continue
        part = document.setdefault(section, {})
        if not isinstance(part, dict):
            raise RecommendError(f"{section}: the request file has no JSON object there; correct it or leave out {OPTIONS[place]}")
        part[name] = value


def _running_api(settings: Settings) -> str | None:
    if state.read_record(settings.state_dir) is None:
        return None
    endpoints = state.read_endpoints(settings.state_dir)
    return None if endpoints is None or endpoints.api_url is None else endpoints.api_url.rstrip("/")


async def _in_process(endpoints: Endpoints, body: str) -> httpx2.Response:
    from api.main import create_app  # noqa: PLC0415  # the web framework takes a while, and is not needed when the API runs
    from api.settings import load_settings as load_api_settings  # noqa: PLC0415

    # what the client is told is printed; the log would say it twice
    logging.getLogger("dyno.api").setLevel(logging.ERROR)
    app = create_app(load_api_settings(database_url=endpoints.database_url, redis_url=endpoints.redis_url))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://in-process") as client:
        return await client.post(PATH, content=body, headers=JSON_BODY)


def _decoded(response: httpx2.Response) -> tuple[int, dict[str, Any]]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise RecommendError(f"what answers at {response.url} is not Dyno's API (status {response.status_code}); see ./dyno status")
    return response.status_code, answer


def _from_file(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise RecommendError(f"--request: {name} cannot be read ({error.strerror}); give a JSON file, or - for standard input") from error
    except ValueError as error:
        raise RecommendError(f"--request: {name} is not JSON ({error}); see docs/api.md for examples") from error
    if not isinstance(document, dict):
        raise RecommendError(f"--request: {name} holds no JSON object; see docs/api.md for examples")
    return document
