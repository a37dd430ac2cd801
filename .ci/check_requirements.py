"""Check offline that each requirements/*.txt is what its .in asks for: compiled, hashed, consistent, and bound to no package registry.

Run: `.venv/bin/python .ci/check_requirements.py [FOLDER]`. Exit status 0, or 1 with one line for each problem.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}(?=\s|$)")
# A compiled file must install from whatever registry or mirror the machine is set up with.
REGISTRY = re.compile(r"https?://|--(?:extra-)?index-url|--find-links|(?:^|\s)-[if]\s|\s@\s", re.IGNORECASE)


@dataclass(frozen=True)
class Pin:
    """One `name==version ; marker` of a compiled file."""

    name: str
    version: Version
    marker: Marker | None
    has_hashes: bool
    asked_by: frozenset[str]
    """The .in files that name this package, as uv writes them after `# via -r`."""


def read_input(path: Path) -> dict[str, list[Requirement]]:
    """The packages that an .in file asks for, by canonical name.

    Raises:
        InvalidRequirement: a line is no requirement; the message quotes it.
    """
    requirements: dict[str, list[Requirement]] = {}
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.split("#", 1)[0].strip()
        if line and not line.startswith("-"):
            requirement = Requirement(line)
            requirements.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return requirements


def read_pins(path: Path) -> list[Pin]:
    """The pins of a compiled file, in its order.

    Raises:
        InvalidRequirement: an entry is no requirement, or is not pinned to one version with `==`.
    """
    pins: list[Pin] = []
    # An entry begins at the margin; its hashes and its `# via` comments are indented below it.
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]
    entry = 0
    numbered: list[tuple[int, str]] = []
    for line in lines:
        entry += not line[0].isspace()
        numbered.append((entry, line))
    for _, group in groupby(numbered, key=lambda pair: pair[0]):
        block = [line for _, line in group]
        text = " ".join(line.rstrip("\\").strip() for line in block if not line.lstrip().startswith("#"))
        requirement = Requirement(text.split(" --hash", 1)[0].strip())
        specifiers = list(requirement.specifier)
        if len(specifiers) != 1 or specifiers[0].operator != "==":
            raise InvalidRequirement(f"{requirement} is not pinned to one version with ==")
        comments = " ".join(line.strip().lstrip("#") for line in block if line.lstrip().startswith("#"))
        pins.append(
            Pin(
                name=canonicalize_name(requirement.name),
                version=Version(specifiers[0].version),
                marker=requirement.marker,
                has_hashes=HASH.search(text) is not None,
                asked_by=frozenset(re.findall(r"-r (?:\S*/)?(\S+\.in)", comments)),
            )
        )
    return pins


def check_pair(source: Path, compiled: Path) -> list[str]:
    """Problems of one .in file and the .txt beside it."""
    if not compiled.exists():
        return [f"{compiled.name}: missing; run requirements/compile"]
    problems = [
        f"{compiled.name}:{number}: names a registry or an address: {line.strip()}"
        for number, line in enumerate(compiled.read_text(encoding="utf-8").splitlines(), 1)
        if REGISTRY.search(line)
    ]
    try:
        wanted, pins = read_input(source), read_pins(compiled)
    except InvalidRequirement as error:
        return [*problems, f"{source.stem}: {error}"]
    problems += [f"{compiled.name}: {pin.name}=={pin.version} has no hash" for pin in pins if not pin.has_hashes]
    for name, requirements in wanted.items():
        matching = [pin for pin in pins if pin.name == name]
        if not matching:
            problems.append(f"{compiled.name}: {name} is in {source.name} but not compiled; run requirements/compile")
        problems += [
            f"{compiled.name}: {name}=={pin.version} does not satisfy `{requirement}` of {source.name}; run requirements/compile"
            for pin in matching
            for requirement in requirements
            if not requirement.specifier.contains(pin.version, prereleases=True)
        ]
    problems += [
        f"{compiled.name}: {pin.name} was asked for by {source.name}, which does not name it any more; run requirements/compile"
        for pin in pins
        if source.name in pin.asked_by and pin.name not in wanted
    ]
    return problems


def check_agreement(reference: Path, other: Path) -> list[str]:
    """Packages that two compiled files pin differently: they share an environment or exchange files, so they must agree."""
    try:
        known: dict[str, set[Version]] = {}
        for pin in read_pins(reference):
            known.setdefault(pin.name, set()).add(pin.version)
        return [
            f"{other.name}: {pin.name}=={pin.version}, but {reference.name} has {', '.join(sorted(map(str, known[pin.name])))};"
            " run requirements/compile"
            for pin in read_pins(other)
            if pin.name in known and pin.version not in known[pin.name]
        ]
    except InvalidRequirement:
        return []  # check_pair reports it


def check(folder: Path) -> list[str]:
    """All problems of a requirements folder, one sentence each."""
    sources = sorted(folder.glob("*.in"))
    if not sources:
        return [f"{folder}: no .in file"]
    problems = [problem for source in sources for problem in check_pair(source, source.with_suffix(".txt"))]
    reference = folder / "runtime.txt"
    for name in ("dev.txt", "worker.txt"):
        if reference.exists() and (folder / name).exists():
            problems += check_agreement(reference, folder / name)
    return problems


def main(arguments: list[str]) -> int:
    """Check the folder named in `arguments`, by default the repository's own; returns the exit status."""
    folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1] / "requirements"
    problems = check(folder)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"{len(list(folder.glob('*.in')))} compiled requirement files are in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
