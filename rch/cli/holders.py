"""Which process holds what rchd needs: a socket, a port. Read from the kernel; no program is started."""

from __future__ import annotations

import os
import socket
import struct

from rch.fleet.processes import pids_here, stat_of

_LISTENS = "0A"
"""State of a listening TCP socket in /proc/net/tcp."""


def environment_of(pid: int | None) -> dict[str, str]:
    """The environment that a process of ours was started with; nothing where that cannot be read."""
    if not pid:
        return {}
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            data = stream.read(1024 * 1024)
    except OSError:
        return {}
    pairs = (part.partition(b"=") for part in data.split(b"\0") if b"=" in part)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def holder_of_socket(path: str) -> int | None:
    """The pid that listens on the Unix socket *path*; None where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
            (pid, _, _) = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except (OSError, ValueError):
            return None
    return int(pid) or None


def holder_of_port(port: int) -> tuple[bool, int | None]:
    """Whether a process of this network namespace listens on TCP *port*, and its pid where we may see it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except OSError:
            continue
        inodes |= {row[9] for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port}
    links = {f"socket:[{inode}]" for inode in inodes}
    return bool(links), next((pid for pid in pids_here() if links and _has_open(pid, links)), None)


def shown(pid: int | None) -> str:
    """``pid 4711 (node_exporter)``, for people."""
    if pid is None:
        return "another user's process"
    known = stat_of(pid)
    return f"pid {pid} ({known[0]})" if known else f"pid {pid}"


def _has_open(pid: int, links: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(os.path.join(folder, name)) in links:
                return True
        except OSError:  # closed meanwhile
            continue
    return False
