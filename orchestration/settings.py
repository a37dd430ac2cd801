"""Every setting of Dyno: environment variables that start with `DYNO_`, with defaults that need no configuration at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from assets.benchmark.storage.location import parse_location
from assets.models.config import ModelsConfig

REPO_ROOT = Path(__file__).resolve().parents[1]
PROBE_BYTES = 1 << 20
GIB = 1 << 30

PERMISSIVE_LICENCES = (
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsl-1.0",
    "cc0-1.0",
    "cc-by-4.0",
    "cdla-permissive-2.0",
    "isc",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "llama4",
    "gemma",
)

Words = Annotated[tuple[str, ...], NoDecode]
# An empty variable counts as unset: this word is how a list is emptied.
NO_WORDS = "none"
Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message names the variable and what it accepts."""


class StateFolderError(Exception):
    """The state folder cannot be used; the message says why and what to do."""


class Settings(BaseSettings):
    """Settings read from the environment (`DYNO_<FIELD NAME>`); lists are comma separated. A secret is never printed."""

    model_config = SettingsConfigDict(env_prefix="DYNO_", populate_by_name=True, extra="ignore", frozen=True, env_ignore_empty=True)

    state_dir: Path = Field(REPO_ROOT / ".dyno", description="Folder of everything that Dyno keeps: databases, models, logs, results.")
    checkpoints: str | None = Field(
        None,
        description="Where finished load points and their evidence are kept: a folder, s3://bucket/prefix or gs://bucket/prefix. "
        "Unset: `checkpoints` in the state folder.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="External PostgreSQL or TimescaleDB, postgresql://user:password@host:port/database. Unset: embedded.",
    )
    dagster_database_url: SecretStr | None = Field(
        None,
        description="External database of Dagster's runs. Unset: database `dagster` on the server of DYNO_DATABASE_URL.",
    )
    redis_url: SecretStr | None = Field(None, description="External Redis or Valkey, redis://:password@host:port/0. Unset: embedded.")

    hub_endpoint: str = Field(
        "https://huggingface.co",
        validation_alias=AliasChoices("DYNO_HUB_ENDPOINT", "HF_ENDPOINT"),
        description="Address of the Hugging Face hub or of a mirror. HF_ENDPOINT works too.",
    )
    hub_token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DYNO_HUB_TOKEN", "HF_TOKEN"),
        description="Token for gated models. HF_TOKEN works too.",
    )
    followed_authors: Words = Field((), description="Hub authors whose new models are registered, e.g. `meta-llama,Qwen`.")
    followed_tags: Words = Field((), description="Hub tags whose new models are registered, e.g. `text-generation`.")
    allowed_licences: Words = Field(PERMISSIVE_LICENCES, description="Licences (hub identifiers) of models that the sensor may register.")
    auto_benchmark_hardware: Words = Field(
        ("cpu",), description="Hardware ids whose feasible batches start by themselves for a new model; `none`: of none."
    )
    auto_benchmark_workloads: Words = Field(
        ("chat_short",), description="Workloads of those batches on `cpu`, where long prompts take hours. On GPUs, all are measured."
    )
    local_download_limit_gib: float = Field(4.0, gt=0, description="Largest model (GiB of weights) that is fetched for the local engine.")
    engine_environments: Path | None = Field(
        None,
        description="Folder with a Python environment for each engine that is installed on this machine: `vllm`, `transformers`, ...",
    )
    protocol: Literal["demo", "standard"] = Field(
        "standard", description="Requests per load point where a run does not say: `demo` is quick, rankings prefer `standard`."
    )

    dagster_port: Port | None = Field(None, description="Port of the Dagster UI. Unset: 3000, or a free one when that is taken.")
    api_port: Port | None = Field(None, description="Port of the API. Unset: 8000, or a free one when that is taken.")
    docs_port: Port | None = Field(None, description="Port of the dbt docs site. Unset: 8080, or a free one when that is taken.")
    postgres_port: Port | None = Field(None, description="Port of the embedded PostgreSQL. Unset: any free one.")
    redis_port: Port | None = Field(None, description="Port of the embedded Valkey. Unset: any free one.")

    def models_config(self) -> ModelsConfig:
        """What the models stage needs of the settings."""
        return ModelsConfig(
            state_dir=self.state_dir,
            hub_endpoint=self.hub_endpoint,
            allowed_licences=self.allowed_licences,
            local_download_limit_bytes=int(self.local_download_limit_gib * GIB),
            hub_token=self.hub_token.get_secret_value() if self.hub_token else None,
        )

    @field_validator(
        "followed_authors", "followed_tags", "allowed_licences", "auto_benchmark_hardware", "auto_benchmark_workloads", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            if value.strip().lower() == NO_WORDS:
                return ()
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value

    @field_validator("state_dir", "engine_environments")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        return Path(os.path.abspath(value.expanduser()))  # noqa: PTH100  # resolve() would follow a link that the person chose

    @field_validator("checkpoints")
    @classmethod
    def _location(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parsed = parse_location(value)
        return os.path.abspath(parsed.expanduser()) if isinstance(parsed, Path) else str(parsed)  # noqa: PTH100  # as for state_dir

    @field_validator("database_url", "dagster_database_url")
    @classmethod
    def _postgres_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        scheme, separator, rest = value.get_secret_value().partition("://")
        if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg2"}:
            raise ValueError("expected postgresql://user:password@host:port/database")
        _check_port(value)
        return SecretStr(f"postgresql+psycopg2://{rest}")

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("expected redis://:password@host:port/0 (or rediss://, unix://)")
        _check_port(value)
        return value

    @field_validator("hub_endpoint")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("expected an address that starts with https:// or http://")
        return value.rstrip("/")


def _check_port(url: SecretStr | None) -> None:
    if url is None:
        return
    try:
        _ = urlsplit(url.get_secret_value()).port
    except ValueError:
        raise ValueError("the port is not a number between 0 and 65535 (percent-encode / ? # @ in a password)") from None


def load_settings() -> Settings:
    """The settings that the environment gives.

    Raises:
        SettingsError: a variable has a value that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise settings_error(error, "DYNO_") from None


def settings_error(error: ValidationError, prefix: str) -> SettingsError:
    """What is wrong with which variables, whose names are the fields' behind `prefix`. No value is repeated: it may be a secret."""
    problems = []
    for item in error.errors(include_input=False, include_url=False):
        field = str(item["loc"][0]) if item["loc"] else "settings"
        name = field if field.isupper() else f"{prefix}{field.upper()}"
        problems.append(f"{name}: {item['msg'].removeprefix('Value error, ')}")
    return SettingsError("; ".join(problems))


def prepare_state_dir(state_dir: Path) -> Path:
    """Make the state folder when it is missing, and prove that it can be written.

    Returns:
        The folder itself.

    Raises:
        StateFolderError: it is no folder, cannot be written, or its file system is full.
    """
    probe = state_dir / f".probe-{os.getpid()}"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            with probe.open("wb") as file:
                file.write(b"\0" * PROBE_BYTES)
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise StateFolderError(describe_state_dir_error(state_dir, error)) from error
    return state_dir


def describe_state_dir_error(state_dir: Path, error: OSError) -> str:
    """A sentence for a person about an operating system error on the state folder, with what to do."""
    move = "set DYNO_STATE_DIR to a folder that you can write"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the state folder {state_dir} is full: free some space there, or set DYNO_STATE_DIR to a folder on a larger disk"
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        return f"the state folder {state_dir} is not a folder (a file is in its place): remove the file, or {move}"
    if error.errno == errno.EROFS:
        return f"the state folder {state_dir} is on a read-only file system: {move}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"the state folder {state_dir} cannot be written by this user: change its owner or permissions, or {move}"
    return f"the state folder {state_dir} cannot be used ({error.strerror}): {move}"
