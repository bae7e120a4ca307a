"""The caller's standard input on its way to the job, and once more to a run here."""

# ruff: noqa: SIM105 -- contextlib costs the client's start-up 2 ms

from __future__ import annotations

import os

from rch import client_frames as wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

CHUNK = 64 * 1024

REPLAY_MAX = 4 << 20
"""Bytes of a piped stdin that are kept for a repetition here (lessons HB-08)."""


class Stdin:
    """The caller's standard input.

    Nothing is read before a worker has accepted the job, so that a command that runs here finds all of it. A file is
    read at positions of its own and its offset is moved at the end only. Of a pipe the last bytes are kept, for
    another rchd and for a repetition here.
    """

    def __init__(self, nature: str, *, interactive: bool) -> None:
        self.sent = 0
        self._is_file = nature == "file"
        self._forwarded = nature in ("pipe", "file") or (nature == "tty" and interactive)
        self._is_tty = nature == "tty"
        self._open = self._ended = self._waits_for_resume = False
        self._taken = 0
        self._kept = bytearray()
        self._kept_from = 0
        self._start = 0
        if self._is_file:
            try:
                self._start = os.lseek(0, 0, os.SEEK_CUR)
            except OSError:
                self._is_file = False

    def open(self) -> None:
        """A job is there to read."""
        self._open = self._forwarded

    def wanted(self, waiting: int) -> bool:
        """Should fd 0 be read now? *waiting*: bytes that the link could not send yet."""
        return (
            self._open
            and not self._ended
            and not self._waits_for_resume
            and not waiting
            and self.sent - self._taken < wire.STDIN_WINDOW
        )

    def read(self) -> bytes | None:
        """Some bytes, b"" at the end (also of a terminal or descriptor that fails), None for nothing yet."""
        room = min(CHUNK, wire.STDIN_WINDOW - (self.sent - self._taken))
        try:
            data = os.pread(0, room, self._start + self.sent) if self._is_file else os.read(0, room)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self._ended = True
        elif not self._is_file:
            self._kept += data
            surplus = len(self._kept) - max(REPLAY_MAX, self.sent + len(data) - self._taken)
            if surplus > 0:
                del self._kept[:surplus]
                self._kept_from += surplus
        self.sent += len(data)
        return data

    def expect_resume(self) -> None:
        """A new rchd: nothing more until it says how much the worker has."""
        self._waits_for_resume = self._open

    def taken(self, total: int) -> bytes:
        """The worker has the first *total* bytes; what has to be sent again, b"" unless a new rchd asks."""
        if not 0 <= total <= self.sent:
            raise wire.FrameError(f"STDIN_TAKEN says {total}, {self.sent} were sent")
        self._taken = max(self._taken, total)
        if not self._waits_for_resume:
            return b""
        self._waits_for_resume = False
        self._taken = total
        if self._is_file:
            self.sent = total
            self._ended = False
            return b""
        if total < self._kept_from:
            raise wire.FrameError(f"stdin from {total} on is wanted again, it is kept from {self._kept_from} on")
        self._end_due = self._ended
        return bytes(self._kept[total - self._kept_from :])

    _end_due = False

    def end_again(self) -> bool:
        """Must STDIN_END be said again, after the bytes of :meth:`taken`?"""
        due, self._end_due = self._end_due, False
        return due

    def settle(self, used: object) -> None:
        """The command has ended there: a file's offset stands behind what it was given, or behind *used* bytes."""
        if self._is_file and self._open:
            count = used if type(used) is int and 0 <= used <= self.sent else self.sent
            try:
                os.lseek(0, self._start + count, os.SEEK_SET)
            except OSError:
                pass

    def replay(self) -> int | None:
        """A descriptor that gives the whole stdin once more, for a run here; 0 if fd 0 still has it all.

        None when too much of a pipe has been read to repeat it. Feeding the rest takes a process of its own, which
        ends with the input.
        """
        if not self.sent or self._is_file or self._is_tty:
            return 0
        if self._kept_from:
            return None
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            try:
                os.close(read_end)
                _pump(bytes(self._kept), write_end, ended=self._ended)
            finally:
                os._exit(0)
        os.close(write_end)
        return read_end


def _pump(kept: bytes, write_end: int, *, ended: bool) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    data = kept
    while data:
        view = memoryview(data)
        while view:
            view = view[os.write(write_end, view) :]
        data = b"" if ended else os.read(0, CHUNK)
