"""Checkpoints in a bucket: S3, and what speaks its language, or Google Cloud Storage.

Credentials come by the environment only (AWS_*, GOOGLE_*), and no message of this module repeats what the storage or the library says
where a credential could be in it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import GCSStore, S3Store

from assets.benchmark.storage.lease import LEASE_S, leased
from assets.benchmark.storage.location import Bucket
from assets.benchmark.storage.protocol import CheckpointError, Stored, UnreachableError, Version

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

CONNECT_TIMEOUT = timedelta(seconds=5)
REQUEST_TIMEOUT = timedelta(seconds=60)
# A few seconds altogether where nobody listens. Whoever has more patience asks again.
RETRIES: RetryConfig = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=250), "max_backoff": timedelta(seconds=4), "base": 2},
}
S3_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (a file) or GOOGLE_SERVICE_ACCOUNT_KEY",
}
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "the proxy"}
# Where the library asks for an identity of the machine or pod when the environment has no credentials: EC2, ECS, Google's metadata server.
INSTANCE_CREDENTIALS = ("/latest/api/token", "/latest/meta-data/", "//169.254.170.2", "/computeMetadata/")
VARIABLES = {"s3": "AWS_*", "gs": "GOOGLE_*"}
WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed"}
TEMPORARY = {"SlowDown", "RequestTimeout"}
REFUSED_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}


class RemoteFolder:
    """An ObjectFolder in an object storage that enforces conditional writes. `store` begins at the folder."""

    def __init__(self, store: ObjectStore, location: str, lease_s: float = LEASE_S) -> None:
        self._store = store
        self._location = location
        self._lease_s = lease_s

    @property
    def location(self) -> str:
        """The folder's URL."""
        return self._location

    def get(self, name: str) -> Stored | None:
        """See ObjectFolder.get."""
        with self._clear_errors():
            try:
                found = obstore.get(self._store, name)
                version = Version(found.meta["e_tag"], found.meta["version"])
                return Stored(bytes(found.bytes()), version)
            except FileNotFoundError as error:
                if _is_about_the_bucket(error):
                    raise
                return None

    def put(self, name: str, content: bytes) -> None:
        """See ObjectFolder.put."""
        with self._clear_errors():
            obstore.put(self._store, name, content, mode="overwrite", use_multipart=False)

    def create(self, name: str, content: bytes) -> Version | None:
        """See ObjectFolder.create."""
        with self._clear_errors():
            try:
                written = obstore.put(self._store, name, content, mode="create")
            except AlreadyExistsError:
                return None
        return Version(written["e_tag"], written["version"])

    def replace(self, name: str, content: bytes, version: Version) -> Version | None:
        """See ObjectFolder.replace."""
        condition: UpdateVersion = {"e_tag": version.e_tag}
        if version.generation is not None:
            condition["version"] = version.generation
        with self._clear_errors():
            try:
                written = obstore.put(self._store, name, content, mode=condition)
            except (PreconditionError, AlreadyExistsError):
                return None
        return Version(written["e_tag"], written["version"])

    def delete(self, name: str) -> None:
        """See ObjectFolder.delete."""
        with self._clear_errors(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def held(self, should_stop: Callable[[], bool]) -> AbstractContextManager[Callable[[], bool]]:
        """See ObjectFolder.held. A holder that does not renew its lease is waited for until the lease expires."""
        return leased(self, should_stop, self._lease_s)

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn the library's errors into sentences. Raises CheckpointError."""
        try:
            yield
        except (BaseError, OSError, NotImplementedError) as error:
            raise _sentence(error, self._location) from None  # its chain repeats the library's text


def open_bucket(bucket: Bucket, lease_s: float = LEASE_S) -> RemoteFolder:
    """The folder in the bucket; nothing connects yet. Raises CheckpointError."""
    client: ClientConfig = {"connect_timeout": CONNECT_TIMEOUT, "timeout": REQUEST_TIMEOUT}
    try:
        if bucket.scheme == "s3":
            client["allow_http"] = _s3_endpoint().startswith("http://")
            store: ObjectStore = S3Store(bucket.name, prefix=bucket.prefix or None, client_options=client, retry_config=RETRIES)
        else:
            client["allow_http"] = os.environ.get("GOOGLE_ALLOW_HTTP", "").lower() == "true"  # an emulator's
            store = GCSStore(bucket.name, prefix=bucket.prefix or None, client_options=client, retry_config=RETRIES)
    except (BaseError, ValueError, OSError):
        raise CheckpointError(
            f"cannot use {bucket}: a variable of the environment ({VARIABLES[bucket.scheme]}) has a value that cannot be used: "
            "see docs/configuration.md"
        ) from None
    return RemoteFolder(store, str(bucket), lease_s)


def _s3_endpoint() -> str:
    """The endpoint that the environment names; empty for Amazon's own. Raises ValueError where it is no address: the library panics."""
    endpoint = next((os.environ[name] for name in S3_ENDPOINT_VARIABLES if os.environ.get(name)), "")
    parts = urlsplit(endpoint)
    if endpoint and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("expected http://host:port or https://host")
    return endpoint


def _is_about_the_bucket(error: Exception) -> bool:
    return "NoSuchBucket" in str(error)


def _sentence(error: Exception, location: str) -> CheckpointError:
    """What went wrong, from the library's text, of which nothing but the storage's own error code is repeated."""
    text = str(error)
    scheme = location.partition("://")[0]
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    status = re.search(r"status code: (\d{3})", text)
    named = code.group(1) if code else f"HTTP status {status.group(1)}" if status else None
    refused = isinstance(error, UnauthenticatedError) or named in REFUSED_CREDENTIALS
    known = {
        "there is no such bucket: make it, or correct DYNO_CHECKPOINTS": isinstance(error, FileNotFoundError),
        "this object storage does not enforce conditional writes, which Dyno needs: use another one": named == "NotImplemented"
        or isinstance(error, NotSupportedError | NotImplementedError),
        f"no credentials: set {CREDENTIALS.get(scheme)}, or give the machine or pod an identity with access to it": any(
            place in text for place in INSTANCE_CREDENTIALS
        ),
        f"the credentials are refused ({named}): check {VARIABLES.get(scheme)}": refused,
        "these credentials may not read and write there: allow them to get, put and delete objects of this prefix": isinstance(
            error, PermissionDeniedError
        ),
        "the bucket is in another region: set AWS_REGION to its region": named in WRONG_REGION or "incorrectly configured region" in text,
    }
    for advice, applies in known.items():
        if applies:
            return CheckpointError(f"cannot use {location}: {advice}")
    said = f" ({named})" if named else ""
    if status is None or status.group(1).startswith("5") or named in TEMPORARY:
        return UnreachableError(
            f"cannot use {location}: the object storage does not answer{said}, tried several times: "
            f"check the network and {ENDPOINTS.get(scheme)}; what is finished is kept"
        )
    return CheckpointError(f"cannot use {location}: the object storage refuses the request{said}")
