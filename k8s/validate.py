"""Check the manifests without a cluster: Kubernetes' schemas at two versions, and our own rules (rules.py).

Run from the repository's root: `.venv/bin/python -m k8s.validate [--no-kubectl]`. Exit status 0, or 1 with one line for each problem.
With kubectl on the machine the base and every overlay are rendered; without it the base's files are checked as they are written.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import kubernetes_validate

from k8s.manifests import KUSTOMIZATION, Document, ManifestError, kubectl, read_files, render, title
from k8s.rules import every_problem

ROOT = Path(__file__).resolve().parents[1]
# The oldest version that the manifests are meant for, and the newest that the schemas' package knows.
VERSIONS = ("1.33", "1.37")
SECRET_ROW = re.compile(r"^\|\s*`(?P<name>[a-z0-9.-]+)`\s*\|\s*`(?P<key>[A-Za-z0-9_.-]+)`\s*\|", re.MULTILINE)


def documented_secrets(document: str) -> set[tuple[str, str]]:
    """(name, key) of the rows of the Secrets' table, whose first two columns are `name` and `KEY`."""
    return {(match["name"], match["key"]) for match in SECRET_ROW.finditer(document)}


def schema_problems(documents: list[Document], versions: tuple[str, ...] = VERSIONS) -> list[str]:
    """What Kubernetes' own schemas say; unknown fields are problems too."""
    problems = []
    for document in documents:
        for version in versions:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(str(part) for part in error.path)
                problems.append(f"{title(document)}: Kubernetes {version}: {where or 'document'}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                problems.append(f"{title(document)}: {error.message}")
    return problems


def check(folder: Path, secrets: set[tuple[str, str]], kubectl_path: str | None) -> tuple[int, list[str]]:
    """(number of documents, problems) of a base or an overlay.

    Raises:
        ManifestError: the folder cannot be read or rendered.
    """
    documents = render(folder, kubectl_path) if kubectl_path else read_files(folder)
    wrong_shape = schema_problems(documents)
    # The rules read fields that only well-formed documents have.
    return len(documents), wrong_shape or every_problem(documents, secrets)


def main(arguments: list[str]) -> int:
    """Check this repository's base and overlays; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m k8s.validate", description="Check the Kubernetes manifests without a cluster.")
    parser.add_argument("--no-kubectl", action="store_true", help="check the base's files as they are written, without rendering")
    options = parser.parse_args(arguments)
    kubectl_path = None if options.no_kubectl else kubectl()
    secrets = documented_secrets((ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8"))
    folders = [ROOT / "k8s" / "base"]
    if kubectl_path:
        folders += sorted(path.parent for path in (ROOT / "k8s" / "overlays").glob(f"*/{KUSTOMIZATION}"))
    else:
        print("no kubectl: the base is checked as written, overlays are not rendered")
    failed = False
    for folder in folders:
        name = folder.relative_to(ROOT)
        try:
            count, problems = check(folder, secrets, kubectl_path)
        except ManifestError as error:
            count, problems = 0, [str(error)]
        for problem in problems:
            print(f"error: {name}: {problem}", file=sys.stderr)
        if not problems:
            print(f"{name}: {count} documents are valid at Kubernetes {' and '.join(VERSIONS)}")
        failed = failed or bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
