"""A stand-in of the Hugging Face hub: the part of its HTTP API that `huggingface_hub` uses, on a loopback port, with models made here.

By hand: `.venv/bin/python -m tests.hub_standin --help`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from tests.hub_repositories import LARGER, SMALL, TINY, gguf_files, params_of, safetensors_files

__all__ = ["LARGER", "SMALL", "TINY", "HubStandin", "Published", "gguf_files", "params_of", "safetensors_files"]
LARGE_FILES = (".safetensors", ".gguf")  # kept in LFS: the hub knows their SHA-256
PAGE_SIZE = 100
FOLDER_POLL_S = 1.0
_RESOLVE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_INFO = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+?)(?:/revision/(?P<revision>[^/]+))?")


@dataclass(frozen=True)
class Published:
    """One model at its newest revision."""

    hub_id: str
    files: Mapping[str, bytes]
    licence: str | None
    tags: tuple[str, ...]
    gated: bool | Literal["closed"]
    last_modified: datetime
    params: int | None

    @property
    def revision(self) -> str:
        """A commit that changes with every file and instant."""
        digest = hashlib.sha1(self.last_modified.isoformat().encode(), usedforsecurity=False)
        for name in sorted(self.files):
            digest.update(name.encode() + self.files[name])
        return digest.hexdigest()

    def info(self, blobs: bool) -> dict[str, Any]:
        """What `/api/models/<id>` answers."""
        instant = self.last_modified.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        licence_tags = [f"license:{self.licence}"] if self.licence else []
        return {
            "_id": hashlib.md5(self.hub_id.encode(), usedforsecurity=False).hexdigest()[:24],
            "id": self.hub_id,
            "modelId": self.hub_id,
            "author": self.hub_id.partition("/")[0],
            "sha": self.revision,
            "lastModified": instant,
            "createdAt": instant,
            "private": False,
            "gated": {True: "auto", False: False, "closed": "manual"}[self.gated],
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [*self.tags, *licence_tags],
            "cardData": {"license": self.licence} if self.licence else {},
            "siblings": [_sibling(name, content, blobs) for name, content in sorted(self.files.items())],
            **({"safetensors": {"parameters": {"BF16": self.params}, "total": self.params}} if self.params else {}),
        }


def _sibling(name: str, content: bytes, blobs: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name}
    if blobs:
        entry |= {"size": len(content), "blobId": hashlib.sha1(content, usedforsecurity=False).hexdigest()}
        if name.endswith(LARGE_FILES):
            entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


class HubStandin:
    """The server; use it as a context manager. Models may be published, changed and removed while it runs.

    `requests` lists every request as `GET /path?query`, `requests_with_token` those that carried a token, with the host they named:
    large files come from a storage of another name, as the hub's do. With `token`, every other one is refused.
    """

    def __init__(self, port: int = 0, page_size: int = PAGE_SIZE, token: str | None = None) -> None:
        self.page_size = page_size
        self.token = token
        self.requests: list[str] = []
        self.requests_with_token: list[str] = []
        self.truncate_after_bytes: int | None = None
        self.damaged = False
        self._gone_after_cut = False
        self._models: dict[str, Published] = {}
        self._status: int | None = None
        self._answering = threading.Event()
        self._answering.set()
        self._lock = threading.Lock()
        standin = self

        class Handler(_Handler):
            hub = standin

        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        """What DYNO_HUB_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage(self) -> str:
        """Where large files are kept: the same server under another name."""
        return f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> HubStandin:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(
        self,
        hub_id: str,
        files: Mapping[str, bytes | Path],
        *,
        licence: str | None = "apache-2.0",
        tags: Sequence[str] = (),
        gated: bool | Literal["closed"] = False,
        last_modified: datetime | None = None,
        params: int | None = None,
    ) -> Published:
        """Publish a model, or a new revision of it; without `last_modified` it is the newest of all. `params` is what the hub counts.

        The files of a gated model are given with a token, those of a closed one to nobody.
        """
        contents = {name: content if isinstance(content, bytes) else content.read_bytes() for name, content in files.items()}
        model = Published(hub_id, contents, licence, tuple(tags), gated, last_modified or datetime.now(UTC), params)
        with self._lock:
            self._models[hub_id] = model
        return model

    def remove(self, hub_id: str) -> None:
        """Take a model away."""
        with self._lock:
            del self._models[hub_id]

    def change(self, hub_id: str, **changes: Any) -> None:
        """Another revision of a model, now."""
        with self._lock:
            self._models[hub_id] = replace(self._models[hub_id], **{"last_modified": datetime.now(UTC), **changes})

    @contextmanager
    def failing(self, status: int) -> Iterator[None]:
        """Every request is answered with this status."""
        self._status = status
        try:
            yield
        finally:
            self._status = None

    @contextmanager
    def stalling(self) -> Iterator[None]:
        """Requests are taken and not answered before the block ends."""
        self._answering.clear()
        try:
            yield
        finally:
            self._answering.set()

    @contextmanager
    def damaging(self) -> Iterator[None]:
        """Large files arrive in full length with one byte changed."""
        self.damaged = True
        try:
            yield
        finally:
            self.damaged = False

    @contextmanager
    def cutting_off(self, after_bytes: int) -> Iterator[None]:
        """The first answer of more than `after_bytes` breaks off there; from then on, all requests get 503 until the block ends."""
        self.truncate_after_bytes, self._gone_after_cut = after_bytes, True
        try:
            yield
        finally:
            self.truncate_after_bytes, self._gone_after_cut, self._status = None, False, None

    def was_cut(self) -> None:
        """An answer broke off."""
        if self._gone_after_cut:
            self._status = 503

    @property
    def failure(self) -> int | None:
        """The status that every request gets now."""
        return self._status

    def wait_to_answer(self) -> None:
        """Returns when requests are answered."""
        self._answering.wait()

    def model(self, hub_id: str) -> Published | None:
        """A published model."""
        with self._lock:
            return self._models.get(hub_id)

    def listed(self, query: Mapping[str, list[str]]) -> list[Published]:
        """Models of the query's author and tags, newest first where it asks for that."""
        with self._lock:
            models = list(self._models.values())
        authors, tags = query.get("author", []), query.get("filter", [])
        found = [
            model
            for model in models
            if all(model.hub_id.startswith(f"{author}/") for author in authors) and all(tag in model.tags for tag in tags)
        ]
        return sorted(found, key=lambda model: (model.last_modified, model.hub_id), reverse="sort" in query)


