"""The Hugging Face hub, or a mirror of it, through `huggingface_hub`: what a model is, what changed, single files.

Every request has a time limit, and what goes wrong becomes one of the errors of `assets.models.errors`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import default_client_factory, get_session, hf_raise_for_status, set_client_factory

from assets.models.errors import GatedModelError, HubUnreachableError, InvalidModelError, LicenceNotAllowedError, ModelNotFoundError
from assets.models.hub_cursor import HubCursor
from assets.models.manifest import file_sha256
from assets.models.progress import Progress, no_progress

REQUEST_TIMEOUT_S = 20.0
_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5
_PAGE_LIMIT = 1000  # models looked at per author or tag and call; the newest come first
_SERVER_ERRORS = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository. `sha256` is known for large files only (kept in LFS or Xet)."""

    name: str
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class HubModel:
    """What the hub says about a model at one revision. `safetensors_params` is the hub's own count of the stored numbers."""

    hub_id: str
    revision: str
    author: str | None
    licence: str | None
    tags: tuple[str, ...]
    gated: bool
    last_modified: datetime | None
    files: tuple[HubFile, ...]
    safetensors_params: int | None = None

    def names(self, suffix: str) -> list[str]:
        """Names of the files that end in `suffix`, in order."""
        return sorted(file.name for file in self.files if file.name.lower().endswith(suffix))

    def has(self, name: str) -> bool:
        """Whether the repository has this file."""
        return any(file.name == name for file in self.files)

    def file(self, name: str) -> HubFile:
        """The file of this name. Raises InvalidModelError."""
        for file in self.files:
            if file.name == name:
                return file
        raise InvalidModelError(f"{self.hub_id} has no file {name}")


