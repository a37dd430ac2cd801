"""What operators and their machines ask: alive, ready, metrics."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.deps import Services, ServicesDep
from api.errors import ApiError
from api.schemas.catalog import Liveness, Part, Readiness

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def alive() -> Liveness:
    """The process is alive; says nothing about what it depends on."""
    return Liveness()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "A part that is required is not there."}})
def ready(services: ServicesDep, response: Response) -> Readiness:
    """Whether recommendations can be answered: 200 when every required part is there, 503 otherwise."""
    parts = {"database": _database(services), "marts": _marts(services), "cache": _cache(services)}
    readiness = Readiness(ready=all(part.ok for part in parts.values() if part.required), parts=parts)
    if not readiness.ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return readiness


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(services: ServicesDep) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _database(services: Services) -> Part:
    try:
        version = services.repository.catalog_version()
    except ApiError as error:
        return Part(ok=False, required=True, detail=str(error))
    return Part(ok=True, required=True, detail=f"catalog version {version.number}")


def _marts(services: Services) -> Part:
    try:
        missing = services.repository.missing_marts()
    except ApiError as error:
        return Part(ok=False, required=True, detail=str(error))
    if missing:
        return Part(
            ok=False, required=True, detail=f"missing {', '.join(missing)}: run ./dyno demo, or materialize the rankings in Dagster"
        )
    return Part(ok=True, required=True, detail="all there")


def _cache(services: Services) -> Part:
    if not services.cache.configured:
        return Part(ok=True, required=False, detail="not configured (DYNO_REDIS_URL): every recommendation is computed")
    if services.cache.ping():
        return Part(ok=True, required=False, detail="answers")
    return Part(ok=False, required=False, detail="does not answer: recommendations are slower, not different")
