"""``rch-wkr serve --socket``: a process with the code loaded that answers in the place of ``rch-wkr serve``.

``serve`` hands descriptors 0 and 1, environment and limits to a child of the warm process, which then speaks
with the peer itself; ``serve`` only waits for its end. So there is one protocol and one process per connection as ever,
what a connection holds still ends with it, and when no warm process answers ``serve`` does the work alone. Jobs belong
to nobody but their supervisors: the warm process may be stopped at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any, Dict, NoReturn, Optional

from rch.worker._locks import open_lock, try_lock
from rch.worker.cache import Cache, own_build

ANSWER_S = 2.0
"""How long ``serve`` waits for a warm process before it does the work itself."""

_REQUEST_MAX = 1 << 18
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_READY, _TAKEN = b"R", b"T"
_ENDED = struct.Struct("!B")


def keep_warm(cache: Cache) -> NoReturn:
    """Listen until SIGTERM; never returns. One warm process per cache: a second one ends at once."""
    lock = open_lock(os.path.join(cache.path, "serve.lock"))
    if not try_lock(lock):
        sys.stderr.write("rch-wkr: another rch-wkr serve --socket has %s\n" % cache.path)
        sys.exit(1)
    from rch.worker import _runner_source, serve, supervise  # noqa: F401  what every child needs, loaded here once

    directory = os.open(cache.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("serve.sock", dir_fd=directory)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.umask(0o177)
    listener.bind(_address(directory))
    os.umask(0o077)
    listener.listen(64)
    build = own_build()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(lock)
            _answer(connection, cache, build)
        connection.close()


def hand_over(cache: Cache, slots: Optional[int], *, confined: bool) -> Optional[int]:
    """Let a warm process serve descriptors 0 and 1 and wait for its end: its exit status. None: nobody took them."""
    try:
        directory = os.open(cache.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(_address(directory))
            connection.sendall(_request(slots, confined=confined))
            # Only to somebody who lives: descriptors on their way to a process that hangs would keep the channel open.
            if connection.recv(1) != _READY:
                return None
            socket.send_fds(connection, [b"."], [0, 1])
            if connection.recv(1) != _TAKEN:
                return None
            connection.settimeout(None)
            quiet = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1):  # the peer is the child's now: its end of the channel must be the only one
                os.dup2(quiet, descriptor)
            said = connection.recv(_ENDED.size)
            return _ENDED.unpack(said)[0] if said else 1
    except OSError:
        return None
    finally:
        os.close(directory)


def _address(directory: int) -> str:
    """A Unix socket path holds about 100 bytes, a cache directory may be longer: name it by its descriptor."""
    return "/proc/self/fd/%d/serve.sock" % directory


def _request(slots: Optional[int], *, confined: bool) -> bytes:
    """One line with all that a process has from its parent, so that the child is as ``serve`` would have been."""
    about = {
        "build": own_build(),
        "slots": slots,
        "confined": confined,
        "env": {os.fsdecode(name): os.fsdecode(value) for name, value in os.environb.items()},
        "limits": [[limit, *resource.getrlimit(limit)] for limit in _LIMITS],
        "cpus": sorted(os.sched_getaffinity(0)),
    }
    return json.dumps(about).encode("ascii") + b"\n"


def _answer(connection: socket.socket, cache: Cache, build: str) -> NoReturn:
    """In the child: become the ``serve`` of whoever asks, or end at once, which tells the other to do it."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.settimeout(ANSWER_S)
        _, uid, _ = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        line = b""
        while not line.endswith(b"\n") and len(line) < _REQUEST_MAX:
            block = connection.recv(_REQUEST_MAX)
            if not block:
                break
            line += block
        about = json.loads(line)
        # Another build means that the version was switched: its own code serves it.
        if uid == os.getuid() and about["build"] == build:
            connection.sendall(_READY)
            _, (reader, writer), _, _ = socket.recv_fds(connection, 1, 2)
            os.dup2(reader, 0)
            os.dup2(writer, 1)
            os.close(reader)
            os.close(writer)
            _become(about)
            connection.sendall(_TAKEN)
            connection.settimeout(None)
            from rch.worker.serve import serve

            status = serve(cache, about["slots"], confined=about["confined"] is True)
            connection.sendall(_ENDED.pack(status))
    finally:
        os._exit(status)


def _become(about: Dict[str, Any]) -> None:
    os.setsid()
    os.environb.clear()
    os.environ.update(about["env"])
    for limit, soft, hard in about["limits"]:
        with contextlib.suppress(OSError, ValueError):  # a hard limit above ours cannot be had back
            resource.setrlimit(limit, (soft, hard))
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, about["cpus"])
