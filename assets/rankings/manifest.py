"""dbt's manifest as the plain facts that the asset graph is made of.

Read here rather than through `dagster_dbt`, whose import takes longer than all the rest of the code location together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.rankings.errors import RankingsError

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a model. `data_type` is None where no contract fixes it."""

    name: str
    data_type: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Model:
    """One dbt model. `upstream` are asset keys: of other models, and of the assets that write the sources it reads."""

    unique_id: str
    name: str
    key: Key
    description: str
    code: str
    checksum: str
    materialized: str
    columns: tuple[Column, ...]
    upstream: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One dbt data test or unit test, and the model that it is about.

    A test of a source belongs to the staging model that reads it. `blocking`: its failure stops the models downstream.
    """

    unique_id: str
    name: str
    model_key: Key
    description: str
    blocking: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """The project's models and checks, in the manifest's order."""

    models: tuple[Model, ...]
    checks: tuple[Check, ...]


def read_manifest(path: Path) -> Manifest:
    """Read the manifest that dbt wrote. Raises RankingsError when it is not one."""
    try:
        raw = json.loads(path.read_text())
        models = tuple(_model(node, raw) for node in raw["nodes"].values() if node["resource_type"] == "model")
        keys = {model.unique_id: model.key for model in models}
        tests = [node for node in raw["nodes"].values() if node["resource_type"] == "test"]
        checks = [_data_test(node, raw, keys) for node in tests] + [_unit_test(node, keys) for node in raw["unit_tests"].values()]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise RankingsError(
            f"{path} is not a manifest of the dbt project ({error}); delete it, it is made again on the next start"
        ) from error
    return Manifest(models, tuple(checks))


def _model(node: Mapping[str, Any], raw: Mapping[str, Any]) -> Model:
    return Model(
        unique_id=node["unique_id"],
        name=node["name"],
        key=(node["schema"], node["name"]),
        description=node["description"],
        code=node["raw_code"],
        checksum=node["checksum"]["checksum"],
        materialized=node["config"]["materialized"],
        columns=tuple(Column(c["name"], c["data_type"], c["description"]) for c in node["columns"].values()),
        upstream=tuple(dict.fromkeys(_upstream_key(parent, raw) for parent in node["depends_on"]["nodes"])),
    )


def _upstream_key(unique_id: str, raw: Mapping[str, Any]) -> Key:
    if unique_id in raw["sources"]:
        return tuple(raw["sources"][unique_id]["meta"]["dagster"]["asset_key"])
    node = raw["nodes"][unique_id]
    return (node["schema"], node["name"])


def _data_test(node: Mapping[str, Any], raw: Mapping[str, Any], keys: Mapping[str, Key]) -> Check:
    # dbt names the severities in either case
    blocking = node["config"]["severity"].lower() == "error"
    return Check(node["unique_id"], node["name"], _tested(node, raw, keys), node["description"] or _arguments(node), blocking)


def _arguments(node: Mapping[str, Any]) -> str:
    """What a generic test without a description of its own tests: its name and arguments."""
    metadata = node.get("test_metadata")
    if metadata is None:
        return ""
    arguments = {name: value for name, value in metadata["kwargs"].items() if name != "model"}
    return f"dbt's test `{metadata['name']}`: " + "; ".join(f"{name}: {value}" for name, value in arguments.items())


def _tested(node: Mapping[str, Any], raw: Mapping[str, Any], keys: Mapping[str, Key]) -> Key:
    """A generic test knows its model; a singular one names it in its meta; a test of a source goes to the first model that reads it."""
    if node.get("attached_node") in keys:
        return keys[node["attached_node"]]
    name = node["config"]["meta"].get("dagster", {}).get("ref", {}).get("name")
    if name is not None:
        return next(key for key in keys.values() if key[-1] == name)
    source = node["depends_on"]["nodes"][0] if node.get("attached_node") is None else node["attached_node"]
    return min(keys[child] for child in raw["child_map"][source] if child in keys)


def _unit_test(node: Mapping[str, Any], keys: Mapping[str, Key]) -> Check:
    model = next(key for key in keys.values() if key[-1] == node["model"])
    return Check(node["unique_id"], node["name"], model, node["description"] or "", True)
