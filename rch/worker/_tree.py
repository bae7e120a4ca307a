"""A directory tree whose paths are used without ever following a link out of it.

What a job left behind is hostile: any component may have become a link. So every step is an ``openat`` with O_NOFOLLOW
from the tree's own descriptor, and every change happens inside an opened parent directory (lessons AR-08).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple, TypeVar

_T = TypeVar("_T")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_KEPT_OPEN = 64
"""Directory descriptors that are kept at hand; far below the usual limit of 1,024."""

_IS_DIRECTORY = (errno.EISDIR, errno.EPERM)
_NOT_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)


def parent_of(path: str) -> str:
    """The directory part of a clean relative path; "" for the tree itself."""
    return path.rpartition("/")[0]


class Tree:
    """One tree. *trash*: a directory on the same file system that takes what is removed until :func:`purge`.

    touched:  directories in which a name was added, removed or replaced.
    loosened: directories whose mode had to be widened for us to work in them, with the mode they had.
    """

    def __init__(self, path: str, trash: str) -> None:
        self.path = path
        self.touched: Set[str] = set()
        self.loosened: Dict[str, int] = {}
        self._trash_path = trash
        self._trash: Optional[int] = None
        self._count = 0
        self._open: Dict[str, int] = {}
        self._root = os.open(path, _DIRECTORY)

    def __enter__(self) -> Tree:  # noqa: PYI034  typing.Self is of Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.restore()
        self._forget()
        os.close(self._root)
        if self._trash is not None:
            os.close(self._trash)
            self._trash = None

    # -- looking ------------------------------------------------------------------------------------------------

    def directory(self, path: str) -> int:
        """A descriptor of directory *path* ("" is the tree), valid until the next call. OSError ENOTDIR for a link."""
        if len(self._open) > _KEPT_OPEN:
            self._forget()
        try:
            return self._directory(path)
        except PermissionError:
            if not self._widen(path):
                raise
            return self._directory(path)

    def stat(self, path: str) -> Optional[os.stat_result]:
        """lstat; None when there is nothing at *path*."""
        try:
            parent = self.directory(parent_of(path))
            return os.stat(path.rpartition("/")[2], dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, *_NOT_DIRECTORY):
                return None
            raise

    def open_file(self, path: str) -> int:
        """A read-only descriptor of the regular file *path*; OSError(EINVAL) when it is anything else."""
        parent, name = self._place(path)
        try:
            descriptor = os.open(name, _FILE, dir_fd=parent)
        except PermissionError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise
            # The job took our own right to read away; lend it for the moment of opening.
            os.chmod(name, stat.S_IMODE(status.st_mode) | 0o400, dir_fd=parent)
            try:
                descriptor = os.open(name, _FILE, dir_fd=parent)
            finally:
                os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return descriptor

    def read_link(self, path: str) -> str:
        parent, name = self._place(path)
        return os.readlink(name, dir_fd=parent)

    def walk(self) -> Iterator[Tuple[str, os.stat_result]]:
        """Every path below the tree with its lstat, parents before children. Nothing may change the tree meanwhile.

        A directory whose mode keeps us out is loosened until :meth:`restore`; its lstat is the one from before.
        """
        pending: List[Tuple[str, Optional[os.stat_result]]] = [("", None)]
        while pending:
            above, known = pending.pop()
            if known is not None and known.st_mode & 0o500 != 0o500:
                self._loosen(above, known)
            prefix = above + "/" if above else ""
            # Opened by its whole path: this walk itself found every component to be a directory.
            descriptor = os.open(above or ".", _DIRECTORY, dir_fd=self._root)
            try:
                with os.scandir(descriptor) as listing:
                    for item in listing:
                        status = item.stat(follow_symlinks=False)
                        path = prefix + item.name
                        if stat.S_ISDIR(status.st_mode):
                            pending.append((path, status))
                        yield path, status
            finally:
                os.close(descriptor)

    def restore(self) -> Dict[str, os.stat_result]:
        """Give loosened directories the mode they had, the deepest first; their lstat afterwards."""
        restored: Dict[str, os.stat_result] = {}
        for path in sorted(self.loosened, key=lambda path: (-path.count("/"), path)):
            mode = self.loosened.pop(path)
            if not path:
                os.fchmod(self._root, mode)
                continue
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self.set_mode(path, mode)
                restored[path] = os.stat(path.rpartition("/")[2], dir_fd=self._place(path)[0], follow_symlinks=False)
        return restored

    # -- changing -----------------------------------------------------------------------------------------------

    def make_directory(self, path: str) -> bool:
        """Make *path* a directory, parents included; what is in the way goes. False when it was one already."""
        try:
            self.directory(path)
            return False
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, *_NOT_DIRECTORY):
                raise
        above = parent_of(path)
        if above:
            self.make_directory(above)
        found = self.stat(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._loosen(path, found)
            return False
        if found is not None:
            self.remove(path)
        self._within(path, lambda parent, name: os.mkdir(name, 0o700, dir_fd=parent))
        return True

    def make_file(self, path: str) -> None:
        """An empty file where nothing is."""
        self._within(path, lambda parent, name: os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=parent)))

    def remove(self, path: str) -> None:
        """Remove whatever is at *path*, with everything below it; nothing there is fine."""

        def act(parent: int, name: str) -> None:
            try:
                os.unlink(name, dir_fd=parent)
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in _IS_DIRECTORY:
                    raise
            self._forget_below(path)
            self._discard(parent, name)

        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._within(path, act)

    def remove_listed(self, path: str) -> bool:
        """Remove a file, a link or an *empty* directory. False when a directory still holds something."""
        kept = []

        def act(parent: int, name: str) -> None:
            try:
                os.unlink(name, dir_fd=parent)
                return
            except OSError as error:
                if error.errno not in _IS_DIRECTORY:
                    raise
            self._forget_below(path)
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                kept.append(path)

        try:
            self._within(path, act)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *_NOT_DIRECTORY):
                raise
        return not kept

    def place(self, source: str, source_directory: int, path: str) -> None:
        """Rename *source* (a name in *source_directory*) to *path*; what is there is replaced, a directory too."""
        self.make_directory(parent_of(path))

        def act(parent: int, name: str) -> None:
            try:
                os.rename(source, name, src_dir_fd=source_directory, dst_dir_fd=parent)
            except IsADirectoryError:
                self._forget_below(path)
                self._discard(parent, name)
                os.rename(source, name, src_dir_fd=source_directory, dst_dir_fd=parent)

        self._within(path, act)

    def link(self, existing: str, path: str) -> None:
        """Make *path* another name of the file *existing*."""
        self.remove(path)
        self.make_directory(parent_of(path))
        above = os.dup(self.directory(parent_of(existing)))
        try:
            self._within(
                path,
                lambda parent, name: os.link(
                    existing.rpartition("/")[2], name, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False
                ),
            )
        finally:
            os.close(above)

    def set_mode(self, path: str, mode: int) -> None:
        """chmod of a file or directory (never of what a link names)."""
        parent, name = self._place(path)
        if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "a link has no mode", path)
        os.chmod(name, mode, dir_fd=parent)

    def set_time(self, path: str, mtime_ns: int) -> None:
        """Set the modification time of *path* itself, a link's own too; the access time becomes the same."""
        parent, name = self._place(path)
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)

    # -- insides ------------------------------------------------------------------------------------------------

    def _place(self, path: str) -> Tuple[int, str]:
        above, _, name = path.rpartition("/")
        return self.directory(above), name

    def _within(self, path: str, act: Callable[[int, str], _T]) -> _T:
        """Run *act* in the parent of *path*; a parent that we may not write is widened for the time being."""
        above, _, name = path.rpartition("/")
        try:
            result = act(self.directory(above), name)
        except PermissionError:
            if not self._widen(above):
                raise
            result = act(self.directory(above), name)
        self.touched.add(above)
        return result

    def _widen(self, path: str) -> bool:
        """Give ourselves all rights in *path* and its parents; False when there was nothing to give."""
        changed = False
        parts = path.split("/") if path else []
        for end in range(len(parts) + 1):
            above = "/".join(parts[:end])
            found = self.stat(above) if above else os.fstat(self._root)
            if found is not None and stat.S_ISDIR(found.st_mode) and found.st_mode & 0o700 != 0o700:
                self._loosen(above, found)
                changed = True
        return changed

    def _loosen(self, path: str, found: os.stat_result) -> None:
        mode = stat.S_IMODE(found.st_mode)
        self.loosened.setdefault(path, mode)
        if path:
            self.set_mode(path, mode | 0o700)
        else:
            os.fchmod(self._root, mode | 0o700)

    def _directory(self, path: str) -> int:
        if not path:
            return self._root
        known = self._open.get(path)
        if known is not None:
            return known
        above, _, name = path.rpartition("/")
        parent = self._directory(above)
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        self._open[path] = descriptor
        found = os.fstat(descriptor)
        if found.st_mode & 0o100 == 0:  # it opens by its r, but without x nothing in it can be reached
            self._loosen(path, found)
        return descriptor

    def _discard(self, parent: int, name: str) -> None:
        """Move a directory into the trash: quick, and nothing of it is visible any more."""
        if self._trash is None:
            os.makedirs(self._trash_path, mode=0o700, exist_ok=True)
            self._trash = os.open(self._trash_path, _DIRECTORY)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if status.st_mode & 0o700 != 0o700:  # renaming a directory to another parent writes its ".."
            os.chmod(name, stat.S_IMODE(status.st_mode) | 0o700, dir_fd=parent)
        self._count += 1
        os.rename(name, "%d-%x-%d" % (os.getpid(), id(self), self._count), src_dir_fd=parent, dst_dir_fd=self._trash)

    def _forget_below(self, path: str) -> None:
        for known in [p for p in self._open if p == path or p.startswith(path + "/")]:
            os.close(self._open.pop(known))

    def _forget(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


def purge(trash: str) -> int:
    """Delete everything below directory *trash*; returns the bytes of the files that went. Never follows a link.

    Deep trees are flattened on the way (a sub-directory moves up beside the others), so neither recursion nor
    descriptors nor path lengths grow with what a hostile job may have nested.
    """
    try:
        top = os.open(trash, _DIRECTORY)
    except FileNotFoundError:
        return 0
    freed = 0
    count = 0
    mark = os.urandom(4).hex()
    try:
        while True:
            names: List[str] = os.listdir(top)
            before = (count, freed)
            gone = 0
            for name in names:
                try:
                    status = os.stat(name, dir_fd=top, follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        freed += status.st_blocks * 512
                        os.unlink(name, dir_fd=top)
                        gone += 1
                        continue
                    os.chmod(name, 0o700, dir_fd=top)
                    inner = os.open(name, _DIRECTORY, dir_fd=top)
                except FileNotFoundError:
                    continue  # somebody else purges the same trash
                try:
                    with os.scandir(inner) as listing:
                        for item in listing:
                            if item.is_dir(follow_symlinks=False):
                                os.chmod(item.name, 0o700, dir_fd=inner)
                                count += 1
                                os.rename(item.name, "%s-%d" % (mark, count), src_dir_fd=inner, dst_dir_fd=top)
                            else:
                                freed += item.stat(follow_symlinks=False).st_blocks * 512
                                os.unlink(item.name, dir_fd=inner)
                finally:
                    os.close(inner)
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=top)
                    gone += 1
            if not gone and before == (count, freed):
                return freed  # empty, or nothing of it can go
    finally:
        os.close(top)
