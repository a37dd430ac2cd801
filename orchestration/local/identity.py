"""As whom PostgreSQL runs: as the caller, unless the caller is root or has no name."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestration.local.processes import launch_command

PROBE_TIMEOUT_S = 30


class IdentityError(Exception):
    """No way was found to run PostgreSQL as somebody else than root."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`kind` is how launch.py becomes user `uid`:`gid`; files on disk belong to `file_uid`:`file_gid`."""

    kind: Literal["self", "namespace", "setuid"]
    uid: int
    gid: int
    file_uid: int
    file_gid: int

    @property
    def option(self) -> str | None:
        """The value for launch.py's --identity, None when nothing is to change."""
        return None if self.kind == "self" else f"{self.kind}:{self.uid}:{self.gid}"


def choose(folder: Path, program: Path) -> Identity:
    """The first identity under which `folder` can be written and `program` runs.

    Raises:
        IdentityError: there is none; the message gives each attempt's reason.
    """
    reasons = []
    for identity in _candidates(folder):
        if identity.kind == "self":
            return identity
        probe = launch_command(["/bin/sh", "-c", 'test -w "$1" && exec "$2" --version', "sh", str(folder), str(program)], identity.option)
        result = subprocess.run(probe, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
        # --version does not mind when the program cannot find itself; starting a server does
        if result.returncode == 0 and "invalid binary" not in result.stderr:
            return identity
        reasons.append(f"{identity.kind}: {result.stderr.strip() or 'no access to ' + str(folder)}")
    raise IdentityError(
        "PostgreSQL refuses to run as root or as a user without a name, and this machine lets nobody else in "
        f"({'; '.join(reasons) or 'no other user in the password file'}): run Dyno as an ordinary user, "
        "or set DYNO_DATABASE_URL to a PostgreSQL server of yours"
    )


def _candidates(folder: Path) -> Iterator[Identity]:
    uid, gid = os.geteuid(), os.getegid()
    named = {entry.pw_uid: entry for entry in pwd.getpwall()}
    if uid != 0 and uid in named:
        yield Identity("self", uid, gid, uid, gid)
        return
    others = [entry for entry in named.values() if entry.pw_uid != 0]
    if not others:
        return
    # initdb wants a name for its user id; "nobody" is the usual one without powers
    stand_in = next((entry for entry in others if entry.pw_name == "nobody"), others[0])
    owner = folder.stat().st_uid
    keep = Identity("namespace", stand_in.pw_uid, stand_in.pw_gid, uid, gid)
    if uid != 0:
        yield keep
        return
    entry = named[owner] if owner in named and owner != 0 else stand_in
    switch = Identity("setuid", entry.pw_uid, entry.pw_gid, entry.pw_uid, entry.pw_gid)
    yield from (keep, switch) if owner == 0 else (switch, keep)
