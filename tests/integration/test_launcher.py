"""The launcher on a machine that has never seen it: real environments, pip and uv; packages come from a folder, not from the network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestration.local.bootstrap import STAMP, uv_settings
from orchestration.settings import REPO_ROOT
from tests.deadlines import eventually

# Prints where it runs and with what, as the real command line's stand-in.
COMMAND_LINE = """
import importlib.util, os, sys
found = [name for name in ("probe_runtime", "probe_dev") if importlib.util.find_spec(name)]
print(sys.prefix, os.getcwd(), *found, *sys.argv[1:], sep="|")
"""


def write_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> str:
    """Write a pure wheel; gives its line for a requirements file."""
    info = f"{name}-{version}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*contents, f"{info}/RECORD")).encode()
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path, content in contents.items():
            archive.writestr(path, content)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


def wheel_of_uv(folder: Path) -> str | None:
    """The installed uv packed into a wheel again; None where the developers' tools were installed otherwise."""
    try:
        distribution = importlib.metadata.distribution("uv")
    except importlib.metadata.PackageNotFoundError:
        return None
    data = f"uv-{distribution.version}.data/scripts"
    files = {}
    for file in distribution.files or []:
        content = Path(str(file.locate())).read_bytes()
        if file.parent.name == "bin":
            files[f"{data}/{file.name}"] = content
        elif file.parts[0] == "uv" and file.suffix != ".pyc":
            files[str(file)] = content
    return write_wheel(folder, "uv", distribution.version, files)


@dataclass(frozen=True)
class Clone:
    """A small project with the real launcher."""

    root: Path
    wheels: Path
    environment: Mapping[str, str]

    def start(self, *arguments: str, script: Path | None = None, cwd: Path | None = None, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(script or self.root / "dyno"), *arguments],
            cwd=cwd or self.root,
            env={**self.environment, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, script: Path | None = None, cwd: Path | None = None, **extra: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = self.start(*arguments, script=script, cwd=cwd, **extra)
        out, err = process.communicate(timeout=120)
        return process.returncode, out.strip(), err


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    root, wheels = tmp_path / "a clone", tmp_path / "wheels"
    (root / "requirements").mkdir(parents=True)
    (root / "orchestration" / "local").mkdir(parents=True)
    wheels.mkdir()
    shutil.copy2(REPO_ROOT / "dyno", root / "dyno")
    shutil.copy2(REPO_ROOT / "orchestration" / "local" / "bootstrap.py", root / "orchestration" / "local")
    (root / "orchestration" / "__init__.py").touch()
    (root / "orchestration" / "cli.py").write_text(COMMAND_LINE)
    (root / "requirements" / "bootstrap.txt").write_text("")
    for group in ("runtime", "dev"):
        (root / "requirements" / f"{group}.txt").write_text(write_wheel(wheels, f"probe_{group}", "1.0", {f"probe_{group}.py": b""}))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG", "DYNO_TEST_RUN") if name in os.environ}
    environment = {**kept, "DYNO_PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    return Clone(root, wheels, environment)


def test_first_use_installs_and_the_second_does_not(clone: Clone, tmp_path: Path) -> None:
    """Also with a space in the path, from another folder, and through a link; standard output carries the result alone."""
    (clone.root / "requirements" / "bootstrap.txt").write_text(wheel_of_uv(clone.wheels) or "")
    link = tmp_path / "link"
    link.symlink_to("a clone/dyno")
    code, out, err = clone.run("status", "--json", script=link, cwd=tmp_path)
    assert (code, out) == (0, f"{clone.root / '.venv'}|{tmp_path}|probe_runtime|status|--json"), err
    assert "first use" in err
    assert clone.run("status") == (0, f"{clone.root / '.venv'}|{clone.root}|probe_runtime|status", "")
    # what it wrote besides .venv, and inside it besides the environment
    assert {path.name for path in clone.root.iterdir()} == {"dyno", "requirements", "orchestration", ".venv"}
    assert not {"tmp", "cache"} & {path.name for path in (clone.root / ".venv").iterdir()}


def test_the_tests_tools_come_with_the_first_test_and_stay(clone: Clone) -> None:
    assert clone.run("status")[1].endswith("|probe_runtime|status")
    assert clone.run("test")[1].endswith("|probe_runtime|probe_dev|test")
    _, out, err = clone.run("status")
    assert out.endswith("|probe_runtime|probe_dev|status")
    assert err == ""


def test_changed_requirements_are_installed(clone: Clone) -> None:
    assert clone.run("status")[0] == 0
    line = write_wheel(clone.wheels, "probe_runtime", "2.0", {"probe_runtime.py": b"", "probe_dev.py": b""})
    (clone.root / "requirements" / "runtime.txt").write_text(line)
    _, out, err = clone.run("status")
    assert out.endswith("|probe_runtime|probe_dev|status")
    assert "requirements have changed" in err


def test_a_package_with_another_hash_is_refused(clone: Clone) -> None:
    """Neither uv nor the way around it may install what the lock does not name."""
    write_wheel(clone.wheels, "probe_runtime", "1.0", {"probe_runtime.py": b"import os\n"})
    code, out, err = clone.run("status")
    assert code == 1
    assert out == ""
    assert "error: the packages could not be installed" in err
    assert not (clone.root / ".venv" / STAMP).exists()


def test_two_at_once_install_once(clone: Clone) -> None:
    both = [clone.start("status"), clone.start("status")]
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("dyno: installed" in err for _, err in results) == 1
    assert sum("another ./dyno is installing" in err for _, err in results) == 1


def test_an_installation_killed_half_way_is_made_good(clone: Clone) -> None:
    process = clone.start("status")
    eventually((clone.root / ".venv" / "pyvenv.cfg").exists, "the environment is being made", 30)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (clone.root / ".venv" / STAMP).exists()
    code, out, err = clone.run("status")
    assert code == 0, err
    assert out.endswith("|probe_runtime|status")


def test_a_folder_in_the_way_does_not_shadow_our_packages(clone: Clone, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (trap / "orchestration").mkdir(parents=True)
    (trap / "orchestration" / "__init__.py").write_text("raise SystemExit('shadowed')")
    code, _, err = clone.run("status", cwd=trap, PYTHONPATH=str(trap))
    assert code == 0, err


def test_no_usable_python_says_what_to_install(clone: Clone) -> None:
    code, _, err = clone.run("status", DYNO_PYTHON="/bin/false")
    assert code == 1
    assert "error: Dyno needs Python 3.11 or newer" in err
    assert "apt install python3-venv" in err


def test_a_folder_that_cannot_be_written_says_so(clone: Clone) -> None:
    """A file in the place of .venv stands for a read-only project: it stops root as well."""
    (clone.root / ".venv").write_text("")
    code, _, err = clone.run("status")
    assert code == 1
    assert "make the project's folder writable" in err
    assert "Traceback" not in err


def test_uv_gets_what_pip_is_configured_for() -> None:
    """uv does not read pip's configuration: behind a mirror it would ask the public index in vain."""
    settings = {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "\nhttps://a.example\nhttps://b.example",
        "cert": "/ca.pem",
    }
    variables, options = uv_settings(settings, {})
    assert variables == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://a.example https://b.example",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    assert options == []
    assert uv_settings(settings, {"UV_INDEX_URL": "https://mine.example"}) == ({}, [])
    assert uv_settings({"no-index": "1", "find-links": "/w /x"}, {}) == (
        {"UV_FIND_LINKS": "/w,/x", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ["--no-index"],
    )
