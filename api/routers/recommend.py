"""The product's main question."""

from __future__ import annotations

from fastapi import APIRouter, Body
from fastapi.openapi.models import Example
from fastapi.responses import JSONResponse

from api.deps import ServicesDep
from api.routers.problems import problems
from api.schemas.request import EXAMPLE, EXAMPLE_CONSTRAINED, RecommendRequest
from api.schemas.response import RecommendResponse

router = APIRouter(prefix="/api/v1", tags=["recommendations"])

_EXAMPLES = {
    "chatbot": Example(summary="A chatbot: 30 requests/s, 512 tokens, 90 % of answers within 300 ms", value=EXAMPLE),
    "rag": Example(summary="RAG on Hopper GPUs with vLLM, at most 60 USD an hour, by Pareto front", value=EXAMPLE_CONSTRAINED),
}


@router.post("/recommend", response_model=RecommendResponse, responses=problems(422, 503))
def recommend(request: RecommendRequest = Body(openapi_examples=_EXAMPLES), *, services: ServicesDep) -> JSONResponse:  # noqa: B008
    """What to run, on what and for how much, with the measurements that say so. When nothing is feasible, what would have to give."""
    return JSONResponse(services.recommender.answer(request))
