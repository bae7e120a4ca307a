"""The caller's stdout and stderr: written when they can take something, in pieces that cannot block."""

from __future__ import annotations

import errno
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rch.client_output import LineFilter

OUT_MAX = 256 * 1024
"""Bytes of output that may wait for a slow reader; then nothing more is taken from rchd."""


class OutputLost(Exception):
    """stdout or stderr cannot be written any more; ``number`` is the errno."""

    def __init__(self, fd: int, number: int) -> None:
        super().__init__(fd, number)
        self.fd = fd
        self.number = number


class Output:
    """What is still to be written, in order.

    filters: makes the filters of a worker's output, None where it passes as it is.
    waiting: bytes that could not be written yet.
    """

    __slots__ = ("_fds", "_filters", "_make_filters", "_out", "waiting")

    def __init__(self, fds: Mapping[str, str], filters: Callable[[str], dict[int, LineFilter]] | None) -> None:
        self.waiting = 0
        self._fds = fds
        self._make_filters = filters
        self._filters: dict[int, LineFilter] = {}
        self._out: list[tuple[int, memoryview]] = []

    @property
    def first(self) -> int | None:
        """The descriptor that is written next."""
        return self._out[0][0] if self._out else None

    def comes_from(self, worker: str) -> None:
        """From now on :meth:`feed` is given the output of *worker*."""
        if self._make_filters is not None and not self._filters:
            self._filters = self._make_filters(worker)

    def feed(self, fd: int, data: bytes) -> None:
        """A piece of the job's output."""
        line_filter = self._filters.get(fd)
        self.put(fd, line_filter.feed(data) if line_filter else data)

    def put(self, fd: int, data: bytes) -> None:
        """Queue *data*, past the filters."""
        if data and self._fds[str(fd)] not in ("closed", "null"):
            self._out.append((fd, memoryview(data)))
            self.waiting += len(data)

    def write_some(self) -> None:
        """Write what can be written without waiting; raises OutputLost."""
        while self._out:
            fd, view = self._out[0]
            size = len(view)
            if self._fds[str(fd)] != "file":
                poll = select.poll()
                poll.register(fd, select.POLLOUT)
                if not poll.poll(0):
                    return
                size = select.PIPE_BUF  # that much room is there when a pipe says it can be written
            try:
                sent = os.write(fd, view[:size])
            except BlockingIOError:
                return
            except OSError as error:
                self._out.clear()
                self.waiting = 0
                raise OutputLost(fd, error.errno or errno.EIO) from None
            self.waiting -= sent
            if sent == len(view):
                self._out.pop(0)
            else:
                self._out[0] = (fd, view[sent:])

    def release(self, *, everything: bool = False) -> None:
        """Let go what the filters have held long enough."""
        for fd, line_filter in self._filters.items():
            wait = line_filter.wait_s()
            if wait is not None and (everything or wait <= 0):
                self.put(fd, line_filter.flush())

    def wait_s(self) -> float | None:
        """Seconds until :meth:`release` is due, None when nothing is held."""
        waits = [w for f in self._filters.values() if (w := f.wait_s()) is not None]
        return min(waits) if waits else None
