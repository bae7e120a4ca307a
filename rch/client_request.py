"""What the client tells rchd about the caller: the command, where and who it is, what its descriptors are."""

from __future__ import annotations

import os
import stat
from struct import pack, unpack

from rch import client_frames as wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rch.client_options import Choice, Options


class Caller:
    """The caller's circumstances, taken once.

    environ: the environment as it was handed over, bytes. cwd: the directory as the caller typed it, if $PWD says so.
    fds:     what 0, 1 and 2 are: tty, pipe, file, null or closed. same: 1 and 2 are the same open file.
    """

    __slots__ = ("cwd", "environ", "fds", "same", "umask", "variables")

    def __init__(self, environ: Mapping[bytes, bytes] | None = None) -> None:
        self.environ = dict(original_environment() if environ is None else environ)
        self.variables = {wire.text(k): wire.text(v) for k, v in self.environ.items()}
        self.cwd = current_directory(self.variables)
        self.fds = {str(fd): nature(fd) for fd in (0, 1, 2)}
        self.same = same_open_file(1, 2)
        self.umask = os.umask(0o077)
        os.umask(self.umask)


def make_request(
    caller: Caller, options: Options, choice: Choice, version: str, attach: Mapping[str, object] | None = None
) -> dict[str, object]:
    """The JSON body of ``POST /v1/exec`` (docs/architecture.md)."""
    rows, cols = window_size(caller.fds)
    return {
        "version": version,
        "argv": [wire.text(os.fsencode(word)) for word in options.argv],
        "cwd": caller.cwd,
        "env": caller.variables,
        "fds": {**caller.fds, "same": caller.same},
        "rows": rows,
        "cols": cols,
        "umask": caller.umask,
        "uid": os.getuid(),
        "gid": os.getgid(),
        "pid": os.getpid(),
        "options": {
            "worker": choice.worker,
            "tag": options.tag,
            "mode": choice.mode,
            "require_remote": bool(choice.demand),
            "dry_run": bool(choice.dry_run),
            "no_cache": choice.no_cache,
            "verbose": choice.verbose,
            "quiet": choice.quiet,
            "interactive": options.interactive,
        },
        "attach": attach,
    }


def original_environment() -> Mapping[bytes, bytes]:
    """The environment this process was started with.

    Under a C locale the interpreter sets LC_CTYPE=C.UTF-8 for itself and whatever it starts (PEP 538); a compiler
    would then print other quotation marks than the caller gets without us.
    """
    environ: Mapping[bytes, bytes] = os.environb
    if environ.get(b"LC_CTYPE") == b"C.UTF-8":
        try:
            fd = os.open("/proc/self/environ", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return environ
        try:
            parts = []
            while part := os.read(fd, 1 << 20):
                parts.append(part)
        finally:
            os.close(fd)
        if not any(entry.startswith(b"LC_CTYPE=") for entry in b"".join(parts).split(b"\0")):
            return {k: v for k, v in environ.items() if k != b"LC_CTYPE"}
    return environ


def current_directory(variables: Mapping[str, str]) -> str:
    """$PWD if it names the current directory (links as typed), else its real path; "" if it has been removed."""
    try:
        here = os.stat(".")
    except OSError:
        return ""
    typed = variables.get("PWD", "")
    if typed.startswith("/") and not {".", ".."} & set(typed.split("/")):
        try:
            there = os.stat(wire.raw(typed))
        except OSError:
            there = None
        if there is not None and (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return os.path.normpath(typed)
    try:
        return wire.text(os.getcwdb())
    except OSError:
        return ""


def nature(fd: int) -> str:
    """tty, pipe (also a socket or another device that can be read on and on), file, null or closed."""
    try:
        found = os.fstat(fd)
    except OSError:
        return "closed"
    if stat.S_ISREG(found.st_mode):
        return "file"
    if stat.S_ISCHR(found.st_mode):
        if os.isatty(fd):
            return "tty"
        if found.st_rdev == os.makedev(1, 3):
            return "null"
    if stat.S_ISDIR(found.st_mode):
        return "null"  # nothing can be read from it or written to it
    return "pipe"


def same_open_file(one: int, other: int) -> bool:
    """``2>&1``? For pipes, sockets and terminals the same object is enough: the order of bytes is one for both."""
    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    if (first.st_dev, first.st_ino, first.st_rdev) != (second.st_dev, second.st_ino, second.st_rdev):
        return False
    return not stat.S_ISREG(first.st_mode) or _one_description(one, other)


def _one_description(one: int, other: int) -> bool:
    """Two descriptors of one regular file: one open file description (one position), or two?

    An open-file-description lock conflicts between descriptions, never within one. It is taken for an instant on
    one byte far behind any end of file, so nobody else's lock is met or lost.
    """
    import fcntl

    def lock(kind: int, start: int) -> bytes:
        return pack("hhqqi4x", kind, os.SEEK_SET, start, 1, 0)  # struct flock of 64-bit Linux, l_pid 0

    start = (1 << 62) + int.from_bytes(os.urandom(6), "big")
    try:
        fcntl.fcntl(one, fcntl.F_OFD_SETLK, lock(fcntl.F_WRLCK, start))
    except OSError:  # a file system without locks, or a descriptor that may not write: positions tell most of it
        try:
            return os.lseek(one, 0, os.SEEK_CUR) == os.lseek(other, 0, os.SEEK_CUR)
        except OSError:
            return True
    try:
        found = fcntl.fcntl(other, fcntl.F_OFD_GETLK, lock(fcntl.F_WRLCK, start))
        return int(unpack("hhqqi4x", found)[0]) == fcntl.F_UNLCK
    except OSError:
        return True
    finally:
        fcntl.fcntl(one, fcntl.F_OFD_SETLK, lock(fcntl.F_UNLCK, start))


def window_size(fds: Mapping[str, str], order: Sequence[str] = ("1", "2", "0")) -> tuple[int, int]:
    """Rows and columns of the caller's terminal; (24, 80) where there is none."""
    for name in order:
        if fds.get(name) == "tty":
            import fcntl
            import termios

            try:
                rows, cols = unpack("hhhh", fcntl.ioctl(int(name), termios.TIOCGWINSZ, bytes(8)))[:2]
            except OSError:
                continue
            if rows > 0 and cols > 0:
                return rows, cols
    return 24, 80
