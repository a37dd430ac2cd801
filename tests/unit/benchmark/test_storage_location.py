"""Where checkpoints are kept, as a person writes it down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from assets.benchmark.engines.process import free_port
from assets.benchmark.job_file import checkpoint_location
from assets.benchmark.storage.local import LocalFolder
from assets.benchmark.storage.location import CREDENTIAL_PREFIXES, Bucket, inside, parse_location
from assets.benchmark.storage.protocol import CheckpointError
from assets.benchmark.storage.registry import open_folder
from assets.benchmark.storage.remote import RemoteFolder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/var/lib/dyno/checkpoints", Path("/var/lib/dyno/checkpoints")),
        (".dyno/checkpoints", Path(".dyno/checkpoints")),
        ("file:///var/my%20folder", Path("/var/my folder")),
        ("s3://bucket", Bucket("s3", "bucket", "")),
        ("s3://bucket/", Bucket("s3", "bucket", "")),
        ("s3://bucket/team/dyno/", Bucket("s3", "bucket", "team/dyno")),
        ("gs://bucket/dyno", Bucket("gs", "bucket", "dyno")),
    ],
)
def test_a_location_is_a_folder_or_a_bucket(text: str, expected: Path | Bucket) -> None:
    assert parse_location(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "http://bucket/x", "s3:///x", "s3://", "file://host/x", "file:///", "s3://bucket:9000/x", "s3://b/x?versionId=1"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a folder"):
        parse_location(text)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(CheckpointError, match="credentials come by the environment") as caught:
        open_folder("s3://key:s3cret@bucket/prefix")
    assert "s3cret" not in str(caught.value)


def test_a_batch_has_a_folder_of_its_own_wherever_that_is() -> None:
    assert checkpoint_location("/state/checkpoints", "key", "demo", 0) == "/state/checkpoints/key/demo-r0"
    assert checkpoint_location("file:///state/checkpoints/", "key", "demo", 1) == "/state/checkpoints/key/demo-r1"
    assert checkpoint_location("s3://bucket", "key", "standard", 0) == "s3://bucket/key/standard-r0"
    assert inside("gs://bucket/a/b/", "key") == "gs://bucket/a/b/key"


def test_each_location_has_its_kind_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made and nothing connects by opening it."""
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", '{"disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}')
    assert isinstance(open_folder(tmp_path / "x"), LocalFolder)
    assert not (tmp_path / "x").exists()
    for url in ("s3://bucket/prefix", "gs://bucket/prefix"):
        folder = open_folder(url)
        assert isinstance(folder, RemoteFolder)
        assert folder.location == url


def test_a_credential_that_cannot_be_read_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", "{s3cret")
    with pytest.raises(CheckpointError, match=r"GOOGLE_\*") as caught:
        open_folder("gs://bucket/prefix")
    assert "s3cret" not in str(caught.value)


def test_missing_credentials_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library then asks the machine for an identity; here nobody answers it."""
    for name in [name for name in os.environ if name.startswith(CREDENTIAL_PREFIXES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(CheckpointError, match="no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine"):
        open_folder("s3://bucket/prefix").get("x")


@pytest.mark.parametrize("endpoint", ["minio:9000", "nonsense", "http://", "ftp://minio"])
def test_an_endpoint_that_is_no_address_is_a_sentence(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(CheckpointError, match=r"a variable of the environment \(AWS_\*\) has a value that cannot be used"):
        open_folder("s3://bucket/prefix")
