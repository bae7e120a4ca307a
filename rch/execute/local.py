"""The ``local`` executor: the same rch-wkr, as a child on this machine, with a cache of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from rch.errors import ToolMissing, Unreachable
from rch.execute.channel import Answer, Channel
from rch.execute.executor import BulkSettings, Hello, Moved
from rch.execute.handshake import Clock, greet
from rch.execute.rsync import Rsync
from rch.fleet.model import Worker
from rch.paths import AbsPath
from rch.worker.build import build


class ProcessPipe:
    """A child's stdin and stdout as the two byte streams of a control channel."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def read(self, size: int) -> bytes:
        stdout = self._process.stdout
        return os.read(stdout.fileno(), size) if stdout is not None and not stdout.closed else b""

    def write(self, data: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            raise BrokenPipeError
        stdin.write(data)
        stdin.flush()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


class LocalExecutor:
    """rch-wkr on this machine, below *directory* (absolute; made when missing)."""

    def __init__(self, worker: Worker, *, directory: AbsPath, client: str) -> None:
        self._worker = worker
        self.bulk = BulkSettings()
        self._directory = directory
        self._client = client
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._hello: Hello | None = None
        self._clock = Clock()
        self._rsync = Rsync(worker.name)

    @property
    def worker(self) -> Worker:
        return self._worker

    @property
    def cache_dir(self) -> str:
        return self._directory

    @property
    def channel(self) -> Channel | None:
        """The control channel, for counters and pings; None before connect and after its end."""
        channel = self._channel
        return channel if channel is not None and channel.ended is None else None

    @property
    def connected(self) -> bool:
        return self.channel is not None and self._hello is not None

    def connect(self) -> Hello:
        with self._lock:
            if self.channel is not None and self._hello is not None:
                return self._hello
            self._drop()
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            program = os.path.join(self._directory, "rch-wkr")
            temporary = f"{program}.{os.getpid()}"
            build(temporary)
            os.replace(temporary, program)
            command = [sys.executable, "-I", "-S", program, "serve", "--cache", self._directory]
            if self._worker.declared.slots is not None:
                command += ["--slots", str(self._worker.declared.slots)]
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
            except OSError as error:
                raise ToolMissing(
                    f"{self._worker.name}: rch-wkr does not start ({error})", host=self._worker.name, tool="rch-wkr"
                ) from error
            self._channel = Channel(ProcessPipe(self._process), self._worker.name)
            self._hello = greet(self._channel, self._client, self._clock)
            return self._hello

    def request(
        self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", *, timeout_s: float = 30.0
    ) -> Answer:
        channel = self.channel
        if channel is None:
            raise Unreachable(f"{self._worker.name}: not connected", host=self._worker.name, stage="request")
        if op == "ping":
            return self._clock.ping(channel, timeout_s)
        return channel.request(op, fields, body, timeout_s=timeout_s)

    def send_files(self, source: AbsPath, paths: Sequence[str], target: str) -> Moved:
        return self._rsync.send(source, paths, target, self.bulk)

    def receive_files(self, source: str, paths: Sequence[str], target: AbsPath, *, largest: int) -> Moved:
        return self._rsync.receive(source, paths, target, self.bulk, largest=largest)

    def link_mbit_s(self) -> float | None:
        return None

    def clock_offset_ns(self) -> int:
        return self._clock.offset_ns

    def close(self) -> None:
        with self._lock:
            self._drop()
        self._rsync.end_master()

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        process, self._process = self._process, None
        if channel is not None:
            channel.close()
        if process is not None:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
            if process.stdout is not None:
                process.stdout.close()
