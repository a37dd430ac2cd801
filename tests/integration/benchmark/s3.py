"""An S3 of the tests' own: moto's server in a process, asked over HTTP. It enforces conditional writes."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

from assets.benchmark.engines.process import free_port
from tests.deadlines import eventually

SECRET = "s3cret-of-the-tests"  # nobody else knows this server
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where the server answers."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs, as a person sets it for MinIO."""
        return {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.port}",
            "AWS_ACCESS_KEY_ID": "dyno",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def make_bucket(self, name: str | None = None) -> str:
        """An empty bucket's name."""
        name = name or f"dyno-{uuid.uuid4().hex[:12]}"
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()
        return name

    def names(self, bucket: str, prefix: str) -> set[str]:
        """The objects under a prefix, without it. Past our own code: the library itself is asked."""
        store = S3Store(
            bucket,
            prefix=prefix,
            endpoint=f"http://{HOST}:{self.port}",
            access_key_id="dyno",
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        return {meta["path"] for page in obstore.list(store) for meta in page}

    def answers(self) -> bool:
        """Whether the server has started."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/moto-api/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextlib.contextmanager
def running(log_path: Path, port: int | None = None) -> Iterator[S3Server]:
    """A server with nothing in it."""
    server = S3Server(port or free_port(HOST))
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(server.port)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            eventually(server.answers, "moto's server answers")
            yield server
        finally:
            process.terminate()
            process.wait(10)
