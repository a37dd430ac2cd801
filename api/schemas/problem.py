"""Problem documents, RFC 9457."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ProblemItem(BaseModel):
    """One thing that is wrong with a request."""

    location: str = Field(description="Where it is wrong, for example `body.sla.ttft_p90_ms` or `query.limit`.")
    detail: str = Field(description="What is wrong.")
    fix: str = Field(description="What to do about it.")


class Problem(BaseModel):
    """What went wrong, for people and for programs."""

    type: str = Field(description="Stable name of the kind of problem.", examples=["urn:dyno:problem:invalid-request"])
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong this time, and what to do.")
    errors: list[ProblemItem] = Field(default_factory=list, description="Each thing that is wrong with the request.")
