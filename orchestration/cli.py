"""The command line: `./dyno COMMAND`. Turns our errors into one line for a person; a traceback is shown with DYNO_DEBUG=1 only."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import typer

from orchestration import console

OUR_PACKAGES = frozenset({"assets", "api", "orchestration"})
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
DESCRIPTION = """Dyno measures LLM inference and recommends, with evidence, what should serve a load.

Start with `./dyno demo`. Everything is kept in the folder .dyno (DYNO_STATE_DIR moves it).
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A function of the same name in a module of orchestration.commands, with its line of `./dyno --help`.

    Of a group the module has `app`, which holds its commands.
    """

    module: str
    summary: str
    context_settings: dict[str, Any] = field(default_factory=dict)
    json_to_file: bool = False
    group: bool = False


COMMANDS = {
    "demo": Command("demo", "From nothing to a recommendation: measure small models on this machine, rank them."),
    "up": Command("services", "Start everything: databases, Dagster, API and docs."),
    "down": Command("services", "Stop what `./dyno up` started."),
    "status": Command("services", "Show what runs, where, and how it is doing."),
    "recommend": Command("recommend", "Recommend model, engine, quantization and hardware for a load."),
    "bench": Command("bench", "Measure any server that streams tokens.", json_to_file=True),
    "calibrate": Command("calibrate", "Show how right the load generator is on this machine.", json_to_file=True),
    "matrix": Command("matrix", "List the configurations to measure for a model, and why others cannot run."),
    "k8s": Command("k8s", "Show the pods that batches run as on a cluster.", group=True),
    "test": Command("test", "Run the project's tests.", {"allow_extra_args": True, "ignore_unknown_options": True}),
}


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The application for these arguments: only the module of the command that they name is imported, so that `--help` is quick."""
    app = typer.Typer(name="dyno", help=DESCRIPTION, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        if name == named:
            module = importlib.import_module(f"orchestration.commands.{command.module}")
            if command.group:
                app.add_typer(module.app, name=name)
                continue
            function = getattr(module, name)
            app.command(name, context_settings=command.context_settings)(function)
        else:
            app.command(name, help=command.summary)(_another_command)
    return app


def _with_json_target(arguments: Sequence[str]) -> list[str]:
    """`--json` without a file means standard output: the option gets a `-` for a value, which typer has no way to leave out."""
    command = COMMANDS.get(next((argument for argument in arguments if not argument.startswith("-")), ""))
    completed: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], "-x"], strict=True):
        completed.append(argument)
        if command is not None and command.json_to_file and argument == "--json" and following.startswith("-") and following != "-":
            completed.append("-")
    return completed


def _another_command() -> None:
    """Stands in the overview for a command that the arguments do not name, and so never runs."""
    raise AssertionError


def main() -> None:
    """Run the command of `sys.argv` and end the process with its exit code."""
    # Otherwise SIGTERM ends Python without clean-up; the commands' `finally` blocks stop what they started.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        arguments = sys.argv[1:]
        build_app(arguments)(prog_name="./dyno", args=_with_json_target(arguments))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:  # the last line of defence between a person and a traceback
        if os.environ.get("DYNO_DEBUG"):
            raise
        console.fail(explain(error))
        sys.exit(EXIT_ERROR)


def explain(error: Exception) -> str:
    """A sentence for a person. Our own errors say what to do; of others we can say only where they come from."""
    if type(error).__module__.partition(".")[0] in OUR_PACKAGES:
        return str(error)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        from orchestration.settings import describe_state_dir_error, load_settings  # noqa: PLC0415  # `--help` must not pay for pydantic

        return describe_state_dir_error(load_settings().state_dir, error)
    return f"unexpected {type(error).__name__}: {error} (set DYNO_DEBUG=1 to see where; please report it)"


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
