"""Validation errors in words: where, what, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from api.schemas.problem import ProblemItem
from api.schemas.request import RecommendRequest

MAX_ERRORS = 20

_FIXES = {
    "missing": "add it",
    "json_invalid": "send a JSON object; check quotes, commas and brackets",
    "model_attributes_type": "send a JSON object, with the header content-type: application/json",
    "model_type": "send a JSON object",
    "dict_type": "send a JSON object",
    "list_type": "send a list",
    "greater_than": "give a number above {gt}",
    "greater_than_equal": "give a number of {ge} or more",
    "less_than_equal": "give a number of {le} or less",
    "finite_number": "give a finite number",
    "float_type": "give a number, without quotes",
    "float_parsing": "give a number",
    "int_type": "give a whole number, without quotes",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "string_type": "give a text, in quotes",
    "string_too_short": "give at least {min_length} character",
    "string_too_long": "give at most {max_length} characters",
    "string_pattern_mismatch": "leave out control characters",
    "string_unicode": "send valid Unicode text",
    "too_short": "name at least {min_length}, or leave the list out",
    "too_long": "name at most {max_length}",
    "literal_error": "choose {expected}",
}


def explain(errors: Sequence[Mapping[str, Any]]) -> list[ProblemItem]:
    """FastAPI's validation errors as items of a problem document. What was sent is never echoed, except the names of its fields."""
    items = [_item(error) for error in errors[:MAX_ERRORS]]
    if len(errors) > MAX_ERRORS:
        items.append(ProblemItem(location="body", detail=f"{len(errors) - MAX_ERRORS} more errors", fix="correct the first ones"))
    return items


def _item(error: Mapping[str, Any]) -> ProblemItem:
    loc: tuple[str | int, ...] = tuple(error["loc"])
    # a JSON syntax error is located by a character position
    location = ".".join(str(part)[:100] for part in (loc[:1] if error["type"] == "json_invalid" else loc))
    detail = str(error["msg"]).removeprefix("Value error, ")
    detail = detail[:1].lower() + detail[1:]
    if error["type"] == "json_invalid":
        detail = f"this is not JSON: {error['ctx']['error']} at character {loc[-1]}"
    if error["type"] == "extra_forbidden":
        return ProblemItem(location=location, detail="there is no such field", fix=_nearest_fields(loc))
    fix = _FIXES.get(error["type"], "correct the value; the schema is at /docs")
    return ProblemItem(location=location, detail=detail, fix=fix.format_map(_Context(_shown(error.get("ctx") or {}))))


def _shown(context: Mapping[str, Any]) -> dict[str, Any]:
    """Limits without a needless `.0`."""
    return {name: f"{value:.10g}" if isinstance(value, float) else value for name, value in context.items()}


class _Context(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "the allowed value"


def _nearest_fields(loc: Sequence[str | int]) -> str:
    fields = sorted(_fields_at(loc[1:-1]))
    near = difflib.get_close_matches(str(loc[-1]), fields, n=1)
    if near:
        return f"write '{near[0]}', or remove it"
    return f"remove it; the fields here are {', '.join(fields)}"


def _fields_at(path: Sequence[str | int]) -> list[str]:
    """The names of the fields of the part of a recommend request at a path."""
    part: type[BaseModel] = RecommendRequest
    for name in path:
        annotation = part.model_fields[str(name)].annotation
        nested = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        part = nested[0]
    return list(part.model_fields)
