"""Birth and end of rchd as the command line sees them. kill -9 at any moment leaves nothing that hinders a start."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from rch.client_start import start_daemon
from rch.config.places import check_socket_path
from rch.errors import Fault, RchError, Refused

if TYPE_CHECKING:
    from rch.cli.api import Api
    from rch.config.merged import Config

_POLL_S = 0.05

START_S = 30.0
"""Seconds for a start that was asked for; a build waits less, because it can run here instead."""


def start_rchd(config: Config, way: Api) -> dict[str, Any]:
    """Start rchd as the thin client does (own session, no descriptors, clean environment); its health document.

    Raises Refused inside a job, ConfigError when the socket's path is too long, Fault with what rchd said when it ends
    or does not answer in time.
    """
    if os.environ.get("RCH_ON_WORKER"):
        raise Refused("rchd does not start inside a job (RCH_ON_WORKER is set)")
    check_socket_path(config.socket_path)
    where = config.places
    with contextlib.suppress(FileNotFoundError):
        os.truncate(os.path.join(where.run, "start.lock"), 0)  # a person who asks again need not wait for the cool-down
    answered: dict[str, Any] = {}

    def answers() -> bool:
        try:
            answered.update(way.get("health", timeout_s=2.0))
        except RchError:
            return False
        return True

    problem = start_daemon(where.state, where.run, os.environ, answers, START_S)
    if problem:
        said = _last_line(os.path.join(where.state, "log", "rchd.err"))
        raise Fault(f"{problem}: {said}" if said and said not in problem else problem, host="here", hint="rch doctor")
    return answered


def wait_until_gone(state: str, way: Api | None, limit_s: float) -> bool:
    """True once nobody holds the lock of *state* and nothing answers, False when that takes over *limit_s* seconds.

    way: None where asking would start the next rchd.
    """
    until = time.monotonic() + limit_s
    while lock_holder(state) is not None or (way is not None and way.is_running()):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True


def lock_holder(state: str) -> int | None:
    """The pid that holds ``<state>/lock``, None when nobody does.

    Read from the kernel's list of locks: trying the lock ourselves could make an rchd that is just starting give up.
    """
    try:
        found = os.stat(os.path.join(state, "lock"))
        with open("/proc/locks", encoding="ascii", errors="replace") as stream:
            rows = stream.read().splitlines()
    except OSError:
        return None
    for row in rows:
        # "1: FLOCK  ADVISORY  WRITE 123 08:01:4711 0 EOF"; one that waits has "->" behind the number.
        words = row.split()
        if len(words) < 6 or words[1] != "FLOCK":
            continue
        inode = words[5].rpartition(":")[2]
        if inode == str(found.st_ino) and words[4].isdigit():
            return int(words[4])
    return None


def _last_line(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            lines = stream.read()[-8192:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else ""
