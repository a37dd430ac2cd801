"""Where a server is, and the bytes of a request to it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

UNIX_SCHEMES = frozenset({"unix", "http+unix"})

Transport = Literal["tcp", "tls", "unix"]

# An address family and what `socket.connect` takes for it.
Address = tuple[socket.AddressFamily, Any]


class EndpointError(ValueError):
    """The URL cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP server over TCP, TLS or a Unix socket. `unix_path` is set for the last only; `host` and `port` then name nothing.

    `verify` off accepts any certificate; `ca_file` is a PEM file of authorities to trust instead of the machine's.
    """

    host: str
    port: int
    base_path: str
    tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    unix_path: str | None = None
    verify: bool = True
    ca_file: str | None = None

    @classmethod
    def parse(cls, url: str, api_key: str | None = None, *, verify: bool = True, ca_file: str | None = None) -> Endpoint:
        """From `http://host:port`, `https://host/prefix` (with or without the trailing `/v1`), or `unix:/path`. Raises EndpointError."""
        malformed = EndpointError(f"{url!r} is not the address of a server: expected http://HOST:PORT, https://HOST or unix:/PATH")
        try:
            parts = urlsplit(url)
        except ValueError:
            raise malformed from None
        if api_key is not None and not _is_printable_ascii(api_key):
            raise EndpointError("the key has characters that no HTTP header may have: check DYNO_API_KEY or --api-key")
        headers = (("Authorization", f"Bearer {api_key}"),) if api_key else ()
        if parts.scheme in UNIX_SCHEMES:
            path = unquote(parts.netloc) + parts.path
            if not path.startswith("/"):
                raise malformed
            return cls("localhost", 80, "", headers=headers, unix_path=path)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not _is_printable_ascii(url):
            raise malformed
        if parts.username or parts.query or parts.fragment:
            raise EndpointError("the address must have no user name, query or fragment: give a key with --api-key")
        return cls(
            host=parts.hostname,
            port=_port(parts),
            base_path=parts.path.rstrip("/").removesuffix("/v1"),
            tls=parts.scheme == "https",
            headers=headers,
            verify=verify,
            ca_file=ca_file,
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Endpoint:
        """The inverse of `to_json`."""
        return cls(**{**document, "headers": tuple((name, value) for name, value in document["headers"])})

    def to_json(self) -> dict[str, Any]:
        """Plain values. They hold the key: for a pipe, not for a file or a log."""
        return asdict(self)

    @property
    def name(self) -> str:
        """For a person: `host:port` or the socket's path."""
        return self.unix_path or f"{self.host}:{self.port}"

    @property
    def transport(self) -> Transport:
        """What carries the bytes."""
        return "unix" if self.unix_path else "tls" if self.tls else "tcp"

    def head(self, method: str, path: str, content_bytes: int, request_id: str) -> bytes:
        """A request up to its body, which has `content_bytes`. By `request_id` the server's log can be matched with ours."""
        authority = f"[{self.host}]" if ":" in self.host else self.host
        default_port = 443 if self.tls else 80
        lines = [
            f"{method} {self.base_path}{path} HTTP/1.1",
            f"Host: {authority}" + ("" if self.port == default_port else f":{self.port}"),
            "Accept: text/event-stream, application/json",
            "Accept-Encoding: identity",
            f"X-Request-Id: {request_id}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        if content_bytes:
            lines += ["Content-Type: application/json", f"Content-Length: {content_bytes}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def addresses(self) -> list[Address]:
        """What to connect to, in the resolver's order. Raises OSError where the name is not known."""
        if self.unix_path is not None:
            return [(socket.AF_UNIX, self.unix_path)]
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    def tls_context(self) -> ssl.SSLContext | None:
        """Made once a process: reading the machine's certificates takes as long as some first tokens. Raises EndpointError."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise EndpointError(f"{self.ca_file} cannot be read as PEM certificates: {error.strerror or error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _is_printable_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise EndpointError(f"{parts.netloc!r} has no valid port: ports are 1 to 65535")
    return port or (443 if parts.scheme == "https" else 80)
