"""A deployment's flags on an engine's command line."""

from __future__ import annotations

from collections.abc import Mapping

from assets.benchmark.engines.protocol import BadFlagError, FlagValue, Option


def written(engine: str, options: Mapping[str, Option], settings: Mapping[str, FlagValue | None]) -> list[str]:
    """`settings` as command-line arguments, each in one piece; None is left to the engine's default.

    Raises:
        BadFlagError: a setting that the engine does not have, or a value of the wrong kind.
    """
    arguments: list[str] = []
    for name, value in settings.items():
        option = options.get(name)
        if option is None:
            raise BadFlagError(f"{engine} has no flag {name}: it has {', '.join(sorted(options))}")
        if value is None:
            continue
        if not _fits(value, option.kind):
            raise BadFlagError(f"{engine}: {name} must be {_KINDS[option.kind]}, not {value!r}")
        if option.kind is not bool:
            arguments.append(f"{option.name}={value}")
        elif value:
            arguments.append(option.name)
        elif option.off is not None:
            arguments.append(option.off)
    return arguments


def check_flags(engine: str, options: Mapping[str, Option], flags: Mapping[str, FlagValue]) -> None:
    """Raises BadFlagError for flags that the engine does not have."""
    unknown = sorted(set(flags) - set(options))
    if unknown:
        raise BadFlagError(f"{engine} has no flag {', '.join(unknown)}: it has {', '.join(sorted(options))}")


def one_of(engine: str, what: str, value: str, known: Mapping[str, str | None]) -> str | None:
    """The engine's word for `value`. Raises BadFlagError where it has none."""
    if value not in known:
        raise BadFlagError(f"{engine} has no {what} {value!r}: it has {', '.join(known)}")
    return known[value]


_KINDS: Mapping[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _fits(value: FlagValue, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
