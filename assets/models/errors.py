"""Errors of this stage that a person can act on. The message says what is wrong and what to do."""

from __future__ import annotations


class ModelsError(Exception):
    """Base of all errors of this stage."""


class UnknownModelError(ModelsError):
    """No registered, local or remembered model has this name."""


class HubUnreachableError(ModelsError):
    """The hub does not answer, or answers with a server error; trying again later may help."""


class ModelNotFoundError(ModelsError):
    """The hub answers, and it has no such model (or hides it from us)."""


class GatedModelError(ModelsError):
    """The model's files need an accepted licence and a token."""


class InvalidModelError(ModelsError):
    """The model's files lack something that Dyno needs, or describe something that it cannot read."""


class LicenceNotAllowedError(ModelsError):
    """The model's licence is not among those that the settings allow."""


class MissingArtifactError(ModelsError):
    """The files of a model version have not been made or fetched yet."""


class CorruptArtifactError(ModelsError):
    """A file on disk differs from its manifest. `problem` is the message without the advice."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}: materialize the `model` asset again, or run `./dyno demo`: damaged files are made anew")
        self.problem = problem


class ArtifactWriteError(ModelsError):
    """A model's files cannot be written: disk full, read-only, no permission."""
