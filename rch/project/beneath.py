"""One directory tree, opened by descriptors: no path given to it can lead out of it (lessons AR-08).

Every component is opened with O_NOFOLLOW below the descriptor of its parent, so a link that somebody puts in the way,
even at this moment, ends in an error and not somewhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rch.worker.protocol import check_relpath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 128
"""Open descriptors of directories; neighbours follow one another, so few are enough."""


class Blocked(OSError):
    """A component on the way is missing, a link, or no directory."""


class Beneath:
    """The tree below *top*; a context manager. Raises OSError when *top* cannot be opened or is a link itself."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.fd = os.open(top, _DIRECTORY)
        self._kept: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()
        os.close(self.fd)

    @property
    def identity(self) -> tuple[int, int]:
        """(device, inode) of the top."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def forget(self) -> None:
        """Close the kept directories; needed after one of them was removed or replaced."""
        while self._kept:
            os.close(self._kept.popitem()[1])

    def directory(self, path: str) -> int:
        """Descriptor of the directory *path* ("" is the top), valid until the next call. Raises Blocked."""
        missing: list[str] = []
        at = path
        while at and at not in self._kept:
            missing.append(at)
            at = at.rpartition("/")[0]
        fd = self._kept[at] if at else self.fd
        if at:
            self._kept.move_to_end(at)
        for below in reversed(missing):
            try:
                fd = os.open(below.rpartition("/")[2], _DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise Blocked(error.errno, f"{below} is no directory here") from error
                raise
            self._kept[below] = fd
            if len(self._kept) > _KEPT:
                os.close(self._kept.popitem(last=False)[1])
        return fd

    def parent(self, path: str) -> tuple[int, str]:
        """Descriptor of the directory that holds *path*, and its last component. Raises Blocked."""
        check_relpath(path)
        head, _, name = path.rpartition("/")
        return self.directory(head), name

    def lstat(self, path: str) -> os.stat_result | None:
        """What lies at *path*; None when nothing does (or no directory leads there)."""
        try:
            fd, name = self.parent(path)
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (Blocked, FileNotFoundError, NotADirectoryError):
            return None

    def readlink(self, path: str) -> str | None:
        """Target of the link *path*, None when it is none."""
        try:
            fd, name = self.parent(path)
            return os.readlink(name, dir_fd=fd)
        except OSError:
            return None

    @contextlib.contextmanager
    def open_file(self, path: str) -> Iterator[int]:
        """A descriptor of the regular file *path* for reading. Raises OSError, for links and devices too."""
        fd, name = self.parent(path)
        # O_NONBLOCK: a FIFO that somebody put there must not hold us
        file_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
        try:
            if not stat.S_ISREG(os.fstat(file_fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            yield file_fd
        finally:
            os.close(file_fd)

    def mount_id(self, path: str) -> tuple[int, str]:
        """Equal values mean that a rename between the two directories cannot fail with EXDEV. Raises Blocked."""
        return mount_id(self.directory(path))


def mount_id(fd: int) -> tuple[int, str]:
    """Device and, on Linux, mount of an open directory: bind mounts share a device and refuse renames all the same."""
    mount = ""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as stream:
        mount = next((line.split()[1] for line in stream if line.startswith("mnt_id:")), "")
    return os.fstat(fd).st_dev, mount
