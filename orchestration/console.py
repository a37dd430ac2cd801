"""What the commands print: results on standard output, progress and notices on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_WIDTH_COLUMNS = 200

# A pipe has no width: rich would fold tables at 80 columns, which breaks what people grep for.
out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH_COLUMNS, soft_wrap=False, highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Print exactly one JSON document on standard output; dates and paths become strings."""
    sys.stdout.write(_as_json(document))
    sys.stdout.flush()


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document to a file; dates and paths become strings. Raises OSError."""
    path.write_text(_as_json(document), encoding="utf-8")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output. Numbers are right-aligned; None is shown as a dash."""
    materialized = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], (int, float)) for row in materialized)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in materialized:
        table.add_row(*("-" if cell is None else escape(str(cell)) for cell in row))
    out.print(table)


def progress() -> Progress:
    """A progress display on standard error: description, bar, count and elapsed time. Use it as a context manager."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=False,
    )


def _as_json(document: Any) -> str:
    return json.dumps(document, indent=2, default=str, ensure_ascii=False) + "\n"


def note(message: str) -> None:
    """Say on standard error what is going on."""
    err.print(f"[dim]·[/dim] {escape(message)}", soft_wrap=True)


def done(message: str) -> None:
    """Say on standard error that a step has ended well."""
    err.print(f"[green]✓[/green] {escape(message)}", soft_wrap=True)


def warn(message: str) -> None:
    """Say on standard error what needs attention without stopping."""
    err.print(f"[yellow]warning:[/yellow] {escape(message)}", soft_wrap=True)


def fail(message: str) -> None:
    """Print `error: <message>` on standard error. The caller ends with a non-zero exit code."""
    err.print(f"[bold red]error:[/bold red] {escape(message)}", soft_wrap=True)
