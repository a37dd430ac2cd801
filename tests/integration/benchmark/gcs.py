"""As much of Google Cloud Storage's XML API as checkpoints need: objects with generations, written on the condition of one.

https://cloud.google.com/storage/docs/xml-api/reference-headers: `x-goog-if-generation-match` is the generation that an object must have, or
0 where there must be none; otherwise the answer is 412. `x-goog-generation` tells the generation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread


class Handler(BaseHTTPRequestHandler):
    """One bucket, in memory."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, bytes]]
    lock: Lock

    def do_PUT(self) -> None:  # the base class's name
        content = self.rfile.read(int(self.headers["Content-Length"]))
        wanted = self.headers.get("x-goog-if-generation-match")
        with self.lock:
            generation, _ = self.objects.get(self.path, (0, b""))
            if wanted is not None and int(wanted) != generation:
                self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            written = 1 + max((number for number, _ in self.objects.values()), default=generation)
            self.objects[self.path] = (written, content)
        self._answer(200, b"", self._about(written, content))

    def do_GET(self) -> None:  # the base class's name
        with self.lock:
            found = self.objects.get(self.path)
        if found is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._answer(200, found[1], self._about(*found))

    def do_DELETE(self) -> None:  # the base class's name
        with self.lock:
            found = self.objects.pop(self.path, None)
        self._answer(404 if found is None else 204, b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass

    @staticmethod
    def _about(generation: int, content: bytes) -> dict[str, str]:
        return {
            "ETag": f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"',
            "x-goog-generation": str(generation),
            "Last-Modified": formatdate(usegmt=True),
        }

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def gcs_running() -> Iterator[dict[str, str]]:
    """A server with nothing in it; gives the environment that leads there."""

    class OwnHandler(Handler):
        objects: dict[str, tuple[int, bytes]] = {}  # noqa: RUF012  # made anew with each server
        lock = Lock()

    server = ThreadingHTTPServer(("127.0.0.1", 0), OwnHandler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    key = {
        "gcs_base_url": f"http://127.0.0.1:{server.server_port}",
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    try:
        yield {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key), "GOOGLE_ALLOW_HTTP": "true"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
