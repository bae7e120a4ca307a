"""The spool: callers that may not ``connect()`` come through FIFOs (lessons IC-11).

They are not trusted with anything but the user's own FIFOs: what they name must be a private directory of this user
that lies where it says it lies.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import stat
import threading
from collections.abc import Callable
from typing import Any

import structlog
from typing_extensions import override  # typing has it from Python 3.12 on

from rch import client_frames as wire
from rch.daemon.wire import Frame, FrameStream, Transport, WireError, keeper, request_object

_log = structlog.get_logger("spool")

_SPOOL_NAME = re.compile(re.escape(wire.SPOOL_PREFIX) + "[0-9a-f]{32}")
_LINE_MAX = 4096  # PIPE_BUF: what is at most this long arrives in one piece


class SpoolTransport(FrameStream):
    """Frames over a pair of FIFOs; both descriptors are non-blocking."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__()
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._closed = False
        self._write(wire.frame(Frame.ALIVE))
        keeper.add(self)

    def close(self) -> None:
        """Descriptors are closed by the last of the threads that use them, so no number is reused under one."""
        keeper.discard(self)
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
        request = request_object(data)
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
