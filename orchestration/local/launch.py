"""Start one program as a child that cannot outlive its parent and, for PostgreSQL, that is not root.

Run as a script (`python -I -S launch.py [--signal N] [--parent PID] [--identity KIND:UID:GID] -- PROGRAM ARGS`): it changes itself, then
becomes the program. Doing this in a process of its own keeps `preexec_fn`, which can deadlock a parent that has threads, out of Dyno.
Standard library only, since it starts without site-packages in a few milliseconds.

PostgreSQL refuses to run when its effective user id is 0 and checks nothing else. Two ways around that keep access to a clone inside a
folder that only root may enter:

`namespace`  a user namespace in which this same user has another number. On disk nothing changes: files still belong to the caller.
`setuid`     another user, who keeps the capability to pass file permissions (CAP_DAC_OVERRIDE, as an ambient capability).
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CLONE_NEWUSER = 0x10000000
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
EXIT_PARENT_GONE = 75


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123  # pathlib would triple the start-up time
        file.write(text)


def enter_namespace(uid: int, gid: int) -> None:
    """Become `uid`:`gid` inside a new user namespace; outside it, and on disk, this stays the same user."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {outer_uid} 1")
    _write("/proc/self/gid_map", f"{gid} {outer_gid} 1")


def change_user(uid: int, gid: int) -> None:
    """Become `uid`:`gid` for good, with CAP_DAC_OVERRIDE as the only capability left, also after exec.

    Capabilities are not tied to user ids from then on, also not in `access`, by which PostgreSQL looks whether it may read itself.
    """
    _call("prctl", PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
    mask = 1 << CAP_DAC_OVERRIDE
    data = (_CapData * 2)(_CapData(mask, mask, mask), _CapData(0, 0, 0))
    _call("capset", ctypes.byref(_CapHeader(CAPABILITY_VERSION_3, 0)), ctypes.byref(data))
    _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send `signal_number` to this process when its parent ends. Linux only; elsewhere the guard process does it alone."""
    if sys.platform != "linux":
        return
    _call("prctl", PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel knew of our wish
        sys.exit(EXIT_PARENT_GONE)


def main(arguments: list[str]) -> None:
    """Read the options, change this process, and become the program."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    command = arguments[split + 1 :]
    try:
        if "--identity" in options:
            kind, uid, gid = options["--identity"].split(":")
            {"namespace": enter_namespace, "setuid": change_user}[kind](int(uid), int(gid))
        # Last: the kernel forgets this wish when the user changes.
        if "--signal" in options:
            die_with_parent(int(options["--signal"]), int(options["--parent"]))
        os.execvp(command[0], command)  # noqa: S606  # a shell has no place here
    except OSError as error:
        sys.exit(f"launch: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
