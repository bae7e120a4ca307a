"""Where this user's rch keeps its state, and where rchd listens: one rule for the client, rchd and the command line.

Standard library only, importable by the thin client.
"""

# ruff: noqa: SIM105 -- contextlib costs the client's start-up 2 ms

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_PATH_MAX = 100
"""Bytes; a socket address holds 104 to 108, depending on the system."""

SHIM_MARK = ".rch-shims"
"""A directory of PATH that holds this file is a directory of shims; a command run here must not find it again."""


class BadPlace(ValueError):
    """The environment names a place that cannot be used; the message says which and why."""


def state_dir(environ: Mapping[str, str]) -> str:
    """RCH_STATE_DIR, else XDG_STATE_HOME/rch, else ~/.local/state/rch; raises BadPlace."""
    given = environ.get("RCH_STATE_DIR", "")
    if given:
        if not given.startswith("/"):
            raise BadPlace(f"RCH_STATE_DIR must be an absolute path, got {given!r}")
        return os.path.normpath(given)
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # a relative one is to be ignored, says the base directory specification
        return os.path.join(os.path.normpath(base), "rch")
    return os.path.join(_home(environ), ".local", "state", "rch")


def run_dir(environ: Mapping[str, str]) -> str:
    """``<state>/run`` if RCH_STATE_DIR is set, else XDG_RUNTIME_DIR/rch, else ``<state>/run``; raises BadPlace."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    if not environ.get("RCH_STATE_DIR", "") and base.startswith("/"):
        return os.path.join(os.path.normpath(base), "rch")
    return os.path.join(state_dir(environ), "run")


def socket_path(run: str) -> str:
    """rchd's socket below the run directory; raises BadPlace if no socket address can hold it."""
    path = os.path.join(run, "rchd.sock")
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX:
        raise BadPlace(f"the socket path {path} has {length} bytes, {SOCKET_PATH_MAX} are possible: shorten it")
    return path


def spool_request(run: str) -> str:
    """The FIFO that callers without sockets write their request's place to."""
    return os.path.join(run, "spool", "request")


def path_without_shims(path: str) -> str:
    """The value of PATH *path* without directories of shims (lessons PM-09)."""
    if not path:
        return path
    return ":".join(p for p in path.split(":") if not os.path.exists(os.path.join(p or ".", SHIM_MARK)))


class Traceless:
    """Puts a directory's times back after a short-lived entry of ours, unless somebody else changed it meanwhile.

    Made before the entry, told with :meth:`made` once it is there; :meth:`restore` comes after its removal, which
    must follow a :meth:`still_ours` that was true. The times of a root are part of its state.
    """

    __slots__ = ("_after", "_before", "_place")

    def __init__(self, place: str | int) -> None:
        self._place = place
        self._before = self._look()
        self._after: tuple[int, int] | None = None

    def made(self) -> None:
        self._after = self._look()

    def still_ours(self) -> bool:
        """Nobody has added or removed an entry since ours was made."""
        try:
            return self._after is not None and self._look()[1] == self._after[1]
        except OSError:
            return False

    def restore(self) -> None:
        try:
            os.utime(self._place, ns=self._before)
        except OSError:
            pass

    def _look(self) -> tuple[int, int]:
        found = os.stat(self._place)
        return found.st_atime_ns, found.st_mtime_ns


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return os.path.normpath(home)
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise BadPlace("HOME is not set and this user has no entry in the password file") from None
