"""One control channel: numbered requests over a pair of byte streams, answers in any order.

A reader thread hands each answer to the caller that waits for it (lessons DS-02). When the stream ends, or breaks a
rule of the protocol, every waiting and every later request fails with Unreachable at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import zstandard

from rch.errors import DiskFull, Fault, Unreachable, WorkerFault
from rch.worker import protocol


class Answer(NamedTuple):
    """The answer to one request."""

    fields: dict[str, Any]
    body: bytes


class Pipe(Protocol):
    """The two byte streams of a channel."""

    def read(self, size: int) -> bytes:
        """At least one byte, at most *size*; b"" at the end."""
        ...

    def write(self, data: bytes) -> None:
        """All of *data*, or OSError."""
        ...

    def close(self) -> None:
        """End both directions; a blocked read returns b""."""
        ...


@dataclass
class Traffic:
    """Counters of one channel; tests and bench read them (round trips are a budget)."""

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Channel:
    """Requests to one ``rch-wkr serve``.

    host: the worker's name, for messages. on_end: called once, with the reason, when the channel has ended.
    """

    def __init__(self, pipe: Pipe, host: str, on_end: Callable[[str], None] | None = None) -> None:
        self.host = host
        self.traffic = Traffic()
        self.last_heard = time.monotonic()
        self._pipe = pipe
        self._on_end = on_end
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._waiting: dict[int, Future[Answer]] = {}
        self._next_id = 1
        self._ended: str | None = None
        self._zstd = False
        self._buffer = bytearray()
        self._read_preface()
        self._reader = threading.Thread(target=self._read_loop, name=f"channel-{host}", daemon=True)
        self._reader.start()

    @property
    def ended(self) -> str | None:
        """Why the channel ended, or None while it is usable."""
        return self._ended

    def use_zstd(self) -> None:
        """Compress large requests from now on (agreed in the handshake)."""
        self._zstd = True

    def submit(self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"") -> Future[Answer]:
        """Send a request; the future gives the answer, or the Fault."""
        future: Future[Answer] = Future()
        payload = protocol.pack({**(fields or {}), "op": op}, body)
        flags = 0
        if self._zstd and len(payload) >= protocol.COMPRESS_FROM:
            payload = protocol.UNPACKED.pack(len(payload)) + zstandard.ZstdCompressor(level=1).compress(payload)
            flags = protocol.FLAG_ZSTD
        if len(payload) > protocol.MAX_MESSAGE:
            raise WorkerFault(
                f"{self.host}: request {op} of {len(payload)} bytes is over the limit",
                host=self.host,
                operation=op,
                code="too-large",
            )
        with self._lock:
            if self._ended is not None:
                raise Unreachable(f"{self.host}: {self._ended}", host=self.host, stage="request")
            number = self._next_id
            self._next_id = (self._next_id + 1) & 0xFFFFFFFF
            self._waiting[number] = future
            self.traffic.requests += 1
        try:
            with self._send_lock:
                data = protocol.HEADER.pack(len(payload), number, flags) + payload
                self._pipe.write(data)
                self.traffic.sent_bytes += len(data)
        except OSError as error:
            self._end(f"connection lost while sending ({error})")
            raise Unreachable(f"{self.host}: {self._ended}", host=self.host, stage="request") from error
        return future

    def request(
        self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", *, timeout_s: float = 30.0
    ) -> Answer:
        """:meth:`submit` and wait; an answer that does not come in *timeout_s* is Unreachable."""
        future = self.submit(op, fields, body)
        started = time.monotonic()
        try:
            answer = future.result(timeout_s)
        except FutureTimeoutError as error:
            raise Unreachable(
                f"{self.host}: no answer to {op} within {timeout_s:g} s",
                host=self.host,
                stage="request",
                elapsed_s=time.monotonic() - started,
            ) from error
        return checked(answer, op, self.host)

    def close(self, reason: str = "connection closed") -> None:
        """End the channel; waiting requests fail with *reason*."""
        self._end(reason)

    def _end(self, reason: str) -> None:
        with self._lock:
            if self._ended is not None:
                return
            self._ended = reason
            waiting, self._waiting = self._waiting, {}
        with contextlib.suppress(OSError):
            self._pipe.close()
        for future in waiting.values():
            future.set_exception(Unreachable(f"{self.host}: {reason}", host=self.host, stage="request"))
        if self._on_end is not None:
            self._on_end(reason)

    def _read_preface(self) -> None:
        """Skip what a login shell printed; raises Unreachable when the preface does not come."""
        while True:
            start = self._buffer.find(protocol.PREFACE)
            if start >= 0 and (end := self._buffer.find(b"\n", start)) >= 0:
                number = bytes(self._buffer[start + len(protocol.PREFACE) : end])
                del self._buffer[: end + 1]
                self.preface = number.decode("ascii", "replace")
                return
            if len(self._buffer) > protocol.MAX_PREFACE_NOISE:
                raise Unreachable(f"{self.host}: rch-wkr did not introduce itself", host=self.host, stage="handshake")
            try:
                block = self._pipe.read(65536)
            except OSError as error:
                raise Unreachable(
                    f"{self.host}: no sign of rch-wkr in time ({error or type(error).__name__})",
                    host=self.host,
                    stage="handshake",
                ) from error
            if not block:
                noise = self._buffer.decode("utf-8", "replace").strip()[-300:]
                raise Unreachable(
                    f"{self.host}: rch-wkr ended before its first line" + (f": {noise}" if noise else ""),
                    host=self.host,
                    stage="handshake",
                )
            self._buffer += block

    def _read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            block = self._pipe.read(1 << 18)
            if not block:
                raise EOFError
            self._buffer += block
            self.traffic.received_bytes += len(block)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _read_loop(self) -> None:
        try:
            while True:
                length, number, flags = protocol.HEADER.unpack(self._read_exactly(protocol.HEADER.size))
                if length > protocol.MAX_MESSAGE:
                    raise protocol.ProtocolError(f"message of {length} bytes")
                payload = self._read_exactly(length)
                if flags & protocol.FLAG_ZSTD:
                    payload = unpack_zstd(payload)
                fields, body = protocol.unpack(payload)
                self.last_heard = time.monotonic()
                with self._lock:
                    future = self._waiting.pop(number, None)
                if future is not None and future.set_running_or_notify_cancel():
                    future.set_result(Answer(fields, body))
        except EOFError:
            self._end("connection lost")
        except OSError as error:
            self._end(f"connection lost ({error})")
        except (protocol.ProtocolError, zstandard.ZstdError) as error:
            self._end(f"the worker broke the protocol ({error})")


def unpack_zstd(payload: bytes) -> bytes:
    """Undo the compression of a message; a stream of another size than declared is a ProtocolError."""
    if len(payload) < protocol.UNPACKED.size:
        raise protocol.ProtocolError("compressed message without its size")
    (size,) = protocol.UNPACKED.unpack_from(payload)
    if size > protocol.MAX_MESSAGE:
        raise protocol.ProtocolError(f"compressed message of {size} bytes")
    with zstandard.ZstdDecompressor().stream_reader(payload[protocol.UNPACKED.size :]) as reader:
        data = b""
        while len(data) <= size:
            block = reader.read(size + 1 - len(data))
            if not block:
                break
            data += block
    if len(data) != size:
        raise protocol.ProtocolError("compressed message of another size than declared")
    return data


def checked(answer: Answer, op: str, host: str) -> Answer:
    """Return an answer that says ok, else raise the fault it tells of."""
    if answer.fields.get("ok") is True:
        return answer
    code = answer.fields.get("error")
    code = code if isinstance(code, str) and code in protocol.ERROR_CODES else "internal"
    message = " ".join(str(answer.fields.get("message", ""))[:500].split())
    raise fault_of(code, f"{host}: {op}: {message or code}", op, host)


def fault_of(code: str, text: str, op: str, host: str) -> Fault:
    """The exception for a worker's error code."""
    if code == "disk-full":
        return DiskFull(text, host=host, hint=f"free space on {host} (rch fleet gc)")
    return WorkerFault(text, host=host, operation=op, code=code)