@dataclass(frozen=True)
class Hub:
    """A hub at `endpoint`. The token is sent there and nowhere else, and is never printed."""

    endpoint: str
    token: str | None = field(default=None, repr=False)

    def model(self, hub_id: str, revision: str | None = None) -> HubModel:
        """Metadata of a model at a revision (its newest without one), with sizes and hashes of its files.

        Raises:
            ModelNotFoundError, GatedModelError, HubUnreachableError, InvalidModelError
        """
        info = self._retrying(
            hub_id, lambda: self._api().model_info(hub_id, revision=revision, files_metadata=True, timeout=REQUEST_TIMEOUT_S)
        )
        return _hub_model(info)

    def changed_models(self, authors: Collection[str], tags: Collection[str], cursor: HubCursor | None = None) -> list[HubModel]:
        """Models of the followed authors and of the followed tags that are new or changed since the cursor, oldest first.

        Without a cursor: the newest ones, up to 1,000 for each author and tag. Files come without sizes and hashes: ask `model` for them.

        Raises:
            HubUnreachableError, GatedModelError: the latter where the hub refuses the token.
        """
        queries: list[dict[str, Any]] = [{"author": author} for author in authors] + [{"filter": [tag]} for tag in tags]
        found: dict[str, HubModel] = {}
        if queries:
            self._reach()
        for query in queries:
            with self._typed_errors("the list of models"):
                for info in self._api().list_models(sort="last_modified", full=True, limit=_PAGE_LIMIT, **query):
                    model = _hub_model(info)
                    if cursor is not None and cursor.is_past(model.last_modified):
                        break
                    if cursor is None or cursor.is_new(model.hub_id, model.last_modified):
                        found[model.hub_id] = model
        return sorted(found.values(), key=lambda model: (model.last_modified.isoformat() if model.last_modified else "", model.hub_id))

    def read_json(self, model: HubModel, name: str) -> dict[str, Any]:
        """A JSON file of the repository. Raises InvalidModelError and the errors of `model`."""
        try:
            document = json.loads(self.read(model, name))
        except ValueError as error:
            raise InvalidModelError(f"{name} of {model.hub_id} is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidModelError(f"{name} of {model.hub_id} is no JSON object")
        return document

    def read(self, model: HubModel, name: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        """A file of the repository, or `size_bytes` of it from `start` on (fewer at its end). Raises the errors of `model`."""
        model.file(name)
        headers = build_hf_headers(token=self.token or False)
        if size_bytes is not None:
            headers["Range"] = f"bytes={start}-{start + size_bytes - 1}"
        url = hf_hub_url(model.hub_id, name, revision=model.revision, endpoint=self.endpoint)

        def get() -> bytes:
            response = get_session().get(url, headers=headers, timeout=REQUEST_TIMEOUT_S)
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return b""
            hf_raise_for_status(response)
            return bytes(response.content)

        return self._retrying(model.hub_id, get)

    def download(self, model: HubModel, name: str, folder: Path, progress: Progress = no_progress) -> Path:
        """Fetch one file into `folder`; what an interrupted download left there is continued, also by a later process.

        A whole file with the hub's SHA-256 is kept; small files, of which the hub gives none, are fetched anew. Not with
        `hf_hub_download`: that one throws away what it has when a download ends early.

        Raises:
            OSError: it cannot be written, and the errors of `model`.
        """
        file = model.file(name)
        target = _path_inside(folder, name)
        if file.sha256 is not None and target.is_file() and file_sha256(target) == file.sha256:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{(file.sha256 or model.revision)[:16]}.part")
        if file.size_bytes is None or _size_bytes(part) > file.size_bytes:
            part.unlink(missing_ok=True)
        while file.size_bytes is None or not part.exists() or _size_bytes(part) < file.size_bytes:
            before_bytes = _size_bytes(part)
            try:
                self._retrying(model.hub_id, lambda: self._append(model, file, part, progress))
                break
            except HubUnreachableError:
                if _size_bytes(part) == before_bytes:
                    raise
        if file.size_bytes is not None and _size_bytes(part) != file.size_bytes:
            part.unlink()
            raise InvalidModelError(f"{name} of {model.hub_id} has not the size that the hub lists; it may have just changed: try again")
        part.replace(target)
        return target

    def download_checked(self, model: HubModel, name: str, folder: Path, progress: Progress = no_progress) -> Path:
        """`download`, and then hold the file against the hub's SHA-256 where it gives one; a file that differs is removed.

        Raises:
            InvalidModelError: it arrived damaged. And what `download` raises.
        """
        path, expected = self.download(model, name, folder, progress), model.file(name).sha256
        if expected is not None and file_sha256(path) != expected:
            path.unlink()
            raise InvalidModelError(f"{name} of {model.hub_id} arrived damaged (its SHA-256 is not the hub's): try again")
        return path

    def _append(self, model: HubModel, file: HubFile, part: Path, progress: Progress) -> None:
        """Fetch what `part` lacks."""
        done_bytes = _size_bytes(part)
        headers = {**build_hf_headers(token=self.token or False), "Range": f"bytes={done_bytes}-", "Accept-Encoding": "identity"}
        if done_bytes == 0:
            del headers["Range"]  # an empty file has no first byte
        url = hf_hub_url(model.hub_id, file.name, revision=model.revision, endpoint=self.endpoint)
        with get_session().stream("GET", url, headers=headers, timeout=REQUEST_TIMEOUT_S) as response:
            hf_raise_for_status(response)
            continued = response.status_code == HTTPStatus.PARTIAL_CONTENT
            done_bytes = done_bytes if continued else 0
            with part.open("ab" if continued else "wb") as stream:
                for piece in response.iter_bytes():
                    stream.write(piece)
                    done_bytes += len(piece)
                    progress(f"{model.hub_id} {file.name}", done_bytes, file.size_bytes or 0)

    def _api(self) -> HfApi:
        _limit_times()
        return HfApi(endpoint=self.endpoint, token=self.token or False)

    def _reach(self) -> None:
        """One quick request: `list_models` retries for half a minute before it says that nobody is there."""
        url = f"{self.endpoint}/api/models"

        def get() -> None:
            response = get_session().get(
                url, params={"limit": 1}, headers=build_hf_headers(token=self.token or False), timeout=REQUEST_TIMEOUT_S
            )
            hf_raise_for_status(response)

        self._retrying("the list of models", get)

    def _retrying(self, what: str, call: Callable[[], T]) -> T:
        pause_s = _FIRST_PAUSE_S
        for attempt in range(_ATTEMPTS):
            try:
                with self._typed_errors(what):
                    return call()
            except HubUnreachableError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(pause_s)
                pause_s *= 2
        raise AssertionError("unreachable: the last attempt returns or raises")

    @contextmanager
    def _typed_errors(self, what: str) -> Iterator[None]:
        _limit_times()
        try:
            yield
        except GatedRepoError as error:
            raise GatedModelError(self._gated(what)) from error
        except RepositoryNotFoundError as error:
            hint = "" if self.token else "; if it is private, set DYNO_HUB_TOKEN"
            raise ModelNotFoundError(f"{self.endpoint} has no model {what}: check the spelling (organisation/name){hint}") from error
        except (RevisionNotFoundError, RemoteEntryNotFoundError) as error:
            raise InvalidModelError(
                f"{what}: a file that the hub lists cannot be fetched; the model may have just changed: try again"
            ) from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                raise GatedModelError(self._refused(what, status)) from error
            if status is None or status in _SERVER_ERRORS:
                raise self._unreachable(f"it answers with status {status}") from error
            raise InvalidModelError(f"{what}: the hub answers with status {status}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        except OfflineModeIsEnabled as error:
            raise self._unreachable("HF_HUB_OFFLINE is set") from error
        except HFValidationError as error:
            raise ModelNotFoundError(f"{what!r} is no model of the hub: write it as organisation/name") from error
        except (json.JSONDecodeError, KeyError) as error:
            raise self._unreachable("its answer is not that of a hub") from error

    def _gated(self, what: str) -> str:
        if self.token:
            return f"{what} is gated and the token does not give access: accept its terms at {self.endpoint}/{what}, or use another token"
        return f"{what} is gated: accept its terms at {self.endpoint}/{what}, then set DYNO_HUB_TOKEN to a token that may read it"

    def _refused(self, what: str, status: int) -> str:
        advice = "it may be wrong or expired: check DYNO_HUB_TOKEN" if self.token else "set DYNO_HUB_TOKEN to a token that may read it"
        return f"the hub at {self.endpoint} refuses {what} {'with' if self.token else 'without'} a token (status {status}): {advice}"

    def _unreachable(self, reason: str) -> HubUnreachableError:
        first_line = reason.strip().splitlines()[0] if reason.strip() else "no answer"
        return HubUnreachableError(
            f"the hub at {self.endpoint} is out of reach ({first_line}): check the network, or set DYNO_HUB_ENDPOINT to a mirror; "
            "the models dyno-43m and dyno-82m and all shipped facts work without it"
        )


def check_licence(model: HubModel, allowed: Collection[str]) -> None:
    """Raises LicenceNotAllowedError unless the model's licence is among `allowed` (hub identifiers, in lower case)."""
    if model.licence is None or model.licence.lower() not in allowed:
        raise LicenceNotAllowedError(
            f"{model.hub_id} has the licence {model.licence or 'of no known name'}, which is not allowed: "
            "add it to DYNO_ALLOWED_LICENCES if you have read and accepted it"
        )


def _hub_model(info: ModelInfo) -> HubModel:
    files = tuple(
        HubFile(sibling.rfilename, sibling.size, sibling.lfs.sha256 if sibling.lfs is not None else None) for sibling in info.siblings or ()
    )
    return HubModel(
        hub_id=info.id,
        revision=info.sha or "",
        author=info.author or info.id.partition("/")[0],
        licence=_licence(info),
        tags=tuple(info.tags or ()),
        gated=bool(info.gated),
        last_modified=info.last_modified,
        files=files,
        safetensors_params=info.safetensors.total if info.safetensors is not None else None,
    )


def _licence(info: ModelInfo) -> str | None:
    """The card's licence; of `other`, its name; without a card, the tag that the hub derives from it."""
    card: Mapping[str, Any] = vars(info.card_data) if info.card_data is not None else {}
    licence = card.get("license")
    if licence == "other" and isinstance(card.get("license_name"), str):
        licence = card["license_name"]
    if licence is None:
        licence = next((tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None)
    return str(licence).lower() if licence else None


def _path_inside(folder: Path, name: str) -> Path:
    """Where a file of this name goes: a hub may list any name, and only those inside the folder are written."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InvalidModelError(f"the hub lists a file {name!r}, which would be written outside the model's folder")
    return folder / path


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


_lock = threading.Lock()
_limited = False


def _limit_times() -> None:
    """`huggingface_hub` lists models without any time limit; give one to every request that has none."""
    global _limited  # noqa: PLW0603  # the library's client is global as well
    with _lock:
        if not _limited:
            set_client_factory(_client)
            _limited = True


def _client() -> httpx2.Client:
    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], _limit_time]}
    return client


def _limit_time(request: httpx2.Request) -> None:
    limits = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {step: limits.get(step) or REQUEST_TIMEOUT_S for step in ("connect", "read", "write", "pool")}
