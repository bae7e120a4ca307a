"""What rchd keeps below the state and run directories that :mod:`rch.config.places` names."""

from __future__ import annotations

import os
import secrets
import socket
import stat

from rch.config.places import Places, check_socket_path
from rch.errors import ConfigError
from rch.paths import AbsPath

_SOCKET_HINT = "rch config get daemon.socket_path, and name another"


def make_directories(places: Places) -> None:
    """Create what is missing, 0700; raises ConfigError for a socket's path that is too long or another user's place."""
    check_socket_path(places.socket)
    for path in (places.state, places.run, spool_dir(places), f"{places.state}/jobs", f"{places.state}/roots"):
        os.makedirs(path, mode=0o700, exist_ok=True)
        owner = os.stat(path).st_uid
        if owner != os.getuid():
            raise ConfigError(
                f"{path} belongs to another user (uid {owner})", hint="set RCH_STATE_DIR to a place of yours"
            )
    os.chmod(places.run, 0o700)  # an existing run directory may have been made by something else


def make_room_for_socket(path: str) -> None:
    """Make the directory of *path*, 0700, and take away the socket that a dead rchd left there.

    Raises ConfigError where something else lies there, or somebody listens: what the configuration names by mistake is
    not deleted, and the rchd of another state directory keeps its socket.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(found.st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(path)
            except OSError:
                pass
            else:
                raise ConfigError(f"{path}: another rchd listens there", key="daemon.socket_path", hint=_SOCKET_HINT)
    elif not stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"{path} is there and is no socket", key="daemon.socket_path", hint=_SOCKET_HINT)
    os.unlink(path)


def spool_dir(places: Places) -> AbsPath:
    """Where the request FIFO lies."""
    return AbsPath(os.path.join(places.run, "spool"))


def root_dir(places: Places, key: str) -> AbsPath:
    """What is kept about one root."""
    return AbsPath(os.path.join(places.state, "roots", key))


def job_dir(places: Places, job_id: str) -> AbsPath:
    """Copied log and result of one job."""
    return AbsPath(os.path.join(places.state, "jobs", job_id))


def client_id(places: Places) -> str:
    """Random id of this state directory, made once; part of every root's key."""
    path = os.path.join(places.state, "client-id")
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            value = secrets.token_hex(8)
            file.write(value + "\n")
            return value
    except FileExistsError:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
