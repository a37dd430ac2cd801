"""Settings say what is wrong; nothing that is printed holds a password."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from api.logs import JsonFormatter
from api.settings import ApiSettingsError, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DYNO_DATABASE_URL", "DYNO_REDIS_URL", "DYNO_API_CACHE_TTL_S"):
        monkeypatch.delenv(name, raising=False)


def test_a_missing_database_is_named_with_the_form_of_its_url() -> None:
    with pytest.raises(ApiSettingsError, match="DYNO_DATABASE_URL: not set; expected postgresql://"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DYNO_DATABASE_URL", "mysql://me:secret@host/db", "expected postgresql://"),
        ("DYNO_REDIS_URL", "http://:secret@host", "expected redis://"),
        ("DYNO_API_CACHE_TTL_S", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv("DYNO_DATABASE_URL", "postgresql://me:secret@host/db")
    monkeypatch.setenv(name, value)
    with pytest.raises(ApiSettingsError, match=f"{name}: .*{words}") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


def test_passwords_are_not_shown() -> None:
    settings = load_settings(database_url="postgres://me:secret@host/db", redis_url="redis://:secret@host")
    assert "secret" not in f"{settings} {settings!r}"
    assert settings.database_url.get_secret_value() == "postgresql+psycopg2://me:secret@host/db"


def test_the_server_ends_with_a_sentence_when_it_is_not_configured() -> None:
    """`uvicorn api.main:app` without settings: an error line and a non-zero exit code, no traceback."""
    ended = subprocess.run(
        [sys.executable, "-c", "from api.main import app"], capture_output=True, text=True, timeout=60, check=False, env={"PATH": ""}
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: the API cannot start: DYNO_DATABASE_URL")
    assert "Traceback" not in ended.stderr


def test_a_log_record_is_one_json_line() -> None:
    """Newlines in messages and tracebacks stay inside the line; extra fields come along."""
    try:
        int("one")
    except ValueError:
        record = logging.getLogger("dyno").makeRecord(
            "dyno", logging.ERROR, __file__, 1, "it %s", ("failed\ntwice",), sys.exc_info(), extra={"request_id": "r1"}
        )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["message"], entry["request_id"]) == ("error", "it failed\ntwice", "r1")
    assert "ValueError: invalid literal" in entry["traceback"]
