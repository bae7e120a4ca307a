"""The language between rchd and rch-wkr, and the format of a job's log.

Standard library of Python 3.9 only: this file is part of the rch-wkr zipapp, and rchd imports the same file.

Messages
    After ``rch-wkr serve`` has started it writes one line, ``RCH-WKR <protocol>\\n``; what a login shell printed
    before it is skipped by the reader. Then both sides send *messages*::

        length  u32 big-endian   bytes that follow the header
        id      u32              of the request; the answer repeats it, answers come in any order
        flags   u8               bit 0: the payload is one zstd stream behind its u64 unpacked size
        pad     3 bytes, zero
        payload u32 length of the JSON part, the JSON part (one object, ASCII), then the body (raw bytes)

    A request's object has ``op``; an answer's has ``ok``: true, or false with ``error`` (a code of
    :data:`ERROR_CODES`) and ``message``. A message longer than :data:`MAX_MESSAGE` ends the connection, as does a
    compressed one that unpacks to another size than declared.

Paths
    are strings decoded from bytes as UTF-8 with ``surrogateescape``, on both sides and whatever the locale. Paths
    inside a root are relative, ``/``-separated, without ``.``, ``..`` or empty components (:func:`check_relpath`).

Entries
    One path of a tree is ``[path, type, mode, size, mtime_ns, content]``: type is ``f`` (file), ``d`` (directory)
    or ``l`` (symlink); mode is ``st_mode & 0o777`` (0 for links); size in bytes (0 for d and l); content is the
    BLAKE2b-256 hex digest of a file, the target of a link, "" of a directory. A further element, when present, is
    the group number of a hard-linked set within the same list.

Log frames
    A job's output is one append-only file of frames, which is also what travels to the client::

        stream  u8    1 stdout, 2 stderr, 0 a marker (JSON payload)
        pad     3 bytes, zero
        length  u32   bytes of payload
        time    u64   ns since the epoch, the worker's clock
        payload

    An *offset* is a position in that file, always at a frame boundary; 0 is the start.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

PROTOCOL = 1
"""Raised by every incompatible change; the handshake refuses any other number, naming both."""

PREFACE = b"RCH-WKR "

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes. A full index of 200,000 paths is about 25 MB of JSON before compression."""

MAX_PREFACE_NOISE = 64 * 1024
"""Bytes that a login shell may print before the preface."""

INLINE_LIMIT = 1024 * 1024
"""Bytes of file content that travel inside one request or answer; more goes by rsync (lessons SP-11)."""

COMPRESS_FROM = 4 * 1024
"""Payloads below this are not worth a zstd process on the worker."""

FLAG_ZSTD = 1

HEADER = struct.Struct(">IIB3x")
JSON_LENGTH = struct.Struct(">I")
UNPACKED = struct.Struct(">Q")
LOG_HEADER = struct.Struct(">B3xIQ")

STREAM_MARK, STREAM_STDOUT, STREAM_STDERR = 0, 1, 2

LOG_PAYLOAD_MAX = 64 * 1024
"""Bytes of output in one log frame; also the most that one ``read`` returns, headers not counted."""

ERROR_CODES = frozenset(
    {
        "bad-request",  # the request is malformed or names something outside its root
        "no-such-job",
        "no-such-root",
        "busy",  # a lock or the slots could not be had within wait_s
        "stale",  # the root's generation is not the one the request was computed against
        "dirty",  # a previous push was interrupted; ask for the index and push what differs
        "disk-full",
        "no-sandbox",  # bubblewrap is missing or user namespaces are off
        "tool-missing",
        "mismatch",  # a staged file does not have the declared size or hash
        "too-large",
        "internal",
    }
)


class ProtocolError(Exception):
    """The peer broke a rule of this page; the connection must end."""


class Message(NamedTuple):
    """One decoded message: request id, JSON object, body."""

    id: int
    fields: Dict[str, Any]
    body: bytes


