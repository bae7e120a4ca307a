"""The worker's end of the control channel: framing, compression by the ``zstd`` program, bounded everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from typing import Any, BinaryIO, Dict, Optional

from rch.worker import protocol
from rch.worker.protocol import Message, ProtocolError

_ZSTD_LIMIT_S = 60.0


class ServerChannel:
    """Requests in, answers out, on two file objects. ``receive`` has one caller, ``send`` any number."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()
        self.compress = False

    def introduce(self) -> None:
        """The preface: everything before it was somebody else's noise."""
        with self._lock:
            self._writer.write(protocol.PREFACE + b"%d\n" % protocol.PROTOCOL)
            self._writer.flush()

    def receive(self) -> Optional[Message]:
        """The next request, or None at the end of the stream. Raises ProtocolError."""
        head = self._exactly(protocol.HEADER.size)
        if head is None:
            return None
        length, number, flags = protocol.HEADER.unpack(head)
        if length > protocol.MAX_MESSAGE:
            raise ProtocolError("message of %d bytes" % length)
        payload = self._exactly(length)
        if payload is None:
            return None
        if flags & ~protocol.FLAG_ZSTD:
            raise ProtocolError("unknown flags %d" % flags)
        if flags & protocol.FLAG_ZSTD:
            payload = unpack_zstd(payload)
        fields, body = protocol.unpack(payload)
        return Message(number, fields, body)

    def send(self, number: int, fields: Dict[str, Any], body: bytes = b"") -> None:
        """Answer request *number*. Raises OSError when nobody listens any more."""
        payload = protocol.pack(fields, body)
        if len(payload) > protocol.MAX_MESSAGE:
            refused = {"ok": False, "error": "too-large", "message": "an answer of %d bytes" % len(payload)}
            payload = protocol.pack(refused)
        flags = 0
        if self.compress and len(payload) >= protocol.COMPRESS_FROM:
            packed = pack_zstd(payload)
            if packed is not None and len(packed) < len(payload):
                payload, flags = packed, protocol.FLAG_ZSTD
        with self._lock:
            self._writer.write(protocol.HEADER.pack(len(payload), number, flags))
            self._writer.write(payload)
            self._writer.flush()

    def _exactly(self, size: int) -> Optional[bytes]:
        data = self._reader.read(size)
        return data if len(data) == size else None


def zstd_program() -> Optional[str]:
    """The ``zstd`` program, or None: then both sides send as is."""
    return shutil.which("zstd", path=os.environ.get("PATH", "") + ":/usr/local/bin:/usr/bin:/bin")


def pack_zstd(payload: bytes) -> Optional[bytes]:
    """The compressed form behind its unpacked size; None when the program fails."""
    program = zstd_program()
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-q", "-c", "-1", "-T1"],
            input=payload,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ZSTD_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return protocol.UNPACKED.pack(len(payload)) + done.stdout if done.returncode == 0 else None


def unpack_zstd(payload: bytes) -> bytes:
    """Undo :func:`pack_zstd`; a stream of another size than declared is a ProtocolError, however long it would get."""
    if len(payload) < protocol.UNPACKED.size:
        raise ProtocolError("compressed message without its size")
    (size,) = protocol.UNPACKED.unpack_from(payload)
    if size > protocol.MAX_MESSAGE:
        raise ProtocolError("compressed message of %d bytes" % size)
    program = zstd_program()
    if program is None:
        raise ProtocolError("compressed message, but there is no zstd here")
    with subprocess.Popen(
        [program, "-q", "-d", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        feeder = threading.Thread(
            target=_feed, args=(process.stdin, payload[protocol.UNPACKED.size :]), name="zstd", daemon=True
        )
        feeder.start()
        data = process.stdout.read(size + 1)  # one byte more than declared is enough to know
        if len(data) > size:
            process.kill()
        feeder.join(_ZSTD_LIMIT_S)
        if process.wait() != 0 or len(data) != size:
            raise ProtocolError("compressed message of another size than declared")
    return data


def _feed(pipe: BinaryIO, data: bytes) -> None:
    try:
        pipe.write(data)
        pipe.close()
    except OSError:
        pass  # the program ended early; its status tells
