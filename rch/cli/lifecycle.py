"""Birth and end of rchd as the command line sees them. kill -9 at any moment leaves nothing that hinders a start."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rch.config.places import check_socket_path
from rch.config.switches import DAEMON_NAMES
from rch.errors import Fault, RchError, Refused

if TYPE_CHECKING:
    from rch.cli.api import Api
    from rch.config.merged import Config

KEPT = (
    *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSH_AUTH_SOCK"),
    *("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"),
    "DBUS_SESSION_BUS_ADDRESS",
)
"""What rchd needs of a login beside its own variables: paths, language, the SSH agent. Nothing of the caller's job."""

_POLL_S = 0.05


def rchd_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment that rchd is started with: :data:`KEPT` and the ``d`` variables (coverage A-11), nothing else."""
    found = {name: env[name] for name in (*KEPT, *DAEMON_NAMES) if env.get(name)}
    found.setdefault("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    found.setdefault("PATH", os.defpath)
    return found


def rchd_command() -> list[str]:
    """The words that start rchd with this interpreter and this copy of rch, whatever the cwd and PYTHON* say."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {here!r}); from rch.daemon.__main__ import main; sys.exit(main())"
    return [sys.executable, "-I", "-c", code, "rchd"]


def start_rchd(config: Config, way: Api, limit_s: float) -> dict[str, Any]:
    """Start rchd detached and wait until it answers; its health document.

    Raises Refused inside a job, ConfigError when the socket's path is too long, Fault with what rchd said when it ends
    or does not answer within *limit_s* seconds.
    """
    if os.environ.get("RCH_ON_WORKER"):
        raise Refused("rchd does not start inside a job (RCH_ON_WORKER is set)")
    check_socket_path(config.socket_path)
    where = config.places
    os.makedirs(where.state + "/log", mode=0o700, exist_ok=True)
    said = where.state + "/log/rchd.err"
    descriptor = os.open(said, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            rchd_command(),
            env=rchd_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    until = time.monotonic() + limit_s
    while True:
        ended = child.poll()
        try:
            found: dict[str, Any] = way.get("health", timeout_s=2.0)
        except RchError:
            found = {}
        if found:  # ours, or one that another caller started in the same moment: there is only one
            child.returncode = child.returncode if ended is not None else 0  # it is nobody's child from now on
            return found
        if ended is not None:
            raise Fault(f"rchd ended with status {ended}: {_last_line(said)}", host="here", hint="rch doctor")
        if time.monotonic() > until:
            raise Fault(
                f"rchd (pid {child.pid}) does not answer after {limit_s:.0f} s: {_last_line(said)}",
                host="here",
                hint="rch daemon logs",
            )
        time.sleep(_POLL_S)


def wait_until_gone(state: str, way: Api, limit_s: float) -> bool:
    """True once nobody holds the lock of *state* and nothing answers, False when that takes over *limit_s* seconds."""
    until = time.monotonic() + limit_s
    while lock_holder(state) is not None or way.is_running():
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
        # 1: FLOCK  ADVISORY  WRITE 123 08:01:4711 0 EOF; "->" marks one that waits.
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
    return lines[-1][:300] if lines else "it said nothing"
