"""Check that the documentation is still true where a machine can tell.

Relative links, images and anchors lead somewhere; every `./dyno` command line names commands and options that exist; every `DYNO_*`
variable is one that the code reads; every decision record has its status, decision and reasons.

Run: `.venv/bin/python .ci/check_docs.py`. Exit status 0, or 1 with one line for each problem.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
ADR_PARTS = ("Status", "Decision", "Reasons")
VARIABLE = re.compile(r"\bDYNO_[A-Z0-9_]*")
SHELL_VARIABLE = re.compile(r"\$\{?(DYNO_[A-Z0-9_]+)")
QUOTED_VARIABLE = re.compile(r"""["'](DYNO_[A-Z0-9_]+)["']""")
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
HTML_TARGET = re.compile(r"""\b(?:src|href)\s*=\s*["']([^"']+)["']""", re.IGNORECASE)
HTML_ID = re.compile(r"""\b(?:id|name)\s*=\s*["']([^"']+)["']""", re.IGNORECASE)
CONTROL = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "(", ")", "2>", "|&"})
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
# `./dyno COMMAND`, `./dyno <command>`, `./dyno ...`: a placeholder, not a name
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_-]*$|<.*|\.\.\.|…|\[.*")


@dataclass(frozen=True)
class Command:
    """One command of the CLI: its options, with whether each takes a value, and its subcommands."""

    options: Mapping[str, bool]
    commands: Mapping[str, Command] = field(default_factory=dict)
    passes_options_on: bool = False
    """Whether it hands options that it does not know to another program, as `./dyno test` does to pytest."""


@dataclass(frozen=True)
class Page:
    """What the checks read of one Markdown file."""

    path: Path
    targets: tuple[tuple[int, str], ...]
    """(line, target) of links and images."""
    anchors: frozenset[str]
    code: tuple[tuple[int, str], ...]
    """(first line, text) of code blocks and inline code."""


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, spaces to hyphens, no other punctuation than - and _."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def read_page(path: Path) -> Page:
    """Parse one Markdown file."""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    targets: list[tuple[int, str]] = []
    code: list[tuple[int, str]] = []
    anchors: set[str] = set()
    line = 0
    for index, token in enumerate(tokens):
        line = token.map[0] + 1 if token.map else line
        if token.type in {"fence", "code_block"}:
            code.append((line + (token.type == "fence"), token.content))
        elif token.type == "html_block":
            targets += [(line, target) for target in HTML_TARGET.findall(token.content)]
            anchors.update(HTML_ID.findall(token.content))
        elif token.type == "heading_open":
            anchors.add(_unused(slug(_plain(tokens[index + 1])), anchors))
        for child in token.children or []:
            if child.type in {"link_open", "image"}:
                targets.append((line, str(child.attrs.get("href" if child.type == "link_open" else "src", ""))))
            elif child.type == "code_inline":
                code.append((line, child.content))
            elif child.type == "html_inline":
                targets += [(line, target) for target in HTML_TARGET.findall(child.content)]
                anchors.update(HTML_ID.findall(child.content))
    return Page(path, tuple(targets), frozenset(anchors), tuple(code))


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type in {"text", "code_inline"})


def _unused(name: str, taken: set[str]) -> str:
    """GitHub numbers headings that are called the same."""
    number, candidate = 0, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def link_problems(page: Page, root: Path) -> Iterator[str]:
    """Relative links and images whose file, folder or anchor does not exist."""
    for line, target in page.targets:
        if not target or EXTERNAL.match(target):
            continue
        where = f"{page.path.relative_to(root)}:{line}: `{target}`"
        file, _, anchor = unquote(target).partition("#")
        file = file.partition("?")[0]
        base = root if file.startswith("/") else page.path.parent
        destination = (base / file.lstrip("/")).resolve() if file else page.path
        if not destination.is_relative_to(root):
            yield f"{where} leads out of the repository"
        elif not destination.exists():
            yield f"{where} does not exist"
        elif anchor and destination.suffix == ".md" and anchor not in read_page(destination).anchors:
            yield f"{where}: {destination.relative_to(root)} has no heading `{anchor}`"


