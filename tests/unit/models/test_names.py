"""How a person's word for a model becomes one model: ids, aliases, what to do about a wrong one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.models.errors import UnknownModelError
from assets.models.ids import is_hub_id, model_slug
from assets.models.registry import find_model, find_model_id, known_model_ids, model_facts

PARTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(PARTS, PARTS)
def test_a_model_id_is_safe_as_a_folder_a_partition_and_a_part_of_a_url(organisation: str, name: str) -> None:
    """Whatever the hub allows in an id."""
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*--[a-z0-9][a-z0-9.-]*", model_slug(f"{organisation}/{name}"))


@pytest.mark.parametrize("text", ["llama", "/llama", "meta/", "a/b/c", "../etc", "meta llama/x", "méta/llama", "-a/b", "a/b\n", ""])
def test_what_is_no_hub_id_is_refused_with_an_example(text: str) -> None:
    """A model id becomes a folder's name, so nothing else than a hub id gets that far."""
    assert not is_hub_id(text)
    with pytest.raises(UnknownModelError, match="organisation/name"):
        model_slug(text)


def test_every_known_model_is_found_by_every_name_it_has() -> None:
    """By id and by hub id, in any case; the facts carry that id, and say where they come from."""
    for model_id in known_model_ids():
        facts = model_facts(model_id)
        names = [model_id, model_id.upper(), f" {model_id} ", *([facts.hub_id] if facts.hub_id else [])]
        assert {find_model_id(name) for name in names} == {model_id}
        assert find_model(model_id) == facts
        assert facts.model_id == model_id
        assert facts.source


def test_an_alias_finds_the_model_of_the_same_architecture() -> None:
    """The instruction-tuned variant has the facts of its base."""
    assert find_model("meta-llama/Llama-3.1-8B-Instruct").model_id == "llama-3.1-8b"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("llama-3.1-8", "did you mean llama-3.1-8b"),
        ("zzz", "known models: dyno-43m"),
        ("acme/private-7b", r"\./dyno demo --model acme/private-7b"),
    ],
)
def test_an_unknown_name_is_answered_with_what_to_try(name: str, advice: str) -> None:
    """A slip of the pen gets close matches, a hub id the command that fetches it."""
    with pytest.raises(UnknownModelError, match=advice):
        find_model(name)
