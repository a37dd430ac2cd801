"""Facts of a model on the hub: from its `config.json`, or from the head of a GGUF file where there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from assets.models.architecture import facts_from_config
from assets.models.errors import InvalidModelError
from assets.models.facts import ModelFacts
from assets.models.gguf_header import facts_from_gguf, read_gguf_header
from assets.models.hub import Hub, HubFile, HubModel
from assets.models.ids import model_slug

CONFIG_NAME = "config.json"
WEIGHT_SUFFIXES = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Described:
    """A model of the hub with its facts, and its `config.json` where it has one."""

    model: HubModel
    facts: ModelFacts
    config: Mapping[str, Any] | None


def describe(hub: Hub, hub_id: str) -> Described:
    """Metadata and facts of a model at its newest revision.

    Raises:
        ModelNotFoundError, GatedModelError, HubUnreachableError: from the hub.
        InvalidModelError: there are no weights that an engine here reads, or the architecture is unknown.
    """
    model = hub.model(hub_id)
    formats = tuple(suffix.removeprefix(".") for suffix in WEIGHT_SUFFIXES if model.names(suffix))
    if not formats:
        raise InvalidModelError(f"{model.hub_id} has neither safetensors nor GGUF files: the engines here read nothing else")
    about: dict[str, Any] = {
        "model_id": model_slug(model.hub_id),
        "name": model.hub_id.partition("/")[2],
        "hub_id": model.hub_id,
        "revision": content_revision(model),
        "licence": model.licence,
        "source": f"{hub.endpoint}/{model.hub_id} at {model.revision}",
    }
    if model.has(CONFIG_NAME):
        config = hub.read_json(model, CONFIG_NAME)
        return Described(model, facts_from_config(config, formats=formats, **about), config)
    gguf = min((model.file(name) for name in model.names(".gguf")), key=lambda file: file.size_bytes or 0, default=None)
    if gguf is None:
        raise InvalidModelError(f"{model.hub_id} has no {CONFIG_NAME}, so Dyno cannot tell what its weights are")
    header = read_gguf_header(lambda start, size: hub.read(model, gguf.name, start, size), gguf.name)
    return Described(model, replace(facts_from_gguf(header, **about), formats=formats), None)


def content_revision(model: HubModel) -> str:
    """SHA-256 over the names and hashes of the weight files, so that a new text in the README is no new version; else the commit."""
    files = weight_files(model)
    if any(file.sha256 is None for file in files):
        return model.revision
    document = json.dumps(sorted((file.name, file.sha256) for file in files))
    return hashlib.sha256(document.encode()).hexdigest()


def weight_files(model: HubModel) -> list[HubFile]:
    """The files that hold weights."""
    return [file for file in model.files if file.name.lower().endswith(WEIGHT_SUFFIXES)]
