"""The way to rchd for callers that may not ``connect()``: a directory of our own with two FIFOs (lessons IC-11).

A caller in a sandbox cannot know which of the directories that it may write are the same for rchd: its /tmp may be
private. So one place after the other is offered, and the first in which rchd shows up is it.
"""

# ruff: noqa: SIM105 -- contextlib costs the client's start-up 2 ms

from __future__ import annotations

import os
import select
from time import monotonic

from rch import client_frames as wire
from rch.client_paths import Traceless

NEXT_PLACE_S = 0.3
"""Seconds until the next place is offered as well."""


class _Spool:
    """One directory, with both FIFOs open.

    Both are open before rchd hears of them: it takes a FIFO without a reader for a caller that has gone, and may have
    answered and left before we come to write. Opening for both ways needs nobody at the other end.
    """

    __slots__ = ("_trace", "path", "read_fd", "write_fd")

    def __init__(self, place: str, request: bytes) -> None:
        """Raises OSError, leaving nothing."""
        self.path = os.path.join(place, wire.SPOOL_PREFIX + os.urandom(16).hex())
        self.read_fd = self.write_fd = -1
        self._trace = Traceless(place)
        os.mkdir(self.path, 0o700)
        try:
            self._trace.made()
            for name in ("up", "down"):
                os.mkfifo(f"{self.path}/{name}", 0o600)
            _write_new(f"{self.path}/request", request)
            os.chmod(self.path, 0o700)  # the umask may have taken rights away
            for name in ("up", "down", "request"):
                os.chmod(f"{self.path}/{name}", 0o600)
            self.read_fd = os.open(f"{self.path}/down", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.write_fd = os.open(f"{self.path}/up", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except BaseException:
            self.close()
            self.remove()
            raise

    def close(self) -> None:
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)

    def remove(self) -> None:
        """The directory goes; FIFOs that both sides have open stay what they are."""
        for name in ("up", "down", "request"):
            try:
                os.unlink(f"{self.path}/{name}")
            except OSError:
                pass
        ours = self._trace.still_ours()
        try:
            os.rmdir(self.path)
        except OSError:
            return
        if ours:
            self._trace.restore()


def meet(announce: int, request: bytes, places: list[str], limit_s: float) -> tuple[int, int]:
    """Offer *places* through the request FIFO *announce*; the descriptors to read and to write.

    Raises TimeoutError when rchd comes to none of them within *limit_s* seconds, OSError when none can be offered.
    """
    until = monotonic() + limit_s
    offered: list[_Spool] = []
    problem = "no directory is writable for the spool"
    rest = list(places)
    poll = select.poll()
    try:
        while True:
            while rest:
                try:
                    spool = _Spool(rest.pop(0), request)
                except OSError:
                    continue
                try:
                    _announce(announce, spool.path)
                except OSError as error:
                    problem = str(error)
                    spool.close()
                    spool.remove()
                    continue
                offered.append(spool)
                poll.register(spool.read_fd, select.POLLIN)
                break
            else:
                if not offered:
                    raise OSError(problem)
            # rchd says ALIVE as soon as it has opened both FIFOs.
            wait_s = until - monotonic()
            ready = poll.poll(max(0.0, min(wait_s, NEXT_PLACE_S) if rest else wait_s) * 1000)
            if ready:
                met = next(s for s in offered if s.read_fd == ready[0][0])
                offered.remove(met)
                met.remove()
                return met.read_fd, met.write_fd
            if monotonic() >= until:
                raise TimeoutError(f"looked for it in {', '.join(os.path.dirname(s.path) for s in offered)}")
    finally:
        for spool in offered:
            spool.close()  # an rchd that comes late finds the caller gone
            spool.remove()


def _announce(announce: int, path: str) -> None:
    line = wire.dumps([wire.text(os.fsencode(path))]) + b"\n"
    if len(line) > select.PIPE_BUF:  # longer ones are not written in one piece
        raise OSError(f"the spool directory's path has {len(line)} bytes, {select.PIPE_BUF} are possible")
    try:
        os.write(announce, line)
    except OSError as error:
        raise OSError(f"the spool is full ({error.strerror})") from None


def _write_new(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
