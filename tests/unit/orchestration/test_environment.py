"""The environment that every process gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from assets.rankings.dbt import DbtError, variables_of
from orchestration.local.environment import Endpoints, process_environment, temporary_dir
from orchestration.local.external import masked, with_database
from orchestration.settings import REPO_ROOT, Settings

ENDPOINTS = Endpoints("postgresql+psycopg2://u:p%40ss@h:6000/dyno", "postgresql+psycopg2://u:p%40ss@h:6000/dagster", "redis://:r@h:1/0")


def test_names_everything_that_a_process_needs() -> None:
    settings = Settings(state_dir=Path("/s"))
    environment = process_environment(settings, ENDPOINTS, base={"KEPT": "1", "PYTHONPATH": "/other"}, owner="1:2")
    assert environment["KEPT"] == "1"
    assert environment["DYNO_STATE_DIR"] == "/s"
    assert environment["DYNO_DATABASE_URL"] == ENDPOINTS.database_url
    assert environment["DYNO_DAGSTER_DATABASE_URL"] == ENDPOINTS.dagster_database_url
    assert environment["DYNO_REDIS_URL"] == ENDPOINTS.redis_url
    assert environment["DAGSTER_HOME"] == "/s/dagster"
    assert environment["PYTHONPATH"].split(":") == [str(REPO_ROOT), "/other"]
    assert environment["DYNO_OWNER"] == "1:2"
    assert len(environment["DYNO_INSTANCE"]) == 16
    assert "DYNO_CHECKPOINTS" not in environment
    elsewhere = Settings(state_dir=Path("/s"), checkpoints="s3://bucket/dyno/")
    assert process_environment(elsewhere, ENDPOINTS, base={}, owner="")["DYNO_CHECKPOINTS"] == "s3://bucket/dyno"


def test_dbt_gets_the_decoded_password() -> None:
    """A password with an @ must reach dbt as it is, not percent-encoded."""
    assert variables_of(make_url(ENDPOINTS.database_url)) == {
        "DYNO_PG_HOST": "h",
        "DYNO_PG_PORT": "6000",
        "DYNO_PG_USER": "u",
        "DYNO_PG_PASSWORD": "p@ss",
        "DYNO_PG_DBNAME": "dyno",
    }
    assert variables_of(make_url("postgresql+psycopg2://u@h/d"))["DYNO_PG_PORT"] == "5432"


def test_the_users_hub_cache_is_respected() -> None:
    settings = Settings(state_dir=Path("/s"))
    assert process_environment(settings, ENDPOINTS, base={"HF_HOME": "/h"}, owner="")["HF_HOME"] == "/h"
    assert process_environment(settings, ENDPOINTS, base={}, owner="")["HF_HOME"] == "/s/huggingface"


def test_no_temporary_folder_whose_sockets_would_have_too_long_a_path() -> None:
    """A unix socket's path has 107 characters at most; Dagster's code server would not start."""
    assert temporary_dir(Path("/s")) == Path("/s/tmp")
    assert temporary_dir(Path("/" + "s" * 100)) is None


def test_endpoints_do_not_show_their_passwords() -> None:
    assert "p%40ss" not in repr(ENDPOINTS)


@given(st.text("abcXYZ019-_.~", min_size=1), st.text("abcXYZ019-_.~%!", min_size=4))
def test_a_masked_url_keeps_everything_but_the_password(user: str, password: str) -> None:
    url = f"postgresql://{user}:<{password}>@host:5432/name"
    assert masked(url) == f"postgresql://{user}:***@host:5432/name"


def test_passwords_in_the_query_are_masked_too() -> None:
    url = "postgresql+psycopg2://db:5432/dyno?user=me&password=s3cret"
    assert masked(url) == "postgresql+psycopg2://db:5432/dyno?user=me&password=***"


def test_masking_urls_without_password() -> None:
    assert masked("redis://host:1/0") == "redis://host:1/0"
    assert masked("redis://me@host:1/0") == "redis://me@host:1/0"
    assert masked("redis://:pw@host:1/0") == "redis://:***@host:1/0"


def test_another_database_of_the_same_server() -> None:
    assert with_database("postgresql+psycopg2://u:p@h:1/dyno?sslmode=require", "dagster") == (
        "postgresql+psycopg2://u:p@h:1/dagster?sslmode=require"
    )


def test_options_of_the_database_reach_dbt_or_are_refused() -> None:
    """Certificates that everything else verifies must not go unverified there, and a socket's folder is the host."""
    url = make_url("postgresql+psycopg2://u:p@/d?host=/run/postgresql&sslmode=verify-full&sslrootcert=/ca.pem")
    variables = variables_of(url)
    assert (variables["DYNO_PG_HOST"], variables["PGSSLMODE"], variables["PGSSLROOTCERT"]) == ("/run/postgresql", "verify-full", "/ca.pem")
    with pytest.raises(DbtError, match="target_session_attrs"):
        variables_of(make_url("postgresql+psycopg2://u@h/d?target_session_attrs=read-write"))
