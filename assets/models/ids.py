"""How a hub id becomes a model id: `Org/Name` -> `org--name`."""

from __future__ import annotations

import re

from assets.models.errors import UnknownModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_IN_SLUG = re.compile(r"[^a-z0-9.-]")


def is_hub_id(text: str) -> bool:
    """Whether `text` has the shape `organisation/name`."""
    return _HUB_ID.fullmatch(text) is not None


def model_slug(hub_id: str) -> str:
    """The model id of a hub id: lower case, `/` becomes `--`, anything else than `[a-z0-9.-]` becomes `-`.

    Raises:
        UnknownModelError: the text is no hub id.
    """
    if not is_hub_id(hub_id):
        raise UnknownModelError(f"{hub_id!r} is no Hugging Face id: write it as organisation/name, for example Qwen/Qwen3-0.6B")
    return _NOT_IN_SLUG.sub("-", hub_id.lower().replace("/", "--"))
