"""A stand-in of the Hugging Face hub: the part of its HTTP API that `huggingface_hub` uses, on a loopback port, with models made here.

By hand: `.venv/bin/python -m tests.hub_standin --help`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import ml_dtypes
import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer

from assets.models.gguf_writer import GgufQuantization, write_gguf
from assets.models.llama import GgufArchitecture, LlamaSpec, gguf_tensors, hf_tensor_shapes
from assets.models.local.build import LOCAL_MODELS, local_vocabulary
from assets.models.local.tokenizer import BOS, EOS, UNK, VOCAB_SIZE, local_tokenizer_json
from assets.models.local.weights import RandomWeights, visible_tokens

LARGE_FILES = (".safetensors", ".gguf")  # kept in LFS: the hub knows their SHA-256
PAGE_SIZE = 100
FOLDER_POLL_S = 1.0
TINY = LlamaSpec("tiny", "llama", 2, 64, 128, 4, 2, 16, VOCAB_SIZE, 4096)
SMALL = LOCAL_MODELS["dyno-43m"].spec
_HF_NAMES: Mapping[GgufArchitecture, str] = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_RESOLVE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_INFO = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+?)(?:/revision/(?P<revision>[^/]+))?")


@dataclass(frozen=True)
class Published:
    """One model at its newest revision."""

    hub_id: str
    files: Mapping[str, bytes]
    licence: str | None
    tags: tuple[str, ...]
    gated: bool
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
            "gated": "auto" if self.gated else False,
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
    """The server; use it as a context manager. Models may be published, changed and removed while it runs."""

    def __init__(self, port: int = 0, page_size: int = PAGE_SIZE) -> None:
        self.page_size = page_size
        self.requests: list[str] = []
        self.truncate_after_bytes: int | None = None
        self._models: dict[str, Published] = {}
        self._status: int | None = None
        self._lock = threading.Lock()
        standin = self

        class Handler(_Handler):
            hub = standin

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        """What DYNO_HUB_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubStandin:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(
        self,
        hub_id: str,
        files: Mapping[str, bytes],
        *,
        licence: str | None = "apache-2.0",
        tags: Sequence[str] = (),
        gated: bool = False,
        last_modified: datetime | None = None,
        params: int | None = None,
    ) -> Published:
        """Publish a model, or a new revision of it; without `last_modified` it is the newest of all. `params` is what the hub counts."""
        model = Published(hub_id, dict(files), licence, tuple(tags), gated, last_modified or datetime.now(UTC), params)
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

    @property
    def failure(self) -> int | None:
        """The status that every request gets now."""
        return self._status

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
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.hub.failure is not None:
            self._send(self.hub.failure, b"{}", body=body)
        elif path == "/api/models":
            self._list(parse_qs(url.query), body=body)
        elif match := _RESOLVE.fullmatch(path):
            self._file(match["id"], match["revision"], match["name"], stored="stored" in parse_qs(url.query), body=body)
        elif match := _INFO.fullmatch(path):
            self._info(match["id"], match["revision"], blobs="blobs" in parse_qs(url.query), body=body)
        else:
            self._send(404, b"{}", body=body)

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
        if model.gated and "Authorization" not in self.headers:
            self._refuse(401, "GatedRepo", body=body)
            return
        content = model.files.get(name)
        if content is None:
            self._refuse(404, "EntryNotFound", body=body)
            return
        headers = {"X-Repo-Commit": model.revision, "ETag": f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"'}
        if name.endswith(LARGE_FILES) and not stored:
            # as the hub does: the file itself is elsewhere
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
            headers["Location"] = f"{self.hub.endpoint}{urlsplit(self.path).path}?stored=1"
            self._send(302, b"", body=body, headers=headers)
            return
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
            self.wfile.write(content[:limit])
            self.close_connection = True
        else:
            self.wfile.write(content)


def gguf_files(spec: LlamaSpec, quantizations: Sequence[GgufQuantization] = ("q8_0", "q4_0"), seed: int = 1) -> dict[str, bytes]:
    """A repository of GGUF files, one a quantization."""
    weights = RandomWeights(spec, seed, visible_tokens(Tokenizer.from_str(local_tokenizer_json())))
    files: dict[str, bytes] = {}
    with TemporaryDirectory() as folder:
        for quantization in quantizations:
            path = Path(folder) / f"{spec.name}-{quantization.upper()}.gguf"
            write_gguf(path, spec, local_vocabulary(), gguf_tensors(spec, weights.tensor), quantization=quantization)
            files[path.name] = path.read_bytes()
    return files


def safetensors_files(spec: LlamaSpec, seed: int = 1) -> dict[str, bytes]:
    """A repository in the layout of `transformers`: bfloat16 weights in one file, config and tokenizer."""
    weights = RandomWeights(spec, seed, visible_tokens(Tokenizer.from_str(local_tokenizer_json())))
    tensors = {name: np.ascontiguousarray(weights.tensor(name).astype(ml_dtypes.bfloat16)) for name in hf_tensor_shapes(spec)}
    config = {
        "architectures": [_HF_NAMES[spec.architecture]],
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.rms_eps,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied,
        "torch_dtype": "bfloat16",
    }
    tokenizer_config = {"bos_token": BOS, "eos_token": EOS, "unk_token": UNK, "add_bos_token": True}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": local_tokenizer_json().encode(),
        "tokenizer_config.json": json.dumps(tokenizer_config).encode(),
        "model.safetensors": save(tensors),
    }


def params_of(spec: LlamaSpec) -> int:
    """How many numbers the tensors of a model hold."""
    return sum(int(np.prod(shape)) for shape in hf_tensor_shapes(spec).values())


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hub_standin",
        description="A stand-in of the Hugging Face hub with two models: dyno-labs/llama-43m (safetensors), dyno-labs/llama-43m-GGUF.",
        epilog="Try: DYNO_HUB_ENDPOINT=<what it prints> ./dyno demo --model dyno-labs/llama-43m",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--folder", type=Path, help="each FOLDER/<organisation>/<name>/ is a model; a new one appears while it runs")
    arguments = parser.parse_args()
    spec = replace(SMALL, name="llama-43m")
    with HubStandin(arguments.port) as hub:
        hub.publish("dyno-labs/llama-43m", safetensors_files(spec), params=params_of(spec))
        hub.publish("dyno-labs/llama-43m-GGUF", gguf_files(spec))
        print(f"serving {hub.endpoint}; try\n  DYNO_HUB_ENDPOINT={hub.endpoint} ./dyno demo --model dyno-labs/llama-43m", flush=True)
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
