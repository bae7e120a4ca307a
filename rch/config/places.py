"""Where the files of this workstation lie. Standard library only; nothing is created here."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass

from rch import client_paths
from rch.client_paths import SOCKET_PATH_MAX
from rch.errors import ConfigError
from rch.paths import AbsPath

SYSTEM_FILE = AbsPath("/etc/rch/config.toml")


@dataclass(frozen=True)
class Places:
    """Absolute paths; docs/architecture.md says what lies in each."""

    home: AbsPath
    state: AbsPath
    run: AbsPath
    socket: AbsPath
    user_file: AbsPath
    system_file: AbsPath = SYSTEM_FILE

    @property
    def trust_file(self) -> AbsPath:
        return AbsPath(self.state + "/trust.json")

    @property
    def log_file(self) -> AbsPath:
        return AbsPath(self.state + "/log/rch.log")


def places(env: Mapping[str, str], *, state_dir: str | None = None, system_file: str = SYSTEM_FILE) -> Places:
    """Where things lie for a caller with the environment *env*; *state_dir* stands for RCH_STATE_DIR.

    A relative RCH_STATE_DIR or RCH_CONFIG raises ConfigError (``bad-environment``); a relative XDG variable counts as
    unset, as the XDG specification says.
    """
    home = env.get("HOME", "")
    if not home.startswith("/"):
        home = pwd.getpwuid(os.getuid()).pw_dir
    try:
        state, run = client_paths.state_dir(env), client_paths.run_dir(env)
    except client_paths.BadPlace as bad:
        raise ConfigError(str(bad), key="RCH_STATE_DIR", code="bad-environment", hint="unset RCH_STATE_DIR") from None
    if state_dir and os.path.normpath(state_dir) != state:
        state = os.path.normpath(state_dir)
        run = state + "/run"
    user_file = _own(env, "RCH_CONFIG") or _xdg(env, "XDG_CONFIG_HOME", home + "/.config") + "/rch/config.toml"
    return Places(
        home=AbsPath(home),
        state=AbsPath(state),
        run=AbsPath(run),
        socket=AbsPath(run + "/rchd.sock"),
        user_file=AbsPath(os.path.normpath(user_file)),
        system_file=AbsPath(system_file),
    )


def check_socket_path(path: str) -> None:
    """Raise ConfigError when *path* is too long for a Unix socket, naming its length."""
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_MAX:
        raise ConfigError(
            f"the socket path {path} has {size} bytes, at most {SOCKET_PATH_MAX} fit",
            hint="set a shorter RCH_STATE_DIR or daemon.socket_path",
        )


def _own(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if value and (not value.startswith("/") or "\0" in value):
        raise ConfigError(
            f"{name} must be an absolute path, got {value!r}", key=name, code="bad-environment", hint=f"unset {name}"
        )
    return value


def _xdg(env: Mapping[str, str], name: str, default: str) -> str:
    value = env.get(name, "")
    return value.rstrip("/") if value.startswith("/") else default
