"""rchd's end of the frames: one Transport per caller, whether it came through the socket or the spool.

Frames, their payloads and limits are those of :mod:`rch.client_frames`, which the thin client imports too. A
Transport is used by one reading thread and any number of writing threads. Every open Transport says ALIVE every
few seconds by itself, so that a caller can tell a silent build from an rchd that hangs.

The spool serves callers that may not ``connect()`` (lessons IC-11). They are not trusted with anything but the user's
own FIFOs: what they name must be a private directory of this user that lies where it says it lies.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import os
import re
import select
import socket
import stat
import struct
import threading
import time
import weakref
from collections.abc import Callable
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

_SPOOL_NAME = re.compile(re.escape(wire.SPOOL_PREFIX) + "[0-9a-f]{32}")
_LINE_MAX = 4096  # PIPE_BUF: what is at most this long arrives in one piece


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


class _Frames:
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


class SocketTransport(_Frames):
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
        request = _request_object(body[:size])
        self._socket.settimeout(None)
        self._socket.sendall(UPGRADED + wire.frame(Frame.ALIVE))
        self._take(body[size:])
        _keeper.add(self)
        return request

    def close(self) -> None:
        _keeper.discard(self)
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


class SpoolTransport(_Frames):
    """Frames over a pair of FIFOs; both descriptors are non-blocking."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__()
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._closed = False
        self._write(wire.frame(Frame.ALIVE))
        _keeper.add(self)

    def close(self) -> None:
        """Descriptors are closed by the last of the threads that use them, so no number is reused under one."""
        _keeper.discard(self)
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")
        with self._sending:
            os.close(self._write_fd)

    def __del__(self) -> None:
        for fd in (self._read_fd, self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)

    @override
    def _read(self) -> bytes:
        while True:
            self._wait(self._read_fd, select.POLLIN)
            try:
                return os.read(self._read_fd, 256 * 1024)
            except BlockingIOError:
                continue

    @override
    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._closed:
                raise ConnectionError("the connection was closed here")
            try:
                view = view[os.write(self._write_fd, view) :]
            except BlockingIOError:
                self._wait(self._write_fd, select.POLLOUT)

    @override
    def _write_at_once(self, data: bytes) -> None:
        if not self._closed:
            os.write(self._write_fd, data)  # below PIPE_BUF: whole or not at all

    def _wait(self, fd: int, event: int) -> None:
        poll = select.poll()
        poll.register(fd, event)
        poll.register(self._wake_read, select.POLLIN)
        if any(ready == self._wake_read for ready, _ in poll.poll()):
            raise ConnectionError("the connection was closed here")


class _Keeper:
    """Says ALIVE on every open transport; one thread, started with the first transport."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[_Frames] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, transport: _Frames) -> None:
        with self._lock:
            self._open.add(transport)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="alive", daemon=True)
                self._thread.start()

    def discard(self, transport: _Frames) -> None:
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


_keeper = _Keeper()


def read_request(transport: SocketTransport) -> dict[str, Any]:
    """Read ``POST /v1/exec`` with its JSON body and answer 101; frames follow.

    Raises WireError after having refused a request that is none, OSError when the caller goes away or is too slow.
    """
    return transport.request()


class SpoolServer:
    """Owns ``<spool>/request`` and opens a Transport for every caller that announces itself there.

    directory: ``<run>/spool``; made 0700 when it is missing.
    serve:     called as ``serve(transport, request)`` in a thread of its own per caller.
    """

    def __init__(self, directory: str, serve: Callable[[Transport, dict[str, Any]], None]) -> None:
        self._directory = directory
        self._path = os.path.join(directory, "request")
        self._serve = serve
        self._fd = -1
        self._wake_read = self._wake_write = -1
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the FIFO anew and listen; raises OSError."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # rchd is single: whoever made it is gone
        os.mkfifo(self._path, 0o600)
        # Reading and writing: a FIFO without a writer would report its end again and again.
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; open transports stay."""
        if self._thread is None:
            return
        os.write(self._wake_write, b"x")
        self._thread.join(5.0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        for fd in (self._fd, self._wake_read, self._wake_write):
            os.close(fd)
        self._thread = None

    def _run(self) -> None:
        buffer = b""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._wake_read in ready:
                return
            try:
                buffer += os.read(self._fd, 64 * 1024)
            except BlockingIOError:
                continue
            *lines, buffer = buffer.split(b"\n")
            if len(buffer) >= _LINE_MAX:
                buffer = b""  # no client of ours: theirs are whole lines below PIPE_BUF
            for line in lines:
                threading.Thread(target=self._greet, args=(line,), name="spooled", daemon=True).start()

    def _greet(self, line: bytes) -> None:
        try:
            places = json.loads(line)
            if not isinstance(places, list) or not all(isinstance(p, str) for p in places):
                raise WireError("a list of directories was expected")
        except ValueError as error:
            _log.info("spool request refused", why=str(error)[:200])
            return
        why = "it names no directory"
        for place in places[:4]:
            try:
                transport, request = open_spool(place)
            except (OSError, ValueError) as error:
                why = f"{place[:200]}: {error}"
                continue
            self._serve(transport, request)
            return
        _log.info("spool request refused", why=why)


def open_spool(directory: str) -> tuple[SpoolTransport, dict[str, Any]]:
    """The Transport and the request of a caller that waits in *directory*.

    Raises WireError or OSError unless it is a directory named as the client names them, not a link, private, and it
    and the two FIFOs and the request file in it belong to this user.
    """
    if not directory.startswith("/") or not _SPOOL_NAME.fullmatch(os.path.basename(directory)):
        raise WireError("not the name of a spool directory")
    place = os.open(wire.raw(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(place)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
            raise WireError("the spool directory is not private to this user")
        file = _open_own(place, "request", os.O_RDONLY, stat.S_ISREG)
        with os.fdopen(file, "rb") as stream:
            data = stream.read(wire.REQUEST_MAX + 1)
        if len(data) > wire.REQUEST_MAX:
            raise WireError("the request is too long")
        request = _request_object(data)
        up = _open_own(place, "up", os.O_RDONLY, stat.S_ISFIFO)
        try:
            down = _open_own(place, "down", os.O_WRONLY, stat.S_ISFIFO)
        except BaseException:
            os.close(up)
            raise
    finally:
        os.close(place)
    return SpoolTransport(up, down), request


def _open_own(place: int, name: str, flags: int, is_kind: Callable[[int], bool]) -> int:
    try:
        fd = os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise ConnectionError("the caller has gone") from error
        raise
    found = os.fstat(fd)
    if not is_kind(found.st_mode) or found.st_uid != os.getuid() or found.st_nlink != 1 or found.st_mode & 0o077:
        os.close(fd)
        raise WireError(f"{name} is not what a client of this user makes")
    return fd


def _request_object(data: bytes) -> dict[str, Any]:
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
