"""Makes .venv: `python3 -I bootstrap.py ROOT GROUP CHECKSUM`, run by the launcher with whatever Python there is. Standard library only.

Everything is written inside .venv (caches and temporary files too, removed at the end). Two launchers at once wait for one another; one
that was killed is made good by the next, because the stamp that says "installed" is written last.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

STAMP = "dyno-installed"
# pip's name for a setting -> uv's environment variable; uv does not read pip's configuration
PIP_SETTINGS = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS", "cert": "SSL_CERT_FILE"}
UV_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE")
PIP_SCOPES = ("global", "install", ":env:")  # a later one wins


class InstallError(Exception):
    """The installation did not succeed; the message says why and what to do."""


def say(message: str) -> None:
    """Tell the person what is going on. Standard error: standard output belongs to the command's result."""
    print(f"dyno: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Hold a lock on the project's folder itself: no file is needed, and the kernel drops it when this process is killed."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another ./dyno is installing; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def install(root: Path, group: str, checksum: str) -> None:
    """Make .venv what the requirement files say.

    Raises:
        InstallError: it did not succeed.
        OSError: the project's folder cannot be written.
    """
    folder = root / ".venv"
    stamp = folder / STAMP
    earlier = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    if earlier in {f"{checksum} {group}", f"{checksum} dev"}:  # the launcher that we waited for did it
        return
    if earlier.endswith(" dev"):  # what a developer has installed stays
        group = "dev"
    stamp.unlink(missing_ok=True)
    python = folder / "bin" / "python"
    if not runs(python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"):
        say(f"first use: installing into {folder} (about 1 GB; a few minutes)")
        make_environment(folder)
    else:
        if earlier == f"{checksum} runtime":
            reason = "the tools of developers and tests are added"
        else:
            reason = "the requirements have changed, or an installation was interrupted"
        say(f"completing {folder}: {reason}")
    temporary = folder / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_INPUT": "1",
    }
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONHOME", None)
    files = [root / "requirements" / name for name in ("bootstrap.txt", "runtime.txt", *(("dev.txt",) if group == "dev" else ()))]
    if not sync_with_uv(python, files, environment):
        say("installing with pip instead (slower)")
        if not pip(python, environment, *files):
            raise InstallError("the packages could not be installed; see the messages above. Nothing is lost: run ./dyno again to go on")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    unfinished = stamp.with_suffix(".new")
    unfinished.write_text(f"{checksum} {group}", encoding="utf-8")
    unfinished.rename(stamp)
    say("installed")


def make_environment(folder: Path) -> None:
    """A new, empty virtual environment with pip."""
    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(folder)
    except subprocess.CalledProcessError as error:
        raise InstallError(
            f"{sys.executable} could not make a virtual environment ({error}). Install its venv module (Debian, Ubuntu: apt install "
            "python3-venv), or name another Python: DYNO_PYTHON=/path/to/python3.12 ./dyno"
        ) from error


def sync_with_uv(python: Path, files: list[Path], environment: dict[str, str]) -> bool:
    """Install uv from its hashes, then make the environment exactly what the files say; gives whether it worked."""
    uv = python.with_name("uv")
    say("installing uv")
    if not pip(python, environment, files[0], quiet=True) or not runs(uv, "--version"):
        return False
    say("installing the packages")
    cache = {} if "UV_CACHE_DIR" in environment else {"UV_CACHE_DIR": str(python.parents[1] / "cache")}
    variables, options = uv_settings(pips_settings(python, environment), environment)
    command = [str(uv), "pip", "sync", "--require-hashes", "--python", str(python), *options, *map(str, files)]
    return subprocess.run(command, env={**environment, **cache, **variables}, check=False).returncode == 0


def pips_settings(python: Path, environment: dict[str, str]) -> dict[str, str]:
    """What pip is configured for, by environment or file: name of the setting -> value."""
    listed = subprocess.run([str(python), "-m", "pip", "config", "list"], env=environment, capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for scope in PIP_SCOPES:
        for line in listed.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{scope}."):
                found[name.removeprefix(f"{scope}.")] = str(ast.literal_eval(value))
    return found


def uv_settings(settings: dict[str, str], environment: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """pip's package index, mirror or folder of wheels as uv's variables and options; none where uv itself is configured."""
    if any(name in environment for name in UV_INDEX_VARIABLES):
        return {}, []
    found = {variable: " ".join(settings[name].split()) for name, variable in PIP_SETTINGS.items() if settings.get(name, "").strip()}
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = found["UV_FIND_LINKS"].replace(" ", ",")
    if found:
        # As pip does: a version may be on any of the indexes. The hashes rule out that a stranger's package is taken.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found, ["--no-index"] if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"} else []


def pip(python: Path, environment: dict[str, str], *files: Path, quiet: bool = False) -> bool:
    """Install requirement files by their hashes with pip; gives whether it worked. The files are complete: nothing is to be resolved."""
    if not runs(python, "-m", "pip", "--version") and not runs(python, "-m", "ensurepip"):
        return False
    command = [str(python), "-m", "pip", "install", "--require-hashes", "--no-deps", *(["-qq"] if quiet else [])]
    for file in files:
        command += ["-r", str(file)]
    return subprocess.run(command, env=environment, check=False).returncode == 0


def runs(program: Path, *arguments: str) -> bool:
    """Whether a program is there and ends with 0."""
    try:
        return subprocess.run([str(program), *arguments], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def main(root: Path, group: str, checksum: str) -> None:
    """Install; ends the process with an explanation when that does not succeed."""
    try:
        with one_at_a_time(root):
            install(root, group, checksum)
    except InstallError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            sys.exit(f"error: the disk of {root} is full: free about 2 GB, then run ./dyno again")
        sys.exit(f"error: {root / '.venv'} cannot be written ({error.strerror}): make the project's folder writable, then run ./dyno again")
    except KeyboardInterrupt:
        sys.exit("dyno: interrupted; run ./dyno again to go on")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
