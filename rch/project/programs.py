"""Finding and asking programs that a caller would run, without being talked into running something of the caller's.

rchd is not confined and its callers may be (lessons SE-08). A program is started only if neither the project nor a
directory that sandboxes leave writable could have put it there.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence

from rch.client_paths import path_without_shims
from rch.errors import NotOffloadable
from rch.paths import AbsPath, is_below
from rch.project.places import is_system

_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run/user")
_TIMEOUT_S = 30


def path_directories(env: Mapping[str, str]) -> list[str]:
    """The directories of PATH without our shims; relative and empty ones are left out."""
    return [path for path in path_without_shims(env.get("PATH", "")).split(":") if path.startswith("/")]


def find_program(name: str, env: Mapping[str, str]) -> AbsPath | None:
    """The file that a shell would start for *name*, as found on PATH (links not resolved)."""
    if "/" in name:
        return AbsPath(name) if os.access(name, os.X_OK) and os.path.isfile(name) else None
    for directory in path_directories(env):
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return AbsPath(os.path.normpath(path))
    return None


def own_directories() -> list[str]:
    """Where this process's own user keeps programs: its PATH, and the toolchains of its rustup."""
    home = os.environ.get("RUSTUP_HOME") or os.path.join(os.environ.get("HOME", "/"), ".rustup")
    return [*path_directories(os.environ), os.path.join(home, "toolchains")]


def is_own(program: str) -> bool:
    """True if *program* lies where the system or this process's own user keeps programs.

    A sandbox leaves more places writable than anybody here knows; which program its PATH names proves nothing.
    """
    real = os.path.realpath(program)
    if is_system(real) or _is_others_alone(real):
        return True
    return any(is_below(program, place) or is_below(real, os.path.realpath(place)) for place in own_directories())


def _is_others_alone(real: str) -> bool:
    """True if nobody of this user can have made *real* (resolved): it and all above belong to others alone."""
    try:
        while True:
            status = os.stat(real)
            if status.st_uid == os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return False
            if real == "/":
                return True
            real = os.path.dirname(real)
    except OSError:
        return False


def check_trusted(program: str, writable: Sequence[str], *, confined: bool = False) -> None:
    """Raise NotOffloadable ``toolchain-mismatch`` if *program* may be the work of a confined caller.

    writable: directories (resolved) that the caller certainly may write: the roots and its working directory.
    confined: the caller is in a sandbox, so only what :func:`is_own` is started.
    """
    real = os.path.realpath(program)
    bad = next((d for d in (*writable, *_TEMPORARY) if is_below(real, d) or is_below(program, d)), None)
    try:
        mode = os.stat(real).st_mode
    except OSError as error:
        raise NotOffloadable(f"{program} cannot be read", code="toolchain-mismatch") from error
    if bad is None and confined and not is_own(program):
        raise NotOffloadable(
            f"{program} is named by a caller in a sandbox and is in no directory of rchd's own PATH, "
            "so rchd does not ask it for its identity",
            code="toolchain-mismatch",
            hint="rch daemon restart, outside the sandbox, with that directory in PATH",
        )
    if bad is not None or mode & stat.S_IWOTH:
        raise NotOffloadable(
            f"{program} lies in {bad or 'a place everybody may write'}, so rchd does not ask it for its identity",
            code="toolchain-mismatch",
            hint="install the toolchain outside the project",
        )


def ask(words: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """stdout of a trusted program, in a clean environment and an empty place.

    Raises NotOffloadable ``toolchain-mismatch`` if it fails: then its identity is unknown.
    """
    clean = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "HOME": "/", **(env or {})}
    try:
        done = subprocess.run(
            list(words),
            cwd="/",
            env=clean,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotOffloadable(
            f"{words[0]} does not say which version it is", code="toolchain-mismatch", hint=" ".join(words)
        ) from error
    return done.stdout.decode("utf-8", "replace")
