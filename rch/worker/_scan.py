"""The one walk over a tree: what it holds now against what its index says, hashing only what differs (AR-12)."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Dict, List, NamedTuple, Optional

from rch.worker._index import Row, Rows, links, stamp_of
from rch.worker._tree import Tree

_TYPES = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}


class Scan(NamedTuple):
    """What the walk found.

    rows:    the whole tree as it is.
    changed: paths that are new or logically different, in the order of their ctime (the order they were written in).
    written: those of *changed* whose content is new.
    gone:    paths of the old rows that are there no more, deepest first.
    hashed:  files that had to be read.
    untouched: nobody has touched anything: the old rows, stat data included, are these.
    """

    rows: Rows
    changed: List[str]
    written: List[str]
    gone: List[str]
    hashed: int
    untouched: bool


def scan(tree: Tree, old: Rows, *, pushed_ns: int = 0, shift_ns: int = 0) -> Scan:
    """Walk *tree* once.

    pushed_ns: for content that changed without a job having run (an interrupted push), when that was; else 0.
    shift_ns:  a test's clock offset: added to the times of what changed, as if the job's clock had been off.
    """
    rows: Rows = {}
    suspects: List[str] = []
    for path, status in tree.walk():
        kind = _TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            continue  # sockets, pipes and devices do not travel
        known = old.get(path)
        stamp = stamp_of(status)
        if known is not None and known.stamp == stamp:
            rows[path] = known
            continue
        rows[path] = Row(kind, 0, 0, 0, "", stamp)
        suspects.append(path)
    if not suspects and len(rows) == len(old):
        return Scan(rows, [], [], [], 0, untouched=True)
    hashes: Dict[int, str] = {}
    for path in suspects:
        stamp = rows[path].stamp
        rows[path] = _look(tree, path, rows[path], old.get(path), hashes, pushed_ns)
        if shift_ns and stamp[2] != getattr(old.get(path), "stamp", (0, 0, None))[2]:
            tree.set_time(path, rows[path].mtime_ns + shift_ns)
            shifted = tree.stat(path)
            assert shifted is not None
            rows[path] = rows[path]._replace(mtime_ns=shifted.st_mtime_ns, stamp=stamp_of(shifted))
    for path, closed in tree.restore().items():
        if path in rows:
            rows[path] = rows[path]._replace(stamp=stamp_of(closed))
    linked, before = links(rows), links(old)
    changed = [path for path in suspects if _differs(rows[path], old.get(path))]
    if linked or before:
        # Another set of names is a change of every name in it: the client has to make the same links.
        moved = [p for p in linked.keys() | before.keys() if p in rows and p in old and linked.get(p) != before.get(p)]
        changed = list({**dict.fromkeys(changed), **dict.fromkeys(moved)})
    changed.sort(key=lambda path: (rows[path].ctime_ns, path))
    written = [p for p in changed if p not in old or rows[p].content != old[p].content or rows[p].type != old[p].type]
    gone = sorted((path for path in old if path not in rows), key=lambda path: (-path.count("/"), path))
    return Scan(rows, changed, written, gone, len(hashes), untouched=False)


def _differs(now: Row, before: Optional[Row]) -> bool:
    return before is None or now[:5] != before[:5]


def _look(tree: Tree, path: str, found: Row, known: Optional[Row], hashes: Dict[int, str], pushed_ns: int) -> Row:
    mode, size, mtime_ns, _, inode = found.stamp
    permissions = stat.S_IMODE(mode) & 0o777
    if found.type == "d":
        return found._replace(mode=permissions, mtime_ns=_logical_time(mtime_ns, "d", known))
    if found.type == "l":
        return found._replace(content=tree.read_link(path), mtime_ns=_logical_time(mtime_ns, "l", known))
    content = hashes.get(inode)
    if content is None:
        content = hashes[inode] = hash_file(tree, path)
    same = known is not None and known.type == "f" and known.content == content
    return Row(
        "f",
        permissions,
        size,
        _logical_time(mtime_ns, "f", known),
        content,
        found.stamp,
        known.pushed_ns if same and known is not None else pushed_ns,
    )


def _logical_time(mtime_ns: int, kind: str, known: Optional[Row]) -> int:
    """The pusher's time as long as nobody set another one since (lessons PM-05: the bump never comes back)."""
    return known.mtime_ns if known is not None and known.type == kind and known.stamp[2] == mtime_ns else mtime_ns


def hash_file(tree: Tree, path: str) -> str:
    """BLAKE2b-256 hex of a regular file."""
    state = hashlib.blake2b(digest_size=32)
    descriptor = tree.open_file(path)
    try:
        while True:
            block = os.read(descriptor, 1 << 20)
            if not block:
                return state.hexdigest()
            state.update(block)
    finally:
        os.close(descriptor)
