"""The models whose facts ship with Dyno, and how a person's word for a model finds one of them."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from assets.models.architecture import facts_from_config
from assets.models.errors import UnknownModelError
from assets.models.facts import ModelFacts
from assets.models.ids import is_hub_id
from assets.models.local.build import LOCAL_MODELS, local_facts

DATA_PATH = Path(__file__).with_name("data") / "models.yaml"


@cache
def _entries() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = yaml.safe_load(DATA_PATH.read_text(encoding="utf-8"))
    return entries


@cache
def _names() -> dict[str, str]:
    """Lower-case name -> model id: ids, hub ids and aliases of shipped and local models."""
    names = {model_id: model_id for model_id in LOCAL_MODELS}
    for model_id, entry in _entries().items():
        for name in (model_id, entry["hub_id"], *entry.get("aliases", ())):
            names[name.lower()] = model_id
    return names


def known_model_ids() -> tuple[str, ...]:
    """Ids of all models that need no hub: local ones first, then those with shipped facts."""
    return (*LOCAL_MODELS, *_entries())


def find_model_id(name: str) -> str | None:
    """The id of the shipped or local model with this id, hub id or alias, whatever its case; None where there is none."""
    return _names().get(name.strip().lower())


def find_model(name: str) -> ModelFacts:
    """Facts of a shipped or local model, by id, hub id or alias, whatever its case. Needs no network.

    Raises:
        UnknownModelError: the message offers close matches, or says how a hub id is used.
    """
    model_id = find_model_id(name)
    if model_id is None:
        raise UnknownModelError(_unknown(name))
    return model_facts(model_id)


@cache
def model_facts(model_id: str) -> ModelFacts:
    """Facts of a shipped or local model by its exact id. Raises UnknownModelError."""
    if model_id in LOCAL_MODELS:
        return local_facts(model_id)
    entry = _entries().get(model_id)
    if entry is None:
        raise UnknownModelError(_unknown(model_id))
    return facts_from_config(
        entry["config"],
        model_id=model_id,
        name=entry["name"],
        hub_id=entry["hub_id"],
        licence=entry["licence"],
        source=entry["source"],
    )


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.strip().lower(), _names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known models: {', '.join(known_model_ids())}."
    if is_hub_id(name):
        return f"{name!r} is not among the models that ship with Dyno: {hint} For a model of the hub, run `./dyno demo --model {name}`"
    return f"unknown model {name!r}: {hint} A model of the Hugging Face hub is written as organisation/name"
