"""Questions to a server outside of a measurement."""

from __future__ import annotations

import json

from assets.benchmark.load.client import Endpoint, Slot
from assets.benchmark.load.closed_loop import run_until_stopped


class NoAnswerError(Exception):
    """The server did not answer the question; the message says how it failed."""


def served_models(endpoint: Endpoint, timeout_s: float) -> list[str]:
    """The model names of `GET /v1/models`. Raises NoAnswerError."""
    slot = Slot(endpoint)

    async def ask() -> tuple[str | None, int, bytes]:
        try:
            exchange = await slot.perform(0, endpoint.request("GET", "/v1/models"), timeout_s)
        finally:
            slot.close()
        return exchange.failure, exchange.status, b"".join(data for _, data in exchange.body)

    failure, status, body = run_until_stopped(ask, lambda: False)
    if failure is not None or status != 200:
        raise NoAnswerError(failure or f"HTTP {status}")
    try:
        return [str(entry["id"]) for entry in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise NoAnswerError("the server's list of models is not in OpenAI's form") from error
