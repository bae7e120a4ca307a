"""A job's log: one append-only file of frames (rch/worker/protocol.py), written by the supervisor, read by anyone."""

from __future__ import annotations

import os
from typing import Tuple

from rch.worker import _clock
from rch.worker.protocol import LOG_HEADER, LOG_PAYLOAD_MAX, log_frame
from rch.worker.refusal import Refusal

_HEADERS = 4096 * LOG_HEADER.size
"""Room for the headers of one read: a job that writes single lines gets many small frames."""


class LogWriter:
    """Appends frames. ``size`` is always at a frame boundary, also after a failed write."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._descriptor).st_size

    def write(self, stream: int, payload: bytes) -> None:
        """Append *payload* (at most LOG_PAYLOAD_MAX bytes) as one frame. Raises OSError, then nothing was added."""
        frame = log_frame(stream, payload, _clock.now_ns())
        position = 0
        try:
            while position < len(frame):
                position += os.write(self._descriptor, frame[position:])
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(frame)


def log_size(path: str) -> int:
    """Bytes of the log, a frame in the making included; 0 when there is none yet."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def read_log(path: str, offset: int, limit: int) -> Tuple[bytes, int]:
    """Whole frames from *offset* with at most *limit* bytes of payload, or the one frame that is longer.

    Returns (frames, next offset). Raises Refusal when *offset* is no frame boundary.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if offset:
            raise Refusal("bad-request", "offset %d is past the end of the log" % offset) from None
        return b"", 0
    try:
        if offset > os.fstat(descriptor).st_size:
            raise Refusal("bad-request", "offset %d is past the end of the log" % offset)
        data = os.pread(descriptor, max(limit, LOG_PAYLOAD_MAX) + _HEADERS, offset)
    finally:
        os.close(descriptor)
    position = payload = 0
    while position + LOG_HEADER.size <= len(data):
        stream, length, _ = LOG_HEADER.unpack_from(data, position)
        if stream > 2 or length > LOG_PAYLOAD_MAX or any(data[position + 1 : position + 4]):
            raise Refusal("bad-request", "offset %d is no frame boundary" % offset)
        end = position + LOG_HEADER.size + length
        if end > len(data) or (position and payload + length > limit):
            break
        position = end
        payload += length
    return data[:position], offset + position
