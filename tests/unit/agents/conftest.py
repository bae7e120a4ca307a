"""Hooks as processes, with a real rchd's HTTP side behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from rch.agents import programs
from rch.agents.programs import Setting
from rch.agents.trial import run
from rch.config.places import places
from rch.daemon.api import make_app
from rch.daemon.hooks import Hooks

LIMIT_S = 60.0


@cache
def compiled() -> str:
    """The native hook, made once; where it is kept is removed with the process."""
    place = tempfile.TemporaryDirectory(prefix="rch-cc-")
    _kept.append(place)
    setting = Setting(place.name, sys.executable)
    programs.install(setting, native=True)
    return setting.hook


_kept: list[tempfile.TemporaryDirectory[str]] = []


class Desk:
    """A state directory with the hook's programs, a HOME, and what listens on rchd's socket."""

    def __init__(self, place: str, kind: str) -> None:
        self.home = os.path.join(place, "home")
        self.project = os.path.join(place, "p")
        for made in (self.home, self.project):
            os.mkdir(made, 0o700)
        self.setting = Setting(os.path.join(place, "state"), sys.executable, named=True)
        self.kind = programs.install(self.setting, native=False)
        if kind == "native":
            shutil.copy(compiled(), self.setting.hook)
            self.kind = programs.kind(self.setting)
            assert self.kind == "native"
        self.socket = os.path.join(self.setting.state, "run", "rchd.sock")
        os.makedirs(os.path.dirname(self.socket), mode=0o700)
        self.env = {"HOME": self.home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        if kind == "native":  # its program is every desk's, so it cannot have this one's state in it
            self.env["RCH_STATE_DIR"] = self.setting.state
        self.asked: list[bytes] = []

    def hook(self, harness: str, data: bytes, env: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Run the installed command as the harness would; status and stdout."""
        return run(harness, self.setting, {**self.env, **(env or {})}, self.project, data)

    def write(self, name: str, text: str | dict[str, Any]) -> str:
        """A file below HOME."""
        path = os.path.join(self.home, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    @contextlib.contextmanager
    def rchd(self) -> Iterator[None]:
        """The API of rchd, with the real Hooks behind it."""
        hooks = Hooks(places({**self.env, "RCH_STATE_DIR": self.setting.state}))
        answer = hooks.answer

        def noted(agent: str, data: bytes, told: str, pid: int) -> bytes:
            self.asked.append(data)
            return answer(agent, data, told, pid)

        hooks.answer = noted  # type: ignore[method-assign]
        app = make_app(SimpleNamespace(hooks=hooks))  # type: ignore[arg-type]
        loop = asyncio.new_event_loop()
        runner = web.AppRunner(app, access_log=None, max_field_size=128 * 1024)

        async def begin() -> None:
            await runner.setup()
            await web.UnixSite(runner, self.socket).start()

        loop.run_until_complete(begin())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)
            loop.close()

    @contextlib.contextmanager
    def scripted(self, script: Callable[[socket.socket], None]) -> Iterator[None]:
        """Something else that listens there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.socket)
        listener.listen(8)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    script(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            os.unlink(self.socket)


@pytest.fixture(params=["native", "sh"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    with tempfile.TemporaryDirectory(prefix="rch-h-") as place:  # short: it holds a socket's path
        yield Desk(place, request.param)


@pytest.fixture
def native_desk() -> Iterator[Desk]:
    with tempfile.TemporaryDirectory(prefix="rch-h-") as place:
        yield Desk(place, "native")


@pytest.fixture
def no_start(desk: Desk) -> Iterator[Desk]:
    """Hooks that must not start a real rchd: the user's session is said to be in other namespaces."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    session = {"boot": boot, "mnt": "mnt:[1]", "pid": "pid:[1]", "user": "user:[1]"}
    Path(desk.setting.state, "session.json").write_text(json.dumps(session))
    yield desk
    # Whoever would have started rchd does so behind our back; the session file must outlive it.
    until = time.monotonic() + LIMIT_S
    while any(desk.setting.state.encode() in _environ(pid) for pid in os.listdir("/proc") if pid.isdecimal()):
        assert time.monotonic() < until
        time.sleep(0.05)


def _environ(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def shell(*words: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, capture_output=True, timeout=LIMIT_S, check=False, **how)
