"""stdin of the job: bytes that came over the channel, held here until the job's pipe or terminal takes them."""

from __future__ import annotations

import contextlib
import os
import selectors
from typing import Callable, Optional

_LIMIT = 1 << 20
"""Bytes held at most; the sender is told how many were taken and waits with the rest."""


class Feed:
    """Everything between the channel and the job's descriptor 0.

    read_terminal: reads what a terminal has to say; one descriptor serves both directions there.
    """

    def __init__(self, selector: selectors.BaseSelector, read_terminal: Callable[[], None]) -> None:
        self.total = 0
        self.used = False
        self._selector = selector
        self._read_terminal = read_terminal
        self._pipe: Optional[int] = None
        self._terminal: Optional[int] = None
        self._data = bytearray()
        self._ended = False
        self._gone = False
        self._waiting = False

    def begin(self, *, has_input: bool) -> None:
        """The next command of the job starts; without input what arrives goes into nothing."""
        self._gone = not has_input

    def into_pipe(self, descriptor: int) -> None:
        """Feed the job through a pipe, ours from now on."""
        os.set_blocking(descriptor, False)
        self._pipe = descriptor
        self._write()

    def into_terminal(self, descriptor: int) -> None:
        """Feed the job through its terminal, which stays the caller's."""
        self._terminal = descriptor
        self._write()

    def take(self, data: bytes, *, ended: bool) -> int:
        """How much of *data* was taken: all, into nothing, once the job has closed its stdin, as with a closed pipe."""
        if self._gone:
            return len(data)
        self.used = self.used or bool(data)
        accepted = min(len(data), _LIMIT - len(self._data))
        self.total += accepted
        self._data += data[:accepted]
        self._ended = self._ended or (ended and accepted == len(data))
        self._write()
        return accepted

    def close(self) -> None:
        """The command is over. What has ended stays ended: a second command reads the end at once."""
        if self._pipe is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._pipe)
            with contextlib.suppress(OSError):
                os.close(self._pipe)
        self._pipe = self._terminal = None
        self._waiting = False

    def _write(self) -> None:
        target = self._pipe if self._pipe is not None else self._terminal
        if target is None or self._gone:
            return
        try:
            while self._data:
                del self._data[: os.write(target, self._data[: 1 << 16])]
        except BlockingIOError:
            self._wait_for_room(target, wanted=True)
            return
        except OSError:
            self._gone = True
            self._data.clear()
            self.close()
            return
        self._wait_for_room(target, wanted=False)
        if self._ended:
            self._gone = True
            if target == self._pipe:
                self.close()
            else:
                with contextlib.suppress(OSError):
                    os.write(target, b"\x04")

    def _wait_for_room(self, target: int, *, wanted: bool) -> None:
        if wanted == self._waiting:
            return
        self._waiting = wanted
        if target == self._terminal:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
            self._selector.modify(target, events, self._read_and_write)
        elif wanted:
            self._selector.register(target, selectors.EVENT_WRITE, self._write)
        else:
            self._selector.unregister(target)

    def _read_and_write(self) -> None:
        self._read_terminal()
        self._write()
