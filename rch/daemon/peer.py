"""Is the caller at the other end of a socket confined? Then rchd does nothing for it that its sandbox forbids (SE-08).

A sandbox that an unprivileged program makes has to set no_new_privs, for seccomp and Landlock, or has namespaces of its
own. Where nothing can be seen of the caller it counts as confined.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass

_NAMESPACES = ("mnt", "pid", "user")


@dataclass(frozen=True)
class Peer:
    """confined: in a sandbox, so its environment names nothing that rchd would start or read on its word.
    offline: without the network that rchd has, so its jobs get none either (lessons EX-10).
    """

    confined: bool = True
    offline: bool = True


def peer_of(connection: socket.socket) -> Peer:
    """The process that connected, as /proc has it at this moment."""
    try:
        (pid, _, _) = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError:
        return Peer()
    return look_at(pid)


def look_at(pid: int) -> Peer:
    """What of *pid* is another one than ours."""
    if pid <= 0:  # of a PID namespace that we do not see
        return Peer()
    ours = {name: _namespace("self", name) for name in (*_NAMESPACES, "net")}
    theirs = {name: _namespace(str(pid), name) for name in ours}
    privileges = _no_new_privileges(str(pid))
    return Peer(
        confined=any(theirs[name] != ours[name] for name in _NAMESPACES)
        or (privileges != "0" and privileges != _no_new_privileges("self")),
        offline=theirs["net"] != ours["net"],
    )


def _namespace(pid: str, name: str) -> str:
    """The name of a namespace; what cannot be seen equals nothing."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}")
    except OSError:
        return f"unseen of {pid}"


def _no_new_privileges(pid: str) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as stream:
        for line in stream:
            if line.startswith("NoNewPrivs:"):
                return line.split()[1]
    return "?"
