"""The supervisor's socket ``ctl`` in the job directory: how ``serve`` watches, signals and feeds a running job.

One request per connection: a JSON line, then ``size`` bytes; one JSON line back. A ``watch`` is answered when the log
has grown past an offset, so a long poll sleeps in the kernel on both sides; the end of the supervisor ends it too.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from typing import Any, Callable, Dict, List, Optional, Tuple

_HEAD_MAX = 4096
_BODY_MAX = 1 << 20
_BACKLOG = 64


def _address(directory: int) -> str:
    """A Unix socket path holds about 100 bytes, a cache directory may be longer: name it by its descriptor."""
    return "/proc/self/fd/%d/ctl" % directory


def ask(job: str, request: Dict[str, Any], body: bytes = b"", timeout_s: float = 10.0) -> Optional[Dict[str, Any]]:
    """The supervisor's answer; None when there is no supervisor, it ended meanwhile, or *timeout_s* passed."""
    try:
        directory = os.open(job, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(_address(directory))
            head = json.dumps({**request, "size": len(body)}).encode("ascii") + b"\n"
            connection.sendall(head + body)
            answer = b""
            while not answer.endswith(b"\n"):
                block = connection.recv(65536)
                if not block:
                    return None
                answer += block
            found = json.loads(answer)
            return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None
    finally:
        os.close(directory)


class Control:
    """The listening end, inside the supervisor's loop. *handle* answers a request, or None for later (watchers)."""

    def __init__(
        self,
        job: str,
        selector: selectors.BaseSelector,
        handle: Callable[[Dict[str, Any], bytes], Optional[Dict[str, Any]]],
    ) -> None:
        self._selector = selector
        self._handle = handle
        self._watchers: List[Tuple[int, socket.socket]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(job, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink("ctl", dir_fd=directory)
            self._listener.bind(_address(directory))
        finally:
            os.close(directory)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def tell_watchers(self, size: int) -> None:
        """The log has *size* bytes now: answer whoever waits for less."""
        waiting = self._watchers
        self._watchers = []
        for offset, connection in waiting:
            if size > offset:
                self._answer(connection, {"ok": True})
            else:
                self._watchers.append((offset, connection))

    def close(self) -> None:
        """No more requests; watchers see the end and look for the result."""
        self._selector.unregister(self._listener)
        self._listener.close()
        for _, connection in self._watchers:
            connection.close()
        self._watchers = []

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        buffer = bytearray()
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(connection, buffer))

    def _receive(self, connection: socket.socket, buffer: bytearray) -> None:
        try:
            block = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        buffer += block
        line, mark, body = buffer.partition(b"\n")
        if not block or (not mark and len(buffer) > _HEAD_MAX):
            self._drop(connection)
            return
        if not mark:
            return
        try:
            request = json.loads(bytes(line))
            size = int(request["size"])
        except (ValueError, KeyError, TypeError):
            self._drop(connection)
            return
        if not 0 <= size <= _BODY_MAX:
            self._drop(connection)
        elif len(body) >= size:
            self._selector.unregister(connection)
            if request.get("op") == "watch":
                self._watchers.append((int(request.get("offset", 0)), connection))
            answer = self._handle(request, bytes(body[:size]))
            if answer is not None and request.get("op") != "watch":
                self._answer(connection, answer)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()

    def _answer(self, connection: socket.socket, answer: Dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            connection.setblocking(True)
            connection.settimeout(1.0)  # a line into an empty socket buffer: it never waits
            connection.sendall(json.dumps(answer).encode("ascii") + b"\n")
        connection.close()
