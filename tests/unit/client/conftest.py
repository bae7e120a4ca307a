"""A client in a process of its own, as a shim starts it, with a state directory of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # fake_rchd; importlib mode adds no directory

ROOT = Path(__file__).resolve().parents[3]
CLIENT = [sys.executable, "-I", "-S", str(ROOT / "rch" / "client.py")]
LIMIT_S = 60.0


class Client:
    """Starts clients that share one state directory and one project directory."""

    def __init__(self, state: str, project: str) -> None:
        self.state = state
        self.project = project
        self.started: list[subprocess.Popen[bytes]] = []
        self.environ = {"PATH": "/usr/bin:/bin", "HOME": project, "RCH_STATE_DIR": state, "LANG": "C.UTF-8"}

    def start(self, *words: str, env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[bytes]:
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        how.setdefault("cwd", self.project)
        process = subprocess.Popen([*CLIENT, *words], env={**self.environ, **(env or {})}, **how)
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def run(self, *words: str, env: Mapping[str, str] | None = None, data: bytes | None = None, **how: Any) -> Result:
        if data is not None:
            how["stdin"] = subprocess.PIPE
        process = self.start(*words, env=env, **how)
        try:
            out, err = process.communicate(data, LIMIT_S)
        except BaseException:
            process.kill()
            raise
        return Result(process.returncode, out or b"", (err or b"").decode())

    def on_tty(self, words: Sequence[str], env: Mapping[str, str] | None = None, *, rows: int = 40) -> Terminal:
        return Terminal([*CLIENT, *words], {**self.environ, "TERM": "xterm", **(env or {})}, self.project, rows)


class Result:
    def __init__(self, status: int, out: bytes, err: str) -> None:
        self.status, self.out, self.err = status, out, err


class Terminal:
    """A process whose 0, 1 and 2 are a terminal of its own, in its foreground."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: str, rows: int) -> None:
        import fcntl
        import struct
        import termios

        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("hhhh", rows, 100, 0, 0))
            os.chdir(cwd)
            os.execve(argv[0], argv, env)
        self.shown = b""
        self.status: int | None = None

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def read_until(self, wanted: bytes, limit_s: float = 20.0) -> bytes:
        until = time.monotonic() + limit_s
        while wanted not in self.shown:
            if not self._read(until - time.monotonic()):
                raise AssertionError(f"{wanted!r} never came, only {self.shown!r}")
        return self.shown

    def end(self, limit_s: float = 20.0) -> int:
        """The wait status; the rest of the output is in ``shown``."""
        until = time.monotonic() + limit_s
        while self.status is None:
            self._read(0.02)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.status = status
            elif time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"the client did not end; it showed {self.shown!r}")
        while self._read(0.05):
            pass
        return self.status

    def close(self) -> None:
        os.close(self.fd)
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _read(self, limit_s: float) -> bool:
        if not select.select([self.fd], [], [], max(0.0, limit_s))[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.shown += data
        return bool(data)


@pytest.fixture
def client() -> Iterator[Client]:
    with tempfile.TemporaryDirectory(prefix="rch-c-") as place:  # short: it holds a socket's path
        project = os.path.join(place, "project")
        os.mkdir(project)
        os.mkdir(os.path.join(place, "state"), 0o700)
        made = Client(os.path.join(place, "state"), project)
        yield made
        made.close()


@pytest.fixture
def no_start(client: Client) -> Client:
    """Clients that must not start a real rchd: the user's session is said to be in other namespaces."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    with open(os.path.join(client.state, "session.json"), "w") as file:
        json.dump({"boot": boot, "mnt": "mnt:[1]", "pid": "pid:[1]", "user": "user:[1]"}, file)
    return client
