"""flock, with a limit on the wait and in order of arrival. A lock lives as long as its descriptor: crash-safe."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from typing import List, Optional


def open_lock(path: str) -> int:
    """A descriptor to lock; the file is made when missing. It is never inherited by accident (lessons SQ-09)."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    """Take the lock if it is free now."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def locked_within(path: str, deadline: float, how: int = fcntl.LOCK_EX) -> Optional[int]:
    """A descriptor of *path* that holds the lock, or None when ``time.monotonic()`` reached *deadline* first.

    The wait sleeps in the kernel's queue, in a thread of its own, because flock knows no limit: whoever gives up leaves
    that thread behind, and it lets go of the lock the moment it gets it.
    """
    descriptor = open_lock(path)
    if try_lock(descriptor, how):
        return descriptor
    if deadline <= time.monotonic():
        os.close(descriptor)
        return None
    mutex = threading.Lock()
    done = threading.Event()
    abandoned: List[bool] = []

    def wait() -> None:
        # Closing the descriptor is all that can be done about a failing flock; the waiter then runs into its limit.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, how)
            with mutex:
                if not abandoned:
                    done.set()
                    return
        os.close(descriptor)

    threading.Thread(target=wait, name="flock", daemon=True).start()
    done.wait(max(0.0, deadline - time.monotonic()))
    with mutex:
        if done.is_set():
            return descriptor
        abandoned.append(True)
        return None


def held_elsewhere(path: str) -> bool:
    """True if somebody holds the lock of *path*; False when nobody does or there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


class Queue:
    """First come, first served among processes: each waiter holds the lock of a numbered file.

    A waiter sleeps on the lock of the nearest live waiter before it, so a crash anywhere in the queue closes the gap by
    itself. The kernel's own flock queue is not enough: it wakes all waiters at once.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._counter = os.path.join(directory, "ticket")
        self._line = os.path.join(directory, "queue")

    def enter(self, deadline: float) -> Optional[Place]:
        """Wait for the head of the queue; None when *deadline* (monotonic) came first."""
        os.makedirs(self._line, mode=0o700, exist_ok=True)
        counter = locked_within(self._counter, max(deadline, time.monotonic() + 1.0))
        if counter is None:
            return None
        try:
            text = os.pread(counter, 64, 0)
            number = int(text) + 1 if text.strip().isdigit() else 1
            path = os.path.join(self._line, "%020d" % number)
            descriptor = open_lock(path)
            if not try_lock(descriptor):
                raise OSError(errno.EEXIST, "the ticket counter went back", path)
            os.pwrite(counter, b"%020d" % number, 0)
        finally:
            os.close(counter)
        place = Place(path, descriptor)
        try:
            while True:
                before = self._before(number)
                if before is None:
                    return place
                turn = locked_within(before, deadline, fcntl.LOCK_SH)
                if turn is None:
                    place.leave()
                    return None
                os.close(turn)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(before)  # its owner is gone; no later number can be given to that name
        except BaseException:
            place.leave()
            raise

    def _before(self, number: int) -> Optional[str]:
        names = [name for name in os.listdir(self._line) if name.isdigit() and int(name) < number]
        return os.path.join(self._line, max(names)) if names else None


class Place:
    """A place in a Queue; leave it as soon as the wait is over."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def leave(self) -> None:
        """Let the next one go. Idempotent."""
        if self._descriptor >= 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = -1
