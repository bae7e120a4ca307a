"""What a root's tree holds, on disk: per path the logical entry and the stat data it had when we last looked.

*Logical* is what the pusher was told or told us. The times differ where a pushed file got the current time (lessons
PM-05): the row keeps the pusher's time, so the bump never comes back. Only stat data decides what is hashed again.
"""

from __future__ import annotations

import contextlib
import marshal
import os
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


def save(path: str, generation: str, rows: Rows) -> None:
    """Write by rename. marshal: ten times quicker than JSON, and nobody but us can write here."""
    data = _MAGIC + marshal.dumps((generation, {name: tuple(row) for name, row in rows.items()}), 4)
    temporary = path + ".tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def load(path: str) -> Optional[Tuple[str, Rows]]:
    """(generation, rows), or None when there is no index that can be trusted; the tree is then walked again."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if not data.startswith(_MAGIC):
            return None
        generation, rows = marshal.loads(data[len(_MAGIC) :])  # noqa: S302  our own file in a 0700 directory
        return generation, dict(zip(rows, map(Row._make, rows.values())))  # noqa: B905  strict= is of Python 3.10
    except (OSError, ValueError, EOFError, TypeError):
        return None


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
