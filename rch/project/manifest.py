"""Root -> Manifest: what would be sent, hashed, at one moment."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from rch.errors import NotOffloadable
from rch.intercept.decision import Kind
from rch.paths import AbsPath
from rch.project._memory import uncollected
from rch.project.beneath import Beneath, Blocked
from rch.project.gitdir import Overlay
from rch.project.listing import Listing, list_root, opened, unreadable
from rch.project.model import Manifest, Root
from rch.project.settings import ManifestRules
from rch.project.statcache import StatCache
from rch.worker.protocol import Entry, hash_bytes, hash_stream, path_bytes

_THREADS = 4
"""hashlib gives the interpreter lock away for more than 2 KiB; more threads only wait for the disk together."""
_CHUNK = 32
"""Files per task of a thread."""
_SMALL = 1 << 20
"""Bytes; below it one read is quicker than a loop with a large buffer."""
_SETTLE_TRIES = 3


def take_manifest(
    root: Root,
    kind: Kind,
    rules: ManifestRules,
    cache: StatCache,
    *,
    rehash: bool = False,
    also: Collection[str] = (),
    overlay: Overlay | None = None,
) -> Manifest:
    """Look at *root* once and describe every path that would be sent.

    cache:   stat cache of the root's tree; read, extended and saved.
    rehash:  trust no stat data (``--no-cache``).
    also:    tree paths that a worker returned earlier: they belong to the manifest even if git ignores them.
    overlay: the made-up ``.git`` of ``transfer.git``, from :func:`git_overlay`.
    Raises NotOffloadable: ``too-large`` for a git-ignored input above ``rules.max_file_bytes``, ``missing-input`` for
    what cannot be read.
    """
    with uncollected(), cache.loading():
        listing = list_root(root.real, rules, ignored_inputs=kind.ignored_inputs, build_dirs=root.build_dirs, also=also)
    return manifest_of(root, listing, kind, rules, cache, rehash=rehash, overlay=overlay)


def manifest_of(
    root: Root,
    listing: Listing,
    kind: Kind,
    rules: ManifestRules,
    cache: StatCache,
    *,
    rehash: bool = False,
    overlay: Overlay | None = None,
) -> Manifest:
    """As :func:`take_manifest`, of a listing that is already there."""
    with uncollected():
        return _manifest_of(root, listing, kind, rules, cache, rehash=rehash, overlay=overlay)


def _manifest_of(
    root: Root,
    listing: Listing,
    kind: Kind,
    rules: ManifestRules,
    cache: StatCache,
    *,
    rehash: bool,
    overlay: Overlay | None,
) -> Manifest:
    _refuse_large(root, listing, kind, rules)
    if rehash:
        cache.forget_all()
    with opened(root.real) as tree:
        identity = tree.identity
    entries = _file_entries(root.real, listing.files, cache, identity)
    cache.save(set(entries))
    for path, status in listing.links.items():
        try:
            target = os.readlink(os.path.join(root.real, path))
        except OSError:
            continue  # gone or replaced since the walk; the re-check after the push sees the rest
        entries[path] = Entry(path, "l", 0, 0, status.st_mtime_ns, target)
    for path, status in listing.directories.items():
        entries[path] = Entry(path, "d", status.st_mode & 0o777, 0, status.st_mtime_ns, "")
    sources: Mapping[str, AbsPath] = {}
    if overlay is not None:
        entries.update(overlay.entries)
        sources = overlay.sources
    ordered = {path: entries[path] for path in sorted(entries)}
    return Manifest(
        entries=_grouped(ordered, listing.files),
        digest=tree_digest(ordered),
        taken_ns=listing.taken_ns,
        held_back=tuple(listing.held_back),
        left_out=tuple(listing.left_out),
        sources=sources,
        identity=identity,
    )


def tree_digest(entries: Mapping[str, Entry]) -> str:
    """BLAKE2b-256, hex, over path, type, mode and content of *entries*; never over times or order."""
    rows = map(entries.__getitem__, sorted(entries))
    text = "\0".join([f"{path}\0{kind}{mode:o}\0{content}" for path, kind, mode, _, _, content, _ in rows])
    return hash_bytes(path_bytes(text))


def _refuse_large(root: Root, listing: Listing, kind: Kind, rules: ManifestRules) -> None:
    if not kind.ignored_inputs:
        return  # git-ignored files stay here; what is sent has its own limit (coverage A-17)
    limit = rules.max_file_bytes
    large = [
        (status.st_size, path)
        for path, status in listing.files.items()
        if status.st_size > limit and path not in listing.tracked
    ]
    if large:
        size, path = max(large)
        raise NotOffloadable(
            f"{os.path.join(root.path, path)} is an input of {size // 1_000_000} MB, "
            f"above transfer.max_transfer_size_mb = {limit // 1_000_000}",
            code="too-large",
            hint="raise the limit, or name the file in .rchignore if the build does not read it",
        )


def _file_entries(
    top: str, files: Mapping[str, os.stat_result], cache: StatCache, identity: tuple[int, int]
) -> dict[str, Entry]:
    """An entry for every file; those whose stat data are unknown are read by a few threads."""
    rows = cache.rows
    entries: dict[str, Entry] = {}
    unknown: list[str] = []
    make, new = tuple.__new__, Entry  # 50,000 times: the checked constructor costs 20 ms more
    for path, status in files.items():
        row = rows.get(path)
        size, mtime_ns = status.st_size, status.st_mtime_ns
        if (
            row is not None
            and row[0] == size
            and row[1] == mtime_ns
            and row[2] == status.st_ctime_ns
            and row[3] == status.st_ino
        ):
            entries[path] = make(new, (path, "f", status.st_mode & 0o777, size, mtime_ns, row[4], None))
        else:
            unknown.append(path)
    for path, read in _hash_all(top, unknown, identity):
        if read is None:
            continue  # removed since the walk
        status, content, read_ns = read
        cache.record(path, status, content, read_ns)
        entries[path] = Entry(path, "f", status.st_mode & 0o777, status.st_size, status.st_mtime_ns, content)
    return entries


_Read = tuple[os.stat_result, str, int]
"""The state that was read, its hash, and when reading began (wall clock, ns)."""


def _hash_all(top: str, paths: list[str], identity: tuple[int, int]) -> Iterator[tuple[str, _Read | None]]:
    """What each of *paths* below the directory *top* holds. Who may write there may not read what lies elsewhere
    through us (lessons SE-08): no link that comes into the way meanwhile is followed.
    """

    def read_some(some: list[str]) -> list[tuple[str, _Read | None]]:
        with opened(top) as tree:
            if tree.identity != identity:
                raise NotOffloadable(f"{top} was replaced while it was read", code="path-not-proved")
            return [(path, _read_beneath(tree, path)) for path in some]

    if len(paths) < _CHUNK:  # starting threads costs more
        yield from read_some(paths)
        return
    chunks = [paths[at : at + _CHUNK] for at in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="hash") as pool:
        for done in pool.map(read_some, chunks):
            yield from done


def _read_beneath(tree: Beneath, path: str) -> _Read | None:
    try:
        fd, name = tree.parent(path)
    except Blocked:
        return None  # a directory on the way was removed, or is a link now
    return read_file(os.path.join(tree.top, path), name, fd)


def read_file(path: str, name: str = "", directory: int | None = None) -> _Read | None:
    """Hash one regular file in a state that did not change while it was read; None if it is not there (any more).

    A file that never holds still is answered as last read: the re-check after the push sends it again or says
    ``unstable-snapshot``. Raises NotOffloadable ``missing-input`` where this user may not read.
    name, directory: where to open it, if not at *path*: a name in an open directory.
    """
    read: _Read | None = None
    for _ in range(_SETTLE_TRIES):
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name or path, flags, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                return None  # became a link or a FIFO since the walk
            raise unreadable(path) from error
        with open(fd, "rb", buffering=0) as stream:
            read_ns = time.time_ns()
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                return None
            try:
                content = hash_bytes(stream.readall()) if before.st_size < _SMALL else hash_stream(stream)
            except OSError as error:
                raise unreadable(path) from error
            after = os.fstat(fd)
        read = (after, content, read_ns)
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        ):
            break
    return read


def _grouped(entries: dict[str, Entry], files: Mapping[str, os.stat_result]) -> dict[str, Entry]:
    """Number the sets of hard-linked files among *entries* (sorted), 0 first."""
    sets: dict[tuple[int, int], list[str]] = {}
    for path, status in files.items():
        if status.st_nlink > 1 and path in entries:
            sets.setdefault((status.st_dev, status.st_ino), []).append(path)
    several = sorted(sorted(paths) for paths in sets.values() if len(paths) > 1)
    for number, paths in enumerate(several):
        for path in paths:
            entries[path] = entries[path]._replace(group=number)
    return entries