class _Server(ThreadingHTTPServer):
    """Clients that hang up are part of what is tested."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the API's three routes, and of the storage that large files are redirected to."""

    hub: HubStandin
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the base class's name
        """Requests are kept in `hub.requests` instead."""

    def _answer(self, *, body: bool) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".rstrip())
        if "Authorization" in self.headers:
            self.hub.requests_with_token.append(f"{self.command} http://{self.headers['Host']}{self.path}")
        self.hub.wait_to_answer()
        if self.hub.failure is not None:
            self._send(self.hub.failure, b"{}", body=body)
        elif self._wrong_token():
            self._send(401, b"{}", body=body, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path == "/api/models":
            self._list(parse_qs(url.query), body=body)
        elif match := _RESOLVE.fullmatch(path):
            self._file(match["id"], match["revision"], match["name"], stored="stored" in parse_qs(url.query), body=body)
        elif match := _INFO.fullmatch(path):
            self._info(match["id"], match["revision"], blobs="blobs" in parse_qs(url.query), body=body)
        else:
            self._send(404, b"{}", body=body)

    def _wrong_token(self) -> bool:
        given = self.headers.get("Authorization")
        return given is not None and self.hub.token not in {None, given.removeprefix("Bearer ")}

    def _list(self, query: dict[str, list[str]], *, body: bool) -> None:
        found, start = self.hub.listed(query), int(query.get("cursor", ["0"])[0])
        size = min(int(query.get("limit", [str(self.hub.page_size)])[0]), self.hub.page_size)
        page = [model.info(blobs=False) for model in found[start : start + size]]
        headers = {}
        if start + size < len(found):
            following = urlencode({**query, "cursor": start + size}, doseq=True)
            headers["Link"] = f'<{self.hub.endpoint}/api/models?{following}>; rel="next"'
        self._send(200, json.dumps(page).encode(), body=body, headers=headers)

    def _info(self, hub_id: str, revision: str | None, *, blobs: bool, body: bool) -> None:
        model = self._model(hub_id, revision, body=body)
        if model is not None:
            self._send(200, json.dumps(model.info(blobs)).encode(), body=body)

    def _file(self, hub_id: str, revision: str, name: str, *, stored: bool, body: bool) -> None:
        model = self._model(hub_id, revision, body=body)
        if model is None:
            return
        if not stored and (model.gated == "closed" or (model.gated and "Authorization" not in self.headers)):
            self._refuse(403 if "Authorization" in self.headers else 401, "GatedRepo", body=body)
            return
        content = model.files.get(name)
        if content is None:
            self._refuse(404, "EntryNotFound", body=body)
            return
        headers = {"X-Repo-Commit": model.revision, "ETag": f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"'}
        if name.endswith(LARGE_FILES) and not stored:
            # as the hub does: the file itself is elsewhere
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
            headers["Location"] = f"{self.hub.storage}{urlsplit(self.path).path}?stored=1"
            self._send(302, b"", body=body, headers=headers)
            return
        if stored and self.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._content(content, headers, body=body)

    def _content(self, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, content, body=body, headers=headers)
            return
        start, end = int(wanted[1]), min(int(wanted[2]) if wanted[2] else len(content) - 1, len(content) - 1)
        if start >= len(content):
            self._send(416, b"", body=body, headers={**headers, "Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(206, content[start : end + 1], body=body, headers=headers)

    def _model(self, hub_id: str, revision: str | None, *, body: bool) -> Published | None:
        model = self.hub.model(hub_id)
        if model is None:
            self._refuse(401 if "Authorization" not in self.headers else 404, "RepoNotFound", body=body)
            return None
        if revision not in {None, "main", model.revision}:
            self._refuse(404, "RevisionNotFound", body=body)
            return None
        return model

    def _refuse(self, status: int, code: str, *, body: bool) -> None:
        self._send(status, json.dumps({"error": code}).encode(), body=body, headers={"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, *, body: bool, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        limit = self.hub.truncate_after_bytes
        if limit is not None and len(content) > limit:
            self.hub.was_cut()
            self.wfile.write(content[:limit])
            self.close_connection = True
        else:
            self.wfile.write(content)


_DESCRIPTION = """\
A stand-in of the Hugging Face hub on this machine, until Ctrl-C. It publishes two models with random weights:
  dyno-labs/llama-SIZE        safetensors, as transformers stores them (Dyno converts them)
  dyno-labs/llama-SIZE-GGUF   GGUF files Q8_0 and Q4_0 (Dyno takes them as they are)"""
_EXAMPLES = """\
examples:
  .venv/bin/python -m tests.hub_standin --port 8801
  DYNO_HUB_ENDPOINT=http://127.0.0.1:8801 ./dyno demo --model dyno-labs/llama-43m

  a model published while ./dyno up follows its author:
  .venv/bin/python -m tests.hub_standin --port 8801 --folder /tmp/hub
  DYNO_HUB_ENDPOINT=http://127.0.0.1:8801 DYNO_FOLLOWED_AUTHORS=acme ./dyno up
  mkdir -p /tmp/hub/acme/new-GGUF && cp my-Q8_0.gguf /tmp/hub/acme/new-GGUF/"""
_SIZES = {"tiny": TINY, "43m": SMALL, "82m": LARGER}


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hub_standin",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--size", choices=_SIZES, default="43m", help="of the two models; tokens of tiny come in bursts (default: 43m)")
    parser.add_argument(
        "--folder", type=Path, help="each FOLDER/<organisation>/<name>/ is an apache-2.0 model; new and changed ones appear"
    )
    arguments = parser.parse_args()
    if arguments.folder is not None and not arguments.folder.is_dir():
        parser.error(f"--folder {arguments.folder}: there is no such folder")
    name = f"dyno-labs/llama-{arguments.size}"
    spec = replace(_SIZES[arguments.size], name=f"llama-{arguments.size}")
    with HubStandin(arguments.port) as hub:
        hub.publish(name, safetensors_files(spec), params=params_of(spec))
        hub.publish(f"{name}-GGUF", gguf_files(spec))
        print(f"serving {hub.endpoint}; try\n  DYNO_HUB_ENDPOINT={hub.endpoint} ./dyno demo --model {name}", flush=True)
        try:
            _watch(hub, arguments.folder)
        except KeyboardInterrupt:
            print("stopped")


def _watch(hub: HubStandin, folder: Path | None) -> None:
    published: dict[str, dict[str, float]] = {}
    while True:
        for repository in sorted(folder.glob("*/*/")) if folder is not None else ():
            hub_id = f"{repository.parent.name}/{repository.name}"
            paths = {path.name: path for path in repository.iterdir() if path.is_file()}
            state = {name: path.stat().st_mtime for name, path in paths.items()}
            if state and published.get(hub_id) != state:
                published[hub_id] = state
                hub.publish(hub_id, {name: path.read_bytes() for name, path in paths.items()})
                print(f"published {hub_id}", flush=True)
        time.sleep(FOLDER_POLL_S)


if __name__ == "__main__":
    main()
