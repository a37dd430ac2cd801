"""The requirements check accepts what we ship and finds each way in which a compiled file can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.ci.scripts import ROOT, load

check_requirements = load("check_requirements")

HASH = "sha256:" + "0" * 64


def entry(pin: str, via: str = "-r runtime.in", *, hashes: bool = True) -> str:
    hash_line = f" \\\n    --hash={HASH}" if hashes else ""
    return f"{pin}{hash_line}\n    # via {via}\n"


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def test_the_projects_own_files_are_in_order() -> None:
    assert check_requirements.check(ROOT / "requirements") == []


def test_markers_extras_comments_and_constraints_are_understood(tmp_path: Path) -> None:
    files = {
        "runtime.in": "# why\nUvicorn[standard] >= 0.30  # a server\nnumpy\n-c other.txt\n",
        "runtime.txt": "# made by a tool\n"
        + entry("numpy==2.4.6 ; python_full_version < '3.12'")
        + entry("numpy==2.5.5 ; python_full_version >= '3.12'")
        + entry("uvicorn[standard]==0.40.0", via="\n    #   -r runtime.in\n    #   other"),
    }
    assert check_requirements.check(folder(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("wanted", "compiled", "complaint"),
    [
        ("numpy", entry("numpy==2.4.6", hashes=False), "numpy==2.4.6 has no hash"),
        ("numpy\nscipy", entry("numpy==2.4.6"), "scipy is in runtime.in but not compiled"),
        ("numpy>=3", entry("numpy==2.4.6"), "numpy==2.4.6 does not satisfy `numpy>=3`"),
        ("scipy", entry("scipy==1.0") + entry("numpy==2.4.6"), "numpy was asked for by runtime.in, which does not name it any more"),
        ("numpy", entry("numpy>=2"), "is not pinned"),
        ("numpy", "--index-url https://registry.example/simple\n" + entry("numpy==2.4.6"), "runtime.txt:1: names a registry"),
        ("numpy", "numpy @ https://registry.example/numpy.whl\n", "is not pinned"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, wanted: str, compiled: str, complaint: str) -> None:
    problems = check_requirements.check(folder(tmp_path, {"runtime.in": wanted, "runtime.txt": compiled}))
    assert any(complaint in problem for problem in problems), problems


def test_an_address_in_a_comment_is_found(tmp_path: Path) -> None:
    compiled = "# from https://registry.example/simple\n" + entry("numpy==2.4.6")
    (problem,) = check_requirements.check(folder(tmp_path, {"runtime.in": "numpy", "runtime.txt": compiled}))
    assert problem == "runtime.txt:1: names a registry or an address: # from https://registry.example/simple"


def test_a_missing_compiled_file_is_named(tmp_path: Path) -> None:
    assert check_requirements.check(folder(tmp_path, {"dev.in": "pytest"})) == ["dev.txt: missing; run requirements/compile"]


def test_environments_that_are_shared_must_agree(tmp_path: Path) -> None:
    files = {
        "runtime.in": "numpy",
        "runtime.txt": entry("numpy==2.4.6"),
        "worker.in": "numpy",
        "worker.txt": entry("numpy==2.4.5", via="-r worker.in"),
    }
    (problem,) = check_requirements.check(folder(tmp_path, files))
    assert problem.startswith("worker.txt: numpy==2.4.5, but runtime.txt has 2.4.6")


def test_the_exit_status_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_requirements.main([str(folder(tmp_path, {"dev.in": "pytest"}))]) == 1
    assert capsys.readouterr().err == "error: dev.txt: missing; run requirements/compile\n"