def command_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line offset, words after `./dyno`) of each call of `./dyno` in shell text.

    Raises:
        ValueError: a line that calls `./dyno` has an unclosed quote.
    """
    lines = text.split("\n")
    offset = 0
    while offset < len(lines):
        start, line = offset, lines[offset]
        while line.endswith("\\") and offset + 1 < len(lines):
            offset += 1
            line = line[:-1] + lines[offset]
        offset += 1
        if "dyno " not in f"{line} ":
            continue
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        segment: list[str] = []
        for word in [*lexer, ";"]:
            if word not in CONTROL:
                segment.append(word)
                continue
            while segment and ASSIGNMENT.match(segment[0]):
                segment.pop(0)
            if segment and segment[0] == "./dyno":
                yield start, segment[1:]
            segment = []


def command_problem(words: list[str], cli: Command) -> str | None:
    """What is wrong with the words of one call, or None."""
    command, path = cli, "./dyno"
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            name, _, value = word.partition("=")
            if name == "--help":
                continue
            if command.passes_options_on:
                break
            if name not in command.options:
                return f"`{path}` has no option `{name}`"
            if command.options[name] and not value and rest:
                rest.pop(0)
        elif command.commands:
            if PLACEHOLDER.match(word):
                break
            if word not in command.commands:
                return f"`{path}` has no command `{word}`"
            command, path = command.commands[word], f"{path} {word}"
    return None


def command_problems(page: Page, root: Path, cli: Command) -> Iterator[str]:
    """Calls of `./dyno` in code that the CLI would refuse."""
    for first, text in page.code:
        try:
            for offset, words in command_lines(text):
                problem = command_problem(words, cli)
                if problem:
                    yield f"{page.path.relative_to(root)}:{first + offset}: {problem}"
        except ValueError as error:
            yield f"{page.path.relative_to(root)}:{first}: cannot be read as a shell command: {error}"


def variable_problems(page: Page, root: Path, known: frozenset[str]) -> Iterator[str]:
    """`DYNO_*` names that the code does not know; a name that ends in `_` stands for all that begin so."""
    for number, line in enumerate(page.path.read_text(encoding="utf-8").splitlines(), 1):
        for name in VARIABLE.findall(line):
            if name not in known and not (name.endswith("_") and any(other.startswith(name) for other in known)):
                yield f"{page.path.relative_to(root)}:{number}: the code reads no {name}"


def adr_problems(folder: Path, root: Path) -> Iterator[str]:
    """Decision records without a number, a status, a decision or its reasons."""
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        number = re.match(r"(\d{4})-", path.name)
        if number is None or not re.match(rf"# {int(number[1])}\. ", text):
            yield f"{path.relative_to(root)}: file and title must begin with the same number: NNNN-title.md, `# N. Title`"
        for part in ADR_PARTS:
            if not re.search(rf"^(?:#+ |\*\*){part}\b", text, re.MULTILINE):
                yield f"{path.relative_to(root)}: has no {part}"


def describe(command: Any) -> Command:
    """The options and subcommands of a command that Typer built."""
    options: dict[str, bool] = {}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            takes_value = not (parameter.is_flag or parameter.count)
            options |= dict.fromkeys([*parameter.opts, *parameter.secondary_opts], takes_value)
    if not hasattr(command, "list_commands"):
        return Command(options, passes_options_on=command.context_settings.get("ignore_unknown_options", False))
    # Asked the way `--help` asks: a group may load its commands late.
    context = command.context_class(command)
    return Command(options, {name: describe(command.get_command(context, name)) for name in command.list_commands(context)})


def load_cli() -> Command:
    """The CLI as it is now."""
    import typer  # noqa: PLC0415  # only here: the other checks need no installed project

    from orchestration.cli import COMMANDS, build_app  # noqa: PLC0415

    # The application imports only the command that it is asked for: ask for each.
    commands = {name: describe(typer.main.get_command(build_app([name]))).commands[name] for name in COMMANDS}
    return Command(describe(typer.main.get_command(build_app([]))).options, commands)


def load_variables() -> frozenset[str]:
    """The environment variables of the settings classes, and those that the code names itself."""
    from pydantic import AliasChoices  # noqa: PLC0415
    from pydantic_settings import BaseSettings  # noqa: PLC0415

    import api.settings  # noqa: PLC0415
    import orchestration.kubernetes_settings  # noqa: PLC0415
    import orchestration.settings  # noqa: PLC0415

    names: set[str] = set()
    for module in (api.settings, orchestration.settings, orchestration.kubernetes_settings):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseSettings) and value is not BaseSettings:
                prefix = value.model_config.get("env_prefix", "")
                for name, info in value.model_fields.items():
                    alias = info.validation_alias
                    aliases = alias.choices if isinstance(alias, AliasChoices) else [alias or f"{prefix}{name}"]
                    names.update(str(item).upper() for item in aliases)
    for package in ("api", "assets", "orchestration", "tests"):
        for path in (ROOT / package).rglob("*.py"):
            names.update(QUOTED_VARIABLE.findall(path.read_text(encoding="utf-8")))
    names.update(SHELL_VARIABLE.findall((ROOT / "dyno").read_text(encoding="utf-8")))
    return frozenset(names)


def check(root: Path, cli: Command, variables: frozenset[str]) -> list[str]:
    """All problems of README.md and docs/ under `root`, one sentence each."""
    problems: list[str] = []
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        if not path.exists():
            problems.append(f"{path.relative_to(root)} does not exist")
            continue
        page = read_page(path)
        problems += [*link_problems(page, root), *command_problems(page, root, cli), *variable_problems(page, root, variables)]
    return problems + list(adr_problems(root / "docs" / "adr", root))


def main() -> int:
    """Check this repository's documentation; returns the exit status."""
    sys.path.insert(0, str(ROOT))
    problems = check(ROOT, load_cli(), load_variables())
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"README.md and {len(list((ROOT / 'docs').rglob('*.md')))} pages of docs/ agree with the code")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
