"""Questions to a server outside of a measurement."""

from __future__ import annotations

import json

from assets.benchmark.load.decode import response_body
from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.exchange import Exchange
from assets.benchmark.load.http1 import MalformedResponseError
from assets.benchmark.load.load_loop import LoadLoop
from assets.benchmark.load.plan import LoadPlan, Turn

MAX_ANSWER_BYTES = 2**28


class NoAnswerError(Exception):
    """The server did not answer the question; the message says how it failed. `status` is that of an answer which is none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def get(endpoint: Endpoint, path: str, timeout_s: float) -> bytes:
    """The body of `GET path`. Raises NoAnswerError, EndpointError."""
    exchanges: list[Exchange] = []
    plan = LoadPlan([(Turn((b"",)),)], path, timeout_s, streams_start_s=[0.0], max_response_bytes=MAX_ANSWER_BYTES)
    loop = LoadLoop(endpoint, plan, exchanges.append)
    loop.connect()
    loop.run(0)
    [exchange] = exchanges
    if exchange.failure or exchange.status != 200:
        raise NoAnswerError(exchange.detail or f"HTTP {exchange.status}", None if exchange.failure else exchange.status)
    try:
        return response_body(exchange)
    except MalformedResponseError as error:
        raise NoAnswerError(str(error)) from error


def served_models(endpoint: Endpoint, timeout_s: float) -> list[str]:
    """The model names of `GET /v1/models`. Raises NoAnswerError, EndpointError."""
    try:
        return [str(entry["id"]) for entry in json.loads(get(endpoint, "/v1/models", timeout_s))["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise NoAnswerError("the server's list of models is not in OpenAI's form") from error
