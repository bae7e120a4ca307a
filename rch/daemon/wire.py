"""rchd's end of the frames: one Transport per caller, whether it came through the socket or the spool.

Frames, their payloads and limits are those of :mod:`rch.client_frames`, which the thin client imports too. A
Transport is used by one reading thread and any number of writing threads. Every open Transport says ALIVE every
few seconds by itself, so that a caller can tell a silent build from an rchd that hangs.
"""

from __future__ import annotations

import contextlib
import enum
import json
import re
import socket
import struct
import threading
import time
import weakref
from typing import Any, Protocol

import structlog
from typing_extensions import override  # typing has it from Python 3.12 on

from rch import client_frames as wire

_log = structlog.get_logger("wire")

REQUEST_S = 10.0
"""Seconds within which a caller has to bring its whole request."""

HEAD_MAX = 16 * 1024
"""Bytes of an HTTP head."""

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: rch-frames\r\n\r\n"


class Frame(enum.IntEnum):
    """Types of frames; docs/architecture.md has the payloads."""

    STDIN = wire.STDIN
    STDIN_END = wire.STDIN_END
    SIGNAL = wire.SIGNAL
    RESIZE = wire.RESIZE
    PROOF = wire.PROOF
    LOCAL_STARTED = wire.LOCAL_STARTED
    LOCAL_DONE = wire.LOCAL_DONE
    HOOK_DONE = wire.HOOK_DONE
    LOG = wire.LOG
    NOTE = wire.NOTE
    PROVE = wire.PROVE
    ACCEPTED = wire.ACCEPTED
    LOCAL = wire.LOCAL
    EXIT = wire.EXIT
    ERROR = wire.ERROR
    PROVED = wire.PROVED
    HOOK = wire.HOOK
    ALIVE = wire.ALIVE
    STDIN_TAKEN = wire.STDIN_TAKEN


class WireError(ValueError):
    """The caller broke a rule of the protocol; its connection ends."""


class Transport(Protocol):
    """One caller's connection."""

    def send(self, frame: Frame, payload: bytes = b"") -> None:
        """One whole frame; waits while the caller does not read. Raises OSError when the caller is gone."""

    def receive(self) -> tuple[Frame, bytes] | None:
        """The next frame, None at the end. Raises WireError on nonsense, OSError on a broken connection."""

    def close(self) -> None:
        """End the connection; a thread that waits in send or receive comes back."""


class FrameStream:
    """What both transports share: cutting the incoming bytes, one writer at a time, the sign of life."""

    def __init__(self) -> None:
        self._reader = wire.FrameReader()
        self._ready: list[tuple[Frame, bytes]] = []
        self._sending = threading.Lock()

    def send(self, frame: Frame, payload: bytes = b"") -> None:
        data = wire.frame(frame, payload)
        with self._sending:
            self._write(data)

    def receive(self) -> tuple[Frame, bytes] | None:
        while not self._ready:
            data = self._read()
            if not data:
                return None
            self._take(data)
        return self._ready.pop(0)

    def say_alive(self) -> None:
        """ALIVE, unless a frame is just being sent or the caller does not read: never waits."""
        if self._sending.acquire(blocking=False):
            try:
                self._write_at_once(wire.frame(Frame.ALIVE))
            finally:
                self._sending.release()

    def _take(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
        except wire.FrameError as error:
            raise WireError(str(error)) from error
        for kind, payload in frames:
            try:
                self._ready.append((Frame(kind), payload))
            except ValueError:
                raise WireError(f"no frame has the type {kind}") from None

    def _read(self) -> bytes:
        raise NotImplementedError

    def _write(self, data: bytes) -> None:
        raise NotImplementedError

    def _write_at_once(self, data: bytes) -> None:
        raise NotImplementedError


class SocketTransport(FrameStream):
    """Frames over a connected Unix socket; :func:`read_request` comes first."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._socket = connection
        connection.setblocking(True)

    def request(self) -> dict[str, Any]:
        """See :func:`read_request`."""
        until = time.monotonic() + REQUEST_S
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive_until(until)
            if len(data) > HEAD_MAX + wire.REQUEST_MAX:
                raise WireError("an HTTP head without end")
        head, _, body = data.partition(b"\r\n\r\n")
        if len(head) > HEAD_MAX:
            raise WireError("an HTTP head that is too long")
        fields = _head_fields(head)
        length = fields.get("content-length", "")
        if "rch-frames" not in fields.get("upgrade", "").lower() or not re.fullmatch("[0-9]{1,9}", length, re.ASCII):
            self._refuse("426 Upgrade Required", "POST /v1/exec wants Upgrade: rch-frames and a Content-Length")
        size = int(length)
        if size > wire.REQUEST_MAX:
            self._refuse("413 Content Too Large", f"the request has {size} bytes, {wire.REQUEST_MAX} are possible")
        parts = [body]
        got = len(body)
        while got < size:
            part = self._receive_until(until)
            parts.append(part)
            got += len(part)
        body = b"".join(parts)
        request = request_object(body[:size])
        self._socket.settimeout(None)
        self._socket.sendall(UPGRADED + wire.frame(Frame.ALIVE))
        self._take(body[size:])
        keeper.add(self)
        return request

    def close(self) -> None:
        keeper.discard(self)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _receive_until(self, until: float) -> bytes:
        self._socket.settimeout(max(0.01, until - time.monotonic()))
        data = self._socket.recv(256 * 1024)
        if not data:
            raise ConnectionError("the caller went away before its request was whole")
        return data

    def _refuse(self, status: str, why: str) -> None:
        body = json.dumps({"error": why}).encode("ascii") + b"\n"
        head = (
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        self._socket.sendall(head.encode("ascii") + b"\r\n\r\n" + body)
        raise WireError(why)

    @override
    def _read(self) -> bytes:
        return self._socket.recv(256 * 1024)

    @override
    def _write(self, data: bytes) -> None:
        self._socket.sendall(data)

    @override
    def _write_at_once(self, data: bytes) -> None:
        # Five bytes into a stream socket go whole or not at all.
        self._socket.send(data, socket.MSG_DONTWAIT)


class _Keeper:
    """Says ALIVE on every open transport; one thread, started with the first transport."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[FrameStream] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, transport: FrameStream) -> None:
        with self._lock:
            self._open.add(transport)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="alive", daemon=True)
                self._thread.start()

    def discard(self, transport: FrameStream) -> None:
        with self._lock:
            self._open.discard(transport)

    def _run(self) -> None:
        while True:
            time.sleep(wire.ALIVE_EVERY_S)
            with self._lock:
                transports = list(self._open)
            for transport in transports:
                with contextlib.suppress(OSError):  # gone, or not reading: whoever serves it finds out
                    transport.say_alive()


keeper = _Keeper()


def read_request(transport: SocketTransport) -> dict[str, Any]:
    """Read ``POST /v1/exec`` with its JSON body and answer 101; frames follow.

    Raises WireError after having refused a request that is none, OSError when the caller goes away or is too slow.
    """
    return transport.request()


def request_object(data: bytes) -> dict[str, Any]:
    """The request that a caller brought; raises WireError when it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError("the request is not JSON") from error
    if not isinstance(value, dict):
        raise WireError("the request is not a JSON object")
    return value


def _head_fields(head: bytes) -> dict[str, str]:
    fields = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields


def log_chunk(offset_after: int, frames: bytes) -> bytes:
    """The payload of a LOG frame."""
    return struct.pack(">Q", offset_after) + frames
