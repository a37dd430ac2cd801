"""Engines that are installed in a Python environment of their own: their versions of torch and of everything else need not be Dyno's."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.protocol import Launch, UnknownEngineError

SETTING = "DYNO_ENGINE_ENVIRONMENTS"
# What says where Python looks for modules: of this process, not of an engine's own environment.
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def environment_of(folder: str | Path | None, engine: str) -> Path | None:
    """The environment of an engine in the folder that has one for each; None where there is none."""
    if folder is None:
        return None
    environment = Path(folder) / engine
    return environment if environment.is_dir() else None


def in_environment(engine: str, launch: Launch, command: Sequence[str]) -> list[str]:
    """`command` with its program taken from the launch's environment. Raises UnknownEngineError where it is not there."""
    program = _environment(engine, launch.environment) / "bin" / Path(command[0]).name
    if not program.is_file():
        raise UnknownEngineError(f"{engine} is not installed in {launch.environment}: there is no {program}")
    return [str(program), *command[1:]]


def installed_version(engine: str, distribution: str, environment: Path | None) -> str:
    """The version of the engine's package in its environment. Raises UnknownEngineError where it is not installed."""
    folder = _environment(engine, environment)
    found = importlib.metadata.distributions(name=distribution, path=[str(path) for path in folder.glob("lib/python3*/site-packages")])
    for package in found:
        return package.version
    raise UnknownEngineError(f"{engine} is not installed in {folder}: it has no package {distribution!r}")


def process_environment(environment: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what points to its own Python, and with the engine's programs first."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
    path = os.pathsep.join(filter(None, (str(environment / "bin"), inherited.get("PATH"))))
    return {**inherited, "PATH": path, "VIRTUAL_ENV": str(environment), **variables}


def _environment(engine: str, environment: Path | None) -> Path:
    if environment is None:
        raise UnknownEngineError(
            f"{engine} runs in a Python environment of its own, which this machine does not have: install it into FOLDER/{engine} and set "
            f"{SETTING}=FOLDER"
        )
    return environment
