"""A repository's index, rewritten so that it answers on another machine as it does here.

Stat data differ there, except for size and mtime, which every push sets to the nanosecond. So everything else is
zeroed, and the made-up repository compares size and whole seconds alone (``core.checkStat = minimal``); an entry for
which that would not be sure gets no time at all, and git there compares its content, as it would here.
Format: gitformat-index(5), versions 2 and 3; extensions only save time and are left out.
"""

from __future__ import annotations

import hashlib
import struct

_STAT = struct.Struct(">10I")  # ctime s, ns, mtime s, ns, dev, ino, mode, uid, gid, size
_ASSUME_VALID = 0x8000
_EXTENDED = 0x4000


class OddIndex(ValueError):
    """The index has a version or an extension that git has to rewrite first."""


def portable_index(data: bytes, *, written_s: int, prefix: bytes = b"", hash_name: str = "sha1") -> bytes:
    """The index *data*, for another machine.

    written_s: mtime of the index, whole seconds; a file of the same second may have changed after it was added.
    prefix:    "a/b/" if only that part of the working tree travels: git there is told to believe in the rest.
    Raises OddIndex for version 4, split and sparse indexes, and for anything that does not parse.
    """
    size = hashlib.new(hash_name, usedforsecurity=False).digest_size
    if len(data) < 12 + size or data[:4] != b"DIRC":
        raise OddIndex("no index")
    version, count = struct.unpack_from(">II", data, 4)
    if version not in (2, 3):
        raise OddIndex(f"version {version}")
    out = [data[:12]]
    position = 12
    for _ in range(count):
        start = position
        _, _, mtime_s, _, _, _, mode, _, _, length = _STAT.unpack_from(data, position)
        position += _STAT.size
        name_hash = data[position : position + size]
        position += size
        (flags,) = struct.unpack_from(">H", data, position)
        position += 2
        more = b""
        if flags & _EXTENDED:
            more = data[position : position + 2]
            position += 2
        end = data.index(b"\0", position)
        path = data[position:end]
        entry_size = end - start
        position = start + (entry_size + 8) // 8 * 8  # NUL-padded to a multiple of eight, at least one NUL
        if mtime_s >= written_s:
            mtime_s = length = 0
        if prefix and not path.startswith(prefix):
            flags |= _ASSUME_VALID
        entry = (
            _STAT.pack(0, 0, mtime_s, 0, 0, 0, mode, 0, 0, length) + name_hash + struct.pack(">H", flags) + more + path
        )
        out.append(entry + b"\0" * (position - start - len(entry)))
    _check_extensions(data, position, len(data) - size)
    body = b"".join(out)
    return body + hashlib.new(hash_name, body, usedforsecurity=False).digest()


def _check_extensions(data: bytes, position: int, end: int) -> None:
    while position < end:
        name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "big")
        if name in (b"link", b"sdir"):
            raise OddIndex(f"extension {name.decode()}")
        position += 8 + length