class Entry(NamedTuple):
    """One path of a tree, as described on top of this page."""

    path: str
    type: str
    mode: int
    size: int
    mtime_ns: int
    content: str
    group: Optional[int] = None

    def as_json(self) -> List[Any]:
        row: List[Any] = [self.path, self.type, self.mode, self.size, self.mtime_ns, self.content]
        if self.group is not None:
            row.append(self.group)
        return row

    def same_content(self, other: "Entry") -> bool:
        """Equal but for path, times and hard-link groups."""
        return (self.type, self.mode, self.size, self.content) == (
            other.type,
            other.mode,
            other.size,
            other.content,
        )


def entry_from_json(row: Any) -> Entry:
    """Check and decode one entry; raises ProtocolError on anything unexpected."""
    if not isinstance(row, list) or len(row) not in (6, 7):
        raise ProtocolError("an entry is a list of 6 or 7 items")
    path, kind, mode, size, mtime_ns, content = row[:6]
    group = row[6] if len(row) == 7 else None
    numbers = (mode, size, mtime_ns) if group is None else (mode, size, mtime_ns, group)
    if not isinstance(path, str) or kind not in ("f", "d", "l") or not isinstance(content, str):
        raise ProtocolError("an entry has a path, a type of f, d or l, and a content string")
    if not all(type(n) is int and -(1 << 63) <= n < 1 << 63 for n in numbers):
        raise ProtocolError("mode, size and times of an entry are whole numbers of at most 63 bits")
    if mode & ~0o777 or size < 0:
        raise ProtocolError("an entry's mode has permission bits only, its size is not negative")
    check_relpath(path)
    return Entry(path, kind, mode, size, mtime_ns, content, group)


def check_relpath(path: str) -> str:
    """Return *path* if it is a clean relative path inside a root, else raise ProtocolError (lessons AR-08)."""
    if not path or path.startswith("/") or "\0" in path:
        raise ProtocolError("not a path inside the root: %r" % (path[:200],))
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ProtocolError("not a clean path: %r" % (path[:200],))
    return path


def path_bytes(path: str) -> bytes:
    """The bytes of a protocol path."""
    return path.encode("utf-8", "surrogateescape")


def path_text(path: bytes) -> str:
    """The protocol form of a path given as bytes."""
    return path.decode("utf-8", "surrogateescape")


def hash_bytes(data: bytes) -> str:
    """BLAKE2b-256, hex: the one content hash of rch, on both sides."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def hash_stream(stream: BinaryIO) -> str:
    """As :func:`hash_bytes`, for what *stream* still holds."""
    state = hashlib.blake2b(digest_size=32)
    while True:
        block = stream.read(1 << 20)
        if not block:
            return state.hexdigest()
        state.update(block)


def pack(fields: Dict[str, Any], body: bytes = b"") -> bytes:
    """The payload of a message."""
    text = json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return JSON_LENGTH.pack(len(text)) + text + body


def unpack(payload: bytes) -> Tuple[Dict[str, Any], bytes]:
    """Undo :func:`pack`; raises ProtocolError."""
    if len(payload) < JSON_LENGTH.size:
        raise ProtocolError("payload without JSON")
    (length,) = JSON_LENGTH.unpack_from(payload)
    end = JSON_LENGTH.size + length
    if end > len(payload):
        raise ProtocolError("JSON part longer than its payload")
    try:
        fields = json.loads(payload[JSON_LENGTH.size : end].decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("JSON part does not parse") from error
    if not isinstance(fields, dict):
        raise ProtocolError("JSON part is not an object")
    return fields, payload[end:]


def log_frame(stream: int, payload: bytes, time_ns: int) -> bytes:
    """One frame of a job's log."""
    return LOG_HEADER.pack(stream, len(payload), time_ns) + payload


def log_frames(data: bytes) -> Iterator[Tuple[int, int, bytes]]:
    """Yield ``(stream, time_ns, payload)`` of each complete frame at the start of *data*."""
    position = 0
    while position + LOG_HEADER.size <= len(data):
        stream, length, time_ns = LOG_HEADER.unpack_from(data, position)
        end = position + LOG_HEADER.size + length
        if end > len(data):
            return
        yield stream, time_ns, data[position + LOG_HEADER.size : end]
        position = end
