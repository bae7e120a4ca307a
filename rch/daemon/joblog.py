"""The copy of a job's log that rchd keeps: what a reader saw, what ``rch logs`` replays, what a reconnect continues.

While a job runs the copy is the plain framed log. When it has ended it is packed into ``log.zst``: independent zstd
frames of whole log frames, and ``log.idx`` with one row per zstd frame, so an offset stays a position in the
uncompressed log and a read unpacks at most one frame beyond its range (coverage A-26).
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading

import zstandard

from rch.paths import AbsPath
from rch.worker import protocol

_ROW = struct.Struct(">QQQQ")
"""start and length in the log, start and length in log.zst."""

PACK_BYTES = 1 << 20
"""Uncompressed bytes per zstd frame: small enough to unpack in a few ms, large enough to compress well."""


class JobLog:
    """The log of one job below *directory* (``<state>/jobs/<id>``). One writer, any number of readers."""

    def __init__(self, directory: AbsPath) -> None:
        self._directory = directory
        self._plain = os.path.join(directory, "log")
        self._packed = os.path.join(directory, "log.zst")
        self._index = os.path.join(directory, "log.idx")
        self._grown = threading.Condition()
        self._fd = -1
        # Known before the first reader and the writer meet: found out later, it could count a chunk twice.
        self._size = self._find_size()
        self.ended = False

    @property
    def size(self) -> int:
        """Bytes of the log that are here; the offset at which the next chunk belongs."""
        return self._size

    def append(self, data: bytes) -> None:
        """Add whole frames at the end; wakes readers that wait."""
        if self._fd < 0:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            size = self.size
            self._fd = os.open(self._plain, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._fd, size)  # a frame cut by a crash is fetched again
            os.lseek(self._fd, size, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        with self._grown:
            self._size = self.size + len(data)
            self._grown.notify_all()

    def end(self) -> None:
        """The job has ended and its log is complete; readers that wait return."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with self._grown:
            self.ended = True
            self._grown.notify_all()

    def read(self, offset: int, limit: int = protocol.LOG_PAYLOAD_MAX, wait_s: float = 0.0) -> bytes:
        """Whole frames from *offset*, at least one when there is one, about *limit* bytes; b"" when there is none.

        Raises ValueError when *offset* lies behind the end.
        """
        with self._grown:
            if wait_s > 0 and not self.ended:
                self._grown.wait_for(lambda: self.size > offset or self.ended, wait_s)
            if offset > self.size:
                raise ValueError(f"offset {offset} is behind the end of the log ({self.size})")
            available = self.size - offset
        if available <= 0:
            return b""
        data = self._bytes(offset, max(limit, protocol.LOG_HEADER.size))
        end = whole_frames(data)
        if end == 0:
            (_, length, _) = protocol.LOG_HEADER.unpack_from(data)
            data = self._bytes(offset, protocol.LOG_HEADER.size + length)
            end = whole_frames(data)
        return data[:end]

    def pack(self) -> None:
        """Compress the ended log in place of the plain one. Idempotent; a crash leaves the plain one."""
        if not os.path.exists(self._plain):
            return
        rows: list[bytes] = []
        temporary = f"{self._packed}.tmp"
        position = packed = 0
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            while data := self.read(position, PACK_BYTES):
                frame = zstandard.ZstdCompressor(level=3).compress(data)
                rows.append(_ROW.pack(position, len(data), packed, len(frame)))
                file.write(frame)
                position += len(data)
                packed += len(frame)
        with open(os.open(self._index, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(b"".join(rows))
        os.replace(temporary, self._packed)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._plain)

    def _find_size(self) -> int:
        if os.path.exists(self._plain):
            size = 0
            with open(self._plain, "rb") as file:
                total = os.fstat(file.fileno()).st_size
                while header := file.read(protocol.LOG_HEADER.size):
                    if len(header) < protocol.LOG_HEADER.size:
                        break
                    (_, length, _) = protocol.LOG_HEADER.unpack(header)
                    if size + protocol.LOG_HEADER.size + length > total:
                        break
                    size += protocol.LOG_HEADER.size + length
                    file.seek(size)
            return size
        rows = self._rows()
        return rows[-1][0] + rows[-1][1] if rows else 0

    def _rows(self) -> list[tuple[int, int, int, int]]:
        try:
            with open(self._index, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return []
        rows: list[tuple[int, int, int, int]] = list(_ROW.iter_unpack(data[: len(data) // _ROW.size * _ROW.size]))
        return rows

    def _bytes(self, offset: int, length: int) -> bytes:
        """Up to *length* bytes at *offset* of the uncompressed log."""
        with contextlib.suppress(FileNotFoundError), open(self._plain, "rb") as file:
            file.seek(offset)
            return file.read(min(length, self.size - offset))
        parts: list[bytes] = []
        try:
            with open(self._packed, "rb") as file:
                for start, size, packed, packed_size in self._rows():
                    if start + size <= offset or start >= offset + length:
                        continue
                    file.seek(packed)
                    data = zstandard.ZstdDecompressor().decompress(file.read(packed_size), max_output_size=size)
                    parts.append(data[max(0, offset - start) : offset + length - start])
        except FileNotFoundError:
            return b""
        return b"".join(parts)


def whole_frames(data: bytes) -> int:
    """Length of the whole frames, of streams that exist, at the start of *data*."""
    end = 0
    while end + protocol.LOG_HEADER.size <= len(data):
        (stream, length, _) = protocol.LOG_HEADER.unpack_from(data, end)
        if stream > protocol.STREAM_STDERR or end + protocol.LOG_HEADER.size + length > len(data):
            break
        end += protocol.LOG_HEADER.size + length
    return end
