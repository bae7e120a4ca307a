"""What the files of a root hashed to when they were last read, known again by their stat data, as git's index does.

A row is trusted while size, mtime_ns, ctime_ns and inode are what they were; the kernel alone sets ctime, so an edit
of equal size with its mtime put back is seen (lessons SP-03). A file that was written within one tick of the clock
before it was read ("racy") gets no row: the next scan reads it again, because a second edit in the same tick would
look the same.

The file is columns behind a checksum: 50,000 rows load in some 50 ms, nothing stays in memory between commands, and
whatever does not check out counts as empty.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import cast

from rch.paths import AbsPath

_MAGIC = b"rch-stat 1\n"
_HEAD = struct.Struct("<QQ")  # rows, bytes of the path column
_COLUMNS = "qqqQ"  # size, mtime_ns, ctime_ns, inode (all 64 bits are used on some file systems)
_TICK_NS = 20_000_000
"""Two ticks of a kernel clock of 100 Hz: how far ctime may lag behind the clock we read."""
_COARSE_NS = 2_000_000_000
"""File systems that keep whole seconds (some two of them): their times end in nine zeros."""
_KEEP_UNSEEN = 20_000
"""Rows kept for files that the last scan did not meet: `cargo` and `make` in one root must not undo each other."""
_WRITE_ROW_NS, _READ_FILE_NS, _READ_BYTE_NS = 800, 50_000, 2
"""What a row costs to write, a file to open and hash, and a byte of it: of these, the next scan pays the lesser sum."""


def is_racy(status: os.stat_result, read_ns: int) -> bool:
    """True if the file changed so shortly before *read_ns* that a further change might not show in its stat data."""
    slack = _COARSE_NS if status.st_ctime_ns % 1_000_000_000 == 0 else _TICK_NS
    return status.st_ctime_ns >= read_ns - slack


class StatCache:
    """path -> (size, mtime_ns, ctime_ns, inode, hash) of one root, on disk at *path*; not for concurrent use."""

    def __init__(self, path: AbsPath) -> None:
        self._path = path
        self._rows: dict[str, tuple[int, int, int, int, str]] | None = None
        self._seen: dict[str, tuple[int, int, int, int, str]] = {}
        self._unwritten_ns = 0  # what reading again would cost, for rows that are not in the file

    @property
    def rows(self) -> dict[str, tuple[int, int, int, int, str]]:
        """The rows of the file and those recorded since; read only."""
        if self._rows is None:
            self._rows = _load(self._path)
        return self._rows

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Read the file beside what the block does; worth it where that waits for git."""
        thread = threading.Thread(target=lambda: self.rows, name="stat-cache")
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def lookup(self, path: str, status: os.stat_result) -> str | None:
        """The hash of *path* if its stat data are still those of the row."""
        row = self.rows.get(path)
        if row is None or row[:4] != (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino):
            return None
        return row[4]

    def record(self, path: str, status: os.stat_result, content: str, read_ns: int) -> None:
        """Remember that *path*, in the state *status*, was read at *read_ns* and hashed to *content*."""
        if is_racy(status, read_ns):
            self.rows.pop(path, None)  # its row in the file says another ctime: no scan will take it
            return
        self.rows[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, content)
        self._unwritten_ns += _READ_FILE_NS + _READ_BYTE_NS * status.st_size

    def forget_all(self) -> None:
        """Start empty (``--no-cache``: every file is hashed anew)."""
        self._rows = {}
        self._unwritten_ns = sys.maxsize

    def save(self, seen: set[str] | None = None) -> None:
        """Write the file when that is cheaper than to read again what it lacks; one edit among 50,000 files is not
        worth it. Rows outside *seen* go when they have become too many.

        Never raises for want of space: a cache that cannot be written costs time, not truth.
        """
        rows = self.rows
        if seen is not None and len(rows) > len(seen) + _KEEP_UNSEEN:
            self._rows = rows = {path: row for path, row in rows.items() if path in seen}
        elif self._unwritten_ns <= len(rows) * _WRITE_ROW_NS:
            return
        try:
            _store(self._path, rows)
        except OSError:
            return
        self._unwritten_ns = 0

    def release(self) -> None:
        """Give the memory back; the file stays."""
        self._rows = None
        self._unwritten_ns = 0


def _load(path: str) -> dict[str, tuple[int, int, int, int, str]]:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError:
        return {}
    start = len(_MAGIC) + 16 + _HEAD.size
    if len(data) < start or not data.startswith(_MAGIC):
        return {}
    if (
        hashlib.blake2b(memoryview(data)[len(_MAGIC) + 16 :], digest_size=16).digest()
        != data[len(_MAGIC) : len(_MAGIC) + 16]
    ):
        return {}
    count, path_bytes = _HEAD.unpack_from(data, len(_MAGIC) + 16)
    paths = data[start : start + path_bytes].decode("utf-8", "surrogateescape").split("\0") if count else []
    position = start + path_bytes
    columns = []
    for code in _COLUMNS:
        column: array.array[int] = array.array(code)
        column.frombytes(data[position : position + 8 * count])
        if sys.byteorder == "big":
            column.byteswap()
        columns.append(column)
        position += 8 * count
    digits = data[position : position + 32 * count].hex()
    hashes = [digits[at : at + 64] for at in range(0, 64 * count, 64)]
    return dict(zip(paths, zip(*columns, hashes, strict=True), strict=True))


def _store(path: str, rows: dict[str, tuple[int, int, int, int, str]]) -> None:
    names = "\0".join(rows).encode("utf-8", "surrogateescape")
    parts = [_HEAD.pack(len(rows), len(names)), names]
    for index, code in enumerate(_COLUMNS):
        column: array.array[int] = array.array(code, [cast(int, row[index]) for row in rows.values()])
        if sys.byteorder == "big":
            column.byteswap()
        parts.append(column.tobytes())
    parts.append(bytes.fromhex("".join(row[4] for row in rows.values())))
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".stat-", dir=os.path.dirname(path))  # 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(_MAGIC + state.digest())
            for part in parts:
                stream.write(part)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def stat_cache(state_dir: AbsPath, root_key: str, section: str = "tree") -> StatCache:
    """The cache of one root below ``<state>/roots/<key>/``; *section* is "tree" or "build"."""
    return StatCache(AbsPath(os.path.join(state_dir, "roots", root_key, f"stat-{section}")))
