"""A checkpoint location as text: a folder, `file:///folder`, `s3://bucket/prefix` or `gs://bucket/prefix`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

# Access to the object storage comes by these, and by nothing else. What the worker starts does not get them.
CREDENTIAL_PREFIXES = ("AWS_", "GOOGLE_")
SCHEMES: Mapping[str, Literal["s3", "gs"]] = {"s3": "s3", "gs": "gs"}
EXPECTED = "expected a folder, file:///folder, s3://bucket/prefix or gs://bucket/prefix"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in an object storage. `prefix` neither begins nor ends with a slash."""

    scheme: Literal["s3", "gs"]
    name: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}/{self.prefix}".rstrip("/")


def parse_location(text: str) -> Path | Bucket:
    """What a location names. Raises ValueError, in whose message no secret is."""
    scheme, separator, _ = text.partition("://")
    if not separator:
        if not text.strip():
            raise ValueError(EXPECTED)
        return Path(text)
    parts = urlsplit(text)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{EXPECTED}, with nothing else in it: credentials come by the environment (AWS_*, GOOGLE_*)")
    if scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.strip("/"):
        return Path(unquote(parts.path))
    if scheme in SCHEMES and parts.netloc and ":" not in parts.netloc:
        return Bucket(SCHEMES[scheme], parts.netloc, parts.path.strip("/"))
    raise ValueError(EXPECTED)


def inside(location: str, *names: str) -> str:
    """The location of a folder inside another one. Raises ValueError."""
    parsed = parse_location(location)
    if isinstance(parsed, Path):
        return str(parsed.joinpath(*names))
    return "/".join([str(parsed), *names])
