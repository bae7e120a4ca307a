"""A real ``rch-wkr serve`` as a child, for tests: requests by name, answers as they came, nothing simulated."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self

from rch.worker import protocol
from rch.worker.protocol import LOG_PAYLOAD_MAX, STREAM_STDERR, STREAM_STDOUT, Message

_SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class WorkerRefused(Exception):
    """The worker answered an error; ``code`` is one of protocol.ERROR_CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class WorkerProcess:
    """``python -m rch.worker serve --cache DIR`` and a channel to it. Closing stdin, or the kill, is its end.

    program: start this zipapp instead of the source tree. env: added to the environment (a clock offset, a PATH).
    arguments: further words of ``serve``.
    """

    def __init__(
        self,
        cache_dir: str,
        *,
        slots: int | None = None,
        program: str | None = None,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.cache_dir = os.fspath(cache_dir)
        command = [python, program] if program is not None else [python, "-m", "rch.worker"]
        command += ["serve", "--cache", self.cache_dir]
        if slots is not None:
            command += ["--slots", str(slots)]
        command += arguments
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _SOURCE, **(env or {})},
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin = self.process.stdin
        self._stdout = self.process.stdout
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Message]] = {}
        self._number = 0
        self._ended = False
        self.preface = self._stdout.readline()
        threading.Thread(target=self._read, name="worker-process", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", timeout_s: float = 60.0
    ) -> Message:
        """One round trip. Raises WorkerRefused, ConnectionError, TimeoutError."""
        message = self.submit(op, fields, body).result(timeout_s)
        if message.fields.get("ok") is not True:
            raise WorkerRefused(str(message.fields.get("error")), str(message.fields.get("message")))
        return message

    def submit(self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"") -> Future[Message]:
        """Send a request; the future gives the message that answers it, an error too."""
        payload = protocol.pack({**(fields or {}), "op": op}, body)
        return self.submit_payload(payload)

    def submit_payload(self, payload: bytes, flags: int = 0) -> Future[Message]:
        """Send a payload as it is, for tests of what must be refused."""
        future: Future[Message] = Future()
        with self._lock:
            if self._ended:
                raise ConnectionError("rch-wkr has ended")
            self._number += 1
            self._waiting[self._number] = future
            self._stdin.write(protocol.HEADER.pack(len(payload), self._number, flags) + payload)
            self._stdin.flush()
        return future

    def close(self) -> None:
        """End it as a lost connection would: by the end of its stdin."""
        if not self._stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._stdout.close()

    def kill(self) -> None:
        """End it without a chance to do anything about it."""
        self.process.kill()
        self.process.wait(10)

    # -- what most tests do -------------------------------------------------------------------------------------

    def run(self, job: str, argv: Sequence[str], *, slots: int = 1, wait_s: float = 20.0, **spec: Any) -> Result:
        """prepare, start, follow to the end. The roots of *spec* must exist or are made empty."""
        self.start(job, argv, slots=slots, wait_s=wait_s, **spec)
        return self.follow(job)

    def start(self, job: str, argv: Sequence[str], *, slots: int = 1, wait_s: float = 20.0, **spec: Any) -> None:
        """prepare and start, in that order and as two requests."""
        full = minimal_spec(argv, **spec)
        roots = [{"key": root["key"], "path": root["path"], "base": None} for root in full["roots"]]
        self.request("prepare", {"job": job, "slots": slots, "wait_s": wait_s, "roots": roots})
        body = full.pop("_body", b"")
        self.request("start", {"job": job, "spec": full}, body)

    def follow(self, job: str, offset: int = 0, *, limit_s: float = 120.0) -> Result:
        """Read the log to its end."""
        result = Result()
        result.next = offset
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            fields = {"job": job, "offset": result.next, "max": LOG_PAYLOAD_MAX, "wait_s": 5.0}
            answer = self.request("read", fields)
            result.frames += list(protocol.log_frames(answer.body))
            result.next = answer.fields["next"]
            if answer.fields["ended"]:
                result.rc = answer.fields["rc"]
                result.state = answer.fields["state"]
                return result
        raise TimeoutError(f"job {job} did not end within {limit_s} s")

    def _read(self) -> None:
        try:
            while True:
                head = self._stdout.read(protocol.HEADER.size)
                if len(head) < protocol.HEADER.size:
                    break
                length, number, flags = protocol.HEADER.unpack(head)
                payload = self._stdout.read(length)
                if flags & protocol.FLAG_ZSTD:
                    from rch.worker._channel import unpack_zstd

                    payload = unpack_zstd(payload)
                fields, body = protocol.unpack(payload)
                with self._lock:
                    future = self._waiting.pop(number)
                future.set_result(Message(number, fields, body))
        except (OSError, ValueError):
            pass  # closed under our hands: the end, as below
        with self._lock:
            self._ended = True
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(ConnectionError("rch-wkr has ended"))


class Result:
    """A job as its log and its ``rc`` tell it."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.rc: dict[str, Any] = {}
        self.state = ""
        self.next = 0

    @property
    def stdout(self) -> bytes:
        return b"".join(data for stream, _, data in self.frames if stream == STREAM_STDOUT)

    @property
    def stderr(self) -> bytes:
        return b"".join(data for stream, _, data in self.frames if stream == STREAM_STDERR)

    @property
    def ending(self) -> tuple[Any, Any, Any]:
        """(code, signal, reason)."""
        return self.rc.get("code"), self.rc.get("signal"), self.rc.get("reason")


def minimal_spec(argv: Sequence[str], **more: Any) -> dict[str, Any]:
    """A spec with nothing but what has to be there; *more* replaces or adds."""
    spec: dict[str, Any] = {
        "argv": list(argv),
        "cwd": "/tmp",
        "env": {"PATH": "/usr/bin:/bin", "HOME": "/home/caller"},
        "roots": [],
        "uid": 1234,
        "gid": 1235,
        "user": "caller",
        "group": "callers",
        "hostname": "workstation",
        "umask": 0o022,
        "home": "/home/caller",
        "network": "none",
        "sandbox": "required",
    }
    spec.update(more)
    return spec
