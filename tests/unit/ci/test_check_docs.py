"""The documentation check finds dead links, commands that do not exist, unknown variables and unfinished decision records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer

from tests.unit.ci.scripts import load

check_docs = load("check_docs")

app = typer.Typer()
matrix_app = typer.Typer()
app.add_typer(matrix_app, name="matrix")


@app.command()
def recommend(use_case: str, rps: float = 1.0, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    pass


@matrix_app.command("list")
def list_(count: Annotated[bool, typer.Option("--count/--no-count", "-c")] = False) -> None:
    pass


CLI = check_docs.describe(typer.main.get_command(app))
VARIABLES = frozenset({"DYNO_STATE_DIR", "DYNO_PG_HOST"})
ADR = "# 1. Title\n\n**Status:** accepted\n\n**Decision.** So.\n\n**Reasons.** Because.\n"


def project(root: Path, readme: str = "# Dyno\n", **docs: str) -> Path:
    (root / "docs" / "adr").mkdir(parents=True)
    (root / "README.md").write_text(readme, encoding="utf-8")
    for name, text in docs.items():
        (root / "docs" / f"{name}.md").write_text(text, encoding="utf-8")
    return root


def problems(root: Path) -> list[str]:
    found: list[str] = check_docs.check(root.resolve(), CLI, VARIABLES)
    return found


def test_links_that_lead_somewhere_are_accepted(tmp_path: Path) -> None:
    readme = """# Dyno

[guide](docs/guide.md#how-to-start-dyno-up) [same page](#dyno) [folder](docs/) [second](docs/guide.md#twice-1) [by id](docs/guide.md#here)
[root](/docs/guide.md) [web](https://example.com/x.md) [mail](mailto:a@example.com) ![picture](docs/a%20b.png) <img src="docs/a b.png">
[reference][r]

[r]: docs/guide.md
"""
    root = project(
        tmp_path, readme, guide='# How to start: `dyno up`\n\n## Twice\n\n## Twice\n\n<a id="here"></a>\n\n[back](../README.md)\n'
    )
    (root / "docs" / "a b.png").write_bytes(b"")
    assert problems(root) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[x](docs/none.md)", "README.md:3: `docs/none.md` does not exist"),
        ("![x](docs/none.png)", "README.md:3: `docs/none.png` does not exist"),
        ("<img src='none.png'>", "README.md:3: `none.png` does not exist"),
        ("[x](docs/guide.md#none)", "README.md:3: `docs/guide.md#none`: docs/guide.md has no heading `none`"),
        ("[x](#none)", "README.md:3: `#none`: README.md has no heading `none`"),
        ("[x](../../etc)", "README.md:3: `../../etc` leads out of the repository"),
        ("| a |\n|---|\n| [x](none.md) |", "README.md:5: `none.md` does not exist"),
    ],
)
def test_a_link_that_leads_nowhere_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    assert problems(project(tmp_path, f"# Dyno\n\n{text}\n", guide="# Guide\n")) == [complaint]


@pytest.mark.parametrize(
    "line",
    [
        "./dyno recommend chatbot --rps 30 --json | jq '.rank'  # a comment, ./dyno nothing",
        "$ DYNO_STATE_DIR=/tmp/x ./dyno matrix list -c && ./dyno matrix list --no-count > out.txt",
        "./dyno recommend chatbot \\\n    --rps=30",
        "./dyno COMMAND --help",
        "./dyno <command>",
        "./dyno --help",
        "curl https://example.com/dyno --data x",
        "cd dyno && ls --none",
    ],
)
def test_calls_that_the_cli_takes_are_accepted(tmp_path: Path, line: str) -> None:
    assert problems(project(tmp_path, f"# Dyno\n\n```sh\n{line}\n```\n")) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```sh\ntrue\n./dyno advise\n```", "README.md:5: `./dyno` has no command `advise`"),
        ("```\n./dyno recommend chatbot --speed 3\n```", "README.md:4: `./dyno recommend` has no option `--speed`"),
        ("```\n./dyno matrix drop\n```", "README.md:4: `./dyno matrix` has no command `drop`"),
        ("    true; ./dyno advise", "README.md:3: `./dyno` has no command `advise`"),
        ("Run `./dyno advise` first.", "README.md:3: `./dyno` has no command `advise`"),
    ],
)
def test_a_call_that_the_cli_refuses_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    assert problems(project(tmp_path, f"# Dyno\n\n{text}\n")) == [complaint]


def test_an_unclosed_quote_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    (problem,) = problems(project(tmp_path, "# Dyno\n\n```\n./dyno recommend 'chatbot\n```\n"))
    assert problem == "README.md:4: cannot be read as a shell command: No closing quotation"


def test_variables_must_be_known(tmp_path: Path) -> None:
    readme = "# Dyno\n\n`DYNO_STATE_DIR`, `DYNO_PG_*` and DYNO_COLOUR, `DYNO_HOST_*`\n"
    assert problems(project(tmp_path, readme)) == [
        "README.md:3: the code reads no DYNO_COLOUR",
        "README.md:3: the code reads no DYNO_HOST_",
    ]


def test_a_decision_record_needs_its_parts(tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / "docs" / "adr" / "0001-good.md").write_text(ADR, encoding="utf-8")
    (root / "docs" / "adr" / "0002-headings.md").write_text("# 2. T\n\n## Status\n\n## Decision\n\n## Reasons\n", encoding="utf-8")
    (root / "docs" / "adr" / "0003-bad.md").write_text(ADR.replace("Reasons", "Musings"), encoding="utf-8")
    assert problems(root) == [
        "docs/adr/0003-bad.md: file and title must begin with the same number: NNNN-title.md, `# N. Title`",
        "docs/adr/0003-bad.md: has no Reasons",
    ]


def test_a_missing_readme_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    assert problems(tmp_path) == ["README.md does not exist"]


def test_settings_and_names_in_the_code_are_known_variables() -> None:
    known = check_docs.load_variables()
    assert {"DYNO_STATE_DIR", "DYNO_DATABASE_URL", "DYNO_PG_HOST", "DYNO_API_CACHE_TTL_S"} <= known
    assert "DYNO_" not in known
