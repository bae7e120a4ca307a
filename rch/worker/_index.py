"""What a root's tree holds, on disk: per path the logical entry and the stat data it had when we last looked.

*Logical* is what the pusher was told or told us. The times differ where a pushed file got the current time (lessons
PM-05): the row keeps the pusher's time, so the bump never comes back. Only stat data decides what is hashed again.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import threading
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from rch.worker.protocol import Entry

_MAGIC = b"RCH-INDEX 1\n"


class Row(NamedTuple):
    """One path. ``stamp`` is (st_mode, st_size, mtime_ns, ctime_ns, inode) as lstat gave it.

    pushed_ns: when a push last brought this content (worker's clock); 0 when a job wrote it.
    """

    type: str
    mode: int
    size: int
    mtime_ns: int
    content: str
    stamp: Tuple[int, int, int, int, int]
    pushed_ns: int = 0

    @property
    def inode(self) -> int:
        return self.stamp[4]

    @property
    def ctime_ns(self) -> int:
        return self.stamp[3]


Rows = Dict[str, Row]


def stamp_of(status: os.stat_result) -> Tuple[int, int, int, int, int]:
    """What of lstat shows that somebody touched a path."""
    return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


_Identity = Tuple[int, int, int]

_KEPT_ROWS = 150_000
"""Rows kept in memory at most, of all indexes together: some 60 MB."""

_kept: Dict[str, Tuple[_Identity, str, Rows]] = {}
"""The indexes last loaded or saved, oldest first, with the identity of the file: files are replaced, never changed.

One push and one return read the index of a tree; of 50,000 paths that is 140 ms of CPU each time.
"""

_lock = threading.Lock()


def save(path: str, generation: str, rows: Rows) -> None:
    """Write by rename; *rows* are not to be changed any more.

    marshal: ten times quicker than JSON, and nobody but us can write here.
    """
    plain = dict(zip(rows, map(tuple, rows.values())))  # noqa: B905  strict= is of Python 3.10
    data = _MAGIC + marshal.dumps((generation, plain), 4)
    temporary = path + ".tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            identity = _identity(os.fstat(descriptor))
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _keep(path, identity, generation, rows)


def load(path: str) -> Optional[Tuple[str, Rows]]:
    """(generation, rows), or None when there is no index that can be trusted; the tree is then walked again.

    The rows may be shared: who wants to change them takes a copy.
    """
    try:
        with open(path, "rb") as file:
            identity = _identity(os.fstat(file.fileno()))
            with _lock:
                known = _kept.get(path)
            if known is not None and known[0] == identity:
                return known[1:]
            data = file.read()
        if not data.startswith(_MAGIC):
            return None
        generation, plain = marshal.loads(data[len(_MAGIC) :])  # noqa: S302  our own file in a 0700 directory
        rows = dict(zip(plain, map(Row._make, plain.values())))  # noqa: B905  strict= is of Python 3.10
    except (OSError, ValueError, EOFError, TypeError):
        return None
    _keep(path, identity, generation, rows)
    return generation, rows


def _identity(status: os.stat_result) -> _Identity:
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _keep(path: str, identity: _Identity, generation: str, rows: Rows) -> None:
    with _lock:
        _kept.pop(path, None)
        _kept[path] = (identity, generation, rows)
        while sum(len(one[2]) for one in _kept.values()) > _KEPT_ROWS:
            del _kept[next(iter(_kept))]


def links(rows: Rows) -> Dict[str, Tuple[str, ...]]:
    """Path -> all paths of its hard-linked set, sorted, for files that have more than one name in the tree."""
    first: Dict[int, str] = {}
    sets: Dict[int, List[str]] = {}
    for path, row in rows.items():
        if row.type != "f":
            continue
        inode = row.stamp[4]
        if inode in first:
            sets.setdefault(inode, [first[inode]]).append(path)
        else:
            first[inode] = path
    found: Dict[str, Tuple[str, ...]] = {}
    for members in sets.values():
        shared = tuple(sorted(members))
        for path in shared:
            found[path] = shared
    return found


def entries(rows: Rows, paths: Iterable[str], linked: Dict[str, Tuple[str, ...]]) -> List[List[Any]]:
    """The JSON rows of *paths*; hard-linked sets are numbered within the list."""
    numbers: Dict[Tuple[str, ...], int] = {}
    made = []
    for path in paths:
        row = rows[path]
        shared = linked.get(path)
        group = None if shared is None else numbers.setdefault(shared, len(numbers))
        made.append(Entry(path, row.type, row.mode, row.size, row.mtime_ns, row.content, group).as_json())
    return made
