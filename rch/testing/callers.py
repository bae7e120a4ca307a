"""Callers that tests start, watch and kill, and what they leave on the workers of a lab."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rch.testing.fixtures import RchState
from rch.testing.lab import EmbeddedWorker
from rch.testing.lab_containers import ContainerWorker


class Caller:
    """``rch exec`` (or any words) under way: its output is collected while it runs.

    Words and environment are those of *state*. It is its own process group, as a command of an interactive shell is.
    """

    def __init__(self, state: RchState, *words: str, cwd: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**state.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._seen: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        self._changed = threading.Condition()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._threads = [
            threading.Thread(target=self._collect, args=("out", self.process.stdout.fileno()), daemon=True),
            threading.Thread(target=self._collect, args=("err", self.process.stderr.fileno()), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, which: str, fd: int) -> None:
        while True:
            with suppress(OSError):
                data = os.read(fd, 65536)
                if data:
                    with self._changed:
                        self._seen[which] += data
                        self._changed.notify_all()
                    continue
            return

    @property
    def out(self) -> bytes:
        """stdout so far."""
        return bytes(self._seen["out"])

    @property
    def err(self) -> bytes:
        """stderr so far."""
        return bytes(self._seen["err"])

    @property
    def lines(self) -> list[str]:
        """What rch itself said on stderr, so far."""
        return [line for line in self.err.decode("utf-8", "replace").splitlines() if "[rch]" in line or "rch: " in line]

    def wait_for(self, text: bytes, *, timeout_s: float = 60) -> None:
        """Wait until stdout holds *text*."""
        with self._changed:
            if not self._changed.wait_for(lambda: text in self._seen["out"], timeout_s):
                raise AssertionError(
                    f"no {text!r} within {timeout_s} s: out {self.out[-500:]!r}, err {self.err[-500:]!r}"
                )

    def signal(self, number: int) -> None:
        """Send a signal to the client alone; SIGINT to its group, as a terminal does."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self, timeout_s: float = 60) -> int:
        """Wait for the end; the status as subprocess gives it."""
        status = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(10)
        return status

    def close(self) -> None:
        """Kill it if it is still there."""
        with suppress(OSError):
            self.process.kill()
        self.process.wait(10)
        for thread in self._threads:
            thread.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def caller(state: RchState, *words: str, cwd: str, env: dict[str, str] | None = None) -> Iterator[Caller]:
    """A :class:`Caller` that is gone afterwards."""
    made = Caller(state, *words, cwd=cwd, env=env)
    try:
        yield made
    finally:
        made.close()


def token() -> str:
    """Seconds for ``sleep``, as no other process of this machine has them: a mark that survives every sandbox."""
    return f"{100_000 + secrets.randbelow(800_000)}.{secrets.randbelow(10**9):09d}"


def alive(mark: str) -> list[int]:
    """Processes of this machine, containers included, with *mark* as one word of their command line."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if mark.encode() in file.read().split(b"\0"):
                found.append(int(name))
    return found


def until(true: Callable[[], object], what: str, *, timeout_s: float = 10) -> None:
    """Wait until *true*; AssertionError naming *what* after *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)


def cache_dir(worker: EmbeddedWorker | ContainerWorker) -> str:
    """The worker's cache directory, on the worker."""
    return worker.cache_dir if isinstance(worker, EmbeddedWorker) else "/home/rch/.rch"


def slots_used(worker: EmbeddedWorker | ContainerWorker) -> list[int]:
    """Slots that are held there now, as rch-wkr on the worker sees them."""
    cache = cache_dir(worker)
    done = worker.run("python3", "-I", f"{cache}/bin/rch-wkr", "slots", "--cache", cache)
    used = json.loads(done.stdout)["used"]
    assert isinstance(used, list)
    return used


def jobs(state: RchState) -> list[dict[str, Any]]:
    """``rch jobs --json``."""
    done = state.run("rch", "jobs", "--json")
    found = json.loads(done.stdout)
    assert isinstance(found, list), done
    return found


def rchd_pid(state: RchState) -> int:
    """Pid of the workstation's rchd, 0 if none runs."""
    done = state.run("rch", "daemon", "status", "--json")
    with suppress(ValueError):
        found = json.loads(done.stdout)
        return int(found.get("pid") or 0)
    return 0
