"""Settings: what the environment may say, and what a person is told when it says something else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.settings import PERMISSIVE_LICENCES, SettingsError, StateFolderError, load_settings, prepare_state_dir


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DYNO_") or name in {"HF_TOKEN", "HF_ENDPOINT"}:
            monkeypatch.delenv(name)


def test_needs_no_configuration_at_all() -> None:
    """A clone works as it is: embedded servers, state inside the project."""
    settings = load_settings()
    assert settings.database_url is None
    assert settings.redis_url is None
    assert settings.state_dir.name == ".dyno"
    assert settings.state_dir.is_absolute()
    assert settings.hub_endpoint == "https://huggingface.co"
    assert settings.allowed_licences == PERMISSIVE_LICENCES
    assert settings.auto_benchmark_hardware == ("cpu",)
    assert settings.protocol == "standard"


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNO_FOLLOWED_AUTHORS", "meta-llama, Qwen,")
    assert load_settings().followed_authors == ("meta-llama", "Qwen")


def test_the_hubs_own_variables_work_and_ours_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """People behind a mirror have HF_ENDPOINT set already."""
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings = load_settings()
    assert settings.hub_endpoint == "https://mirror.example"
    assert settings.hub_token is not None
    assert settings.hub_token.get_secret_value() == "hf_secret"
    monkeypatch.setenv("DYNO_HUB_ENDPOINT", "https://ours.example")
    assert load_settings().hub_endpoint == "https://ours.example"


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNO_DATABASE_URL", "postgresql://me:s3cret@db/dyno")
    monkeypatch.setenv("DYNO_REDIS_URL", "redis://:s3cret@cache:6379/0")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    assert "s3cret" not in repr(load_settings())
    assert "s3cret" not in load_settings().model_dump_json()


@pytest.mark.parametrize("given", ["postgres://me:p@db/dyno", "postgresql://me:p@db/dyno", "postgresql+psycopg2://me:p@db/dyno"])
def test_any_spelling_of_a_postgresql_url_becomes_sqlalchemys(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DYNO_DATABASE_URL", given)
    url = load_settings().database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql+psycopg2://me:p@db/dyno"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DYNO_API_PORT", "x"),
        ("DYNO_DAGSTER_PORT", "70000"),
        ("DYNO_DATABASE_URL", "mysql://me:hidden@db/x"),
        ("DYNO_DATABASE_URL", "postgresql://me:hidden@db:99999/x"),
        ("DYNO_REDIS_URL", "http://:hidden@cache"),
        ("DYNO_HUB_ENDPOINT", "huggingface.co"),
        ("DYNO_PROTOCOL", "thorough"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_variable_and_hides_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert variable in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_state_folder_is_made_and_left_clean(tmp_path: Path) -> None:
    folder = prepare_state_dir(tmp_path / "a" / "b")
    assert list(folder.iterdir()) == []


def test_a_file_in_place_of_the_state_folder_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("precious")
    with pytest.raises(StateFolderError, match="is not a folder"):
        prepare_state_dir(file)
    assert file.read_text() == "precious"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, for those who may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["/bin/umount", str(folder)], check=True)


def test_a_full_state_folder_is_an_error_and_the_probe_is_removed(small_disk: Path) -> None:
    with pytest.raises(StateFolderError, match=r"is full.*free some space"):
        prepare_state_dir(small_disk)
    assert list(small_disk.iterdir()) == []


def test_a_read_only_state_folder_is_an_error(small_disk: Path) -> None:
    subprocess.run(["/bin/mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StateFolderError, match=r"read-only.*DYNO_STATE_DIR"):
        prepare_state_dir(small_disk)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StateFolderError, match="cannot be written by this user"):
        prepare_state_dir(tmp_path / "state")


@pytest.mark.parametrize(
    ("given", "expected"), [("s3://bucket/dyno/", "s3://bucket/dyno"), ("gs://bucket", "gs://bucket"), ("file:///data/x", "/data/x")]
)
def test_checkpoints_may_be_elsewhere(monkeypatch: pytest.MonkeyPatch, given: str, expected: str) -> None:
    monkeypatch.setenv("DYNO_CHECKPOINTS", given)
    assert load_settings().checkpoints == expected


def test_a_relative_checkpoint_folder_is_where_the_person_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Dagster's processes run elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DYNO_CHECKPOINTS", "results")
    assert load_settings().checkpoints == str(tmp_path / "results")


@pytest.mark.parametrize("given", ["https://bucket/dyno", "s3://key:s3cret@bucket/dyno", "s3://"])
def test_a_checkpoint_location_that_cannot_be_used_is_named_without_its_secrets(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DYNO_CHECKPOINTS", given)
    with pytest.raises(SettingsError, match="DYNO_CHECKPOINTS: expected a folder, file:///folder, s3://bucket/prefix") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)
