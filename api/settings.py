"""Settings of the API process: environment variables that start with `DYNO_`."""

from __future__ import annotations

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

POSTGRES_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg2")
DATABASE_URL_FORM = "expected postgresql://user:password@host:port/database"
REDIS_SCHEMES = ("redis", "rediss", "unix")


class ApiSettingsError(Exception):
    """A setting is missing or has a value that cannot be used; the message names the variable and what it accepts."""


class ApiSettings(BaseSettings):
    """What the API needs to know. URLs hold passwords and are never printed."""

    model_config = SettingsConfigDict(env_prefix="DYNO_", extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: SecretStr = Field(description="PostgreSQL of the catalog and the marts, postgresql://user:password@host:port/database")
    redis_url: SecretStr | None = Field(None, description="Redis or Valkey, redis://:password@host:port/0. Unset: answers are not cached.")

    api_cache_ttl_s: int = Field(300, ge=1, le=86_400, description="How long an answer is kept, seconds.")
    api_cache_timeout_s: float = Field(0.25, gt=0, le=10, description="How long a call to Redis may take, seconds.")
    api_cache_retry_after_s: float = Field(5.0, ge=0, le=600, description="How long Redis is left alone after an error, seconds.")

    api_database_connect_timeout_s: int = Field(2, ge=1, le=60, description="How long connecting to PostgreSQL may take, seconds.")
    api_statement_timeout_ms: int = Field(10_000, ge=100, le=600_000, description="How long one SQL statement may run, milliseconds.")
    api_database_pool_size: int = Field(10, ge=1, le=100, description="Connections to PostgreSQL that are kept open at most.")

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: SecretStr) -> SecretStr:
        scheme, separator, rest = value.get_secret_value().partition("://")
        if not separator or scheme not in POSTGRES_SCHEMES:
            raise ValueError(DATABASE_URL_FORM)
        return SecretStr(f"postgresql+psycopg2://{rest}")

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value().partition("://")[0] not in REDIS_SCHEMES:
            raise ValueError("expected redis://:password@host:port/0 (or rediss://, unix://)")
        return value


def load_settings(**given: str) -> ApiSettings:
    """The settings that the environment gives; those that are given here come first.

    Raises:
        ApiSettingsError: a variable is missing or has a value that cannot be used.
    """
    try:
        return ApiSettings.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(
            f"DYNO_{str(item['loc'][0]).upper()}: "
            + ("not set; " + DATABASE_URL_FORM if item["type"] == "missing" else item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ApiSettingsError(f"the API cannot start: {problems}") from None
