"""The ``local`` executor: the same rch-wkr, as a child on this machine, with a cache of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from rch.errors import ToolMissing
from rch.execute.channel import Channel
from rch.execute.executor import Hello, Moved
from rch.execute.handshake import greet
from rch.execute.over_channel import OverChannel
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


class LocalExecutor(OverChannel):
    """rch-wkr on this machine, below *directory* (absolute; made when missing)."""

    def __init__(self, worker: Worker, *, directory: AbsPath, client: str) -> None:
        super().__init__(worker, client)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._rsync = Rsync(worker.name)

    @property
    def cache_dir(self) -> str:
        return self._directory

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

    def send_files(self, source: AbsPath, paths: Sequence[str], target: str) -> Moved:
        return self._rsync.send(source, paths, target, self.bulk)

    def receive_files(self, source: str, paths: Sequence[str], target: AbsPath, *, largest: int) -> Moved:
        return self._rsync.receive(source, paths, target, self.bulk, largest=largest)

    def link_mbit_s(self) -> float | None:
        return None

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
