"""The client's last words, and how its process ends."""

from __future__ import annotations

import errno
import os

from rch import client_frames as wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal


def fail(status: int, label: str, message: str, hint: str = "") -> int:
    """Say ``rch: error[LABEL] message; next: hint`` and answer *status*."""
    tell(f"rch: error[{label}] {message}" + (f"; next: {hint}" if hint else ""))
    return status


def tell(line: object) -> None:
    """One line on stderr, whatever *line* holds."""
    write_all(2, raw_line(line, 4000))


def raw_line(text: object, longest: int = 1000) -> bytes:
    """*text* as one harmless line."""
    return wire.printable(text, longest).encode("utf-8", "replace") + b"\n"


def write_all(fd: int, data: bytes) -> None:
    """Write all of *data*, however long it takes; a descriptor that is closed loses it."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll(1000)
        except OSError:
            return


def end_by(number: int) -> None:
    """End as death by signal *number* looks from outside: status 128+n.

    For Ctrl-C at a terminal it is the signal itself: a shell that runs us in a loop stops the loop only then.
    """
    if number == signal.SIGINT and _in_foreground():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(128 + number)


def _in_foreground() -> bool:
    for fd in (0, 1, 2):
        try:
            if os.tcgetpgrp(fd) == os.getpgrp():
                return True
        except OSError:  # no terminal, or not ours
            continue
    return False


def die_of_output(lost: dict[str, Any]) -> int:
    """End as the tool would have: by SIGPIPE when the reader has gone, else with one line and 1."""
    number = lost.get("errno")
    if number == errno.EPIPE:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        return 128 + signal.SIGPIPE
    name = "stdout" if lost.get("fd") == 1 else "stderr"
    label = "DiskFull" if number in (errno.ENOSPC, errno.EDQUOT) else "OSError"
    why = os.strerror(number if type(number) is int else errno.EIO)
    return fail(1, label, f"here: {name} cannot be written ({why}); the command was cancelled")
