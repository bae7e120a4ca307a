"""The build directories of a root as they lie here, to be compared with what a worker says about its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from typing_extensions import override

from rch.project.manifest import read_file
from rch.project.model import Root
from rch.project.statcache import StatCache
from rch.worker.protocol import Entry


class BuildState(Mapping[str, Entry]):
    """path -> Entry of everything in the build directories; ``content`` of a file is "" until somebody asks.

    A file whose stat data are in the cache has its hash at once; :meth:`hash_of` reads the others, one by one.
    """

    def __init__(self, root: Root, cache: StatCache, statuses: dict[str, os.stat_result]) -> None:
        self._top = root.real
        self._cache = cache
        self._statuses = statuses
        self._entries: dict[str, Entry] = {}

    @override
    def __getitem__(self, path: str) -> Entry:
        found = self._entries.get(path)
        if found is None:
            found = self._entries[path] = self._describe(path, self._statuses[path])
        return found

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._statuses)

    @override
    def __len__(self) -> int:
        return len(self._statuses)

    def status(self, path: str) -> os.stat_result:
        """What lstat said about *path* in the walk. Raises KeyError."""
        return self._statuses[path]

    def hash_of(self, path: str) -> str:
        """BLAKE2b-256 of the file *path* as it is now; "" if it is no file (any more)."""
        entry = self[path]
        if entry.type != "f" or entry.content:
            return entry.content if entry.type == "f" else ""
        read = read_file(os.path.join(self._top, path))
        if read is None:
            return ""
        status, content, read_ns = read
        self._cache.record(path, status, content, read_ns)
        self._statuses[path] = status
        self._entries[path] = self._describe(path, status)._replace(content=content)
        return content

    def save(self) -> None:
        """Keep what was hashed for the next job."""
        self._cache.save(set(self._statuses))

    def _describe(self, path: str, status: os.stat_result) -> Entry:
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            return Entry(path, "d", mode & 0o777, 0, status.st_mtime_ns, "")
        if stat.S_ISLNK(mode):
            try:
                target = os.readlink(os.path.join(self._top, path))
            except OSError:
                target = ""
            return Entry(path, "l", 0, 0, status.st_mtime_ns, target)
        known = self._cache.lookup(path, status) or ""
        return Entry(path, "f", mode & 0o777, status.st_size, status.st_mtime_ns, known)


def scan_build_dirs(root: Root, cache: StatCache) -> BuildState:
    """Walk the build directories of *root* once, without reading a file.

    cache: a stat cache for build directories alone (section "build"). A directory that is not there gives nothing;
    links are never followed. Sockets and the like are not listed.
    """
    statuses: dict[str, os.stat_result] = {}
    stack: list[str] = []
    path: str
    for path in root.build_dirs:
        try:
            status = os.lstat(os.path.join(root.real, path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        statuses[path] = status
        if stat.S_ISDIR(status.st_mode):
            stack.append(path)
    while stack:
        directory = stack.pop()
        try:
            fd = os.open(
                os.path.join(root.real, directory), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except OSError:
            continue  # gone, replaced or closed to us since its parent was read: then it is not here
        try:
            for name in os.listdir(fd):
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                path = f"{directory}/{name}"
                if stat.S_ISDIR(status.st_mode):
                    stack.append(path)
                elif not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                    continue
                statuses[path] = status
        finally:
            os.close(fd)
    return BuildState(root, cache, statuses)
