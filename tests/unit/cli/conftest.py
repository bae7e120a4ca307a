"""A fake rchd that speaks HTTP on a real Unix socket, and ways to run the command line against it."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[3]


def job(id_: str = "j-1", **changes: Any) -> dict[str, Any]:
    """A job object with the keys of the documentation."""
    return {
        "id": id_,
        "state": "done",
        "products": "verified",
        "worker": "css",
        "kind": "cargo.build",
        "command": ["cargo", "build"],
        "cwd": "/srv/app",
        "exit_status": 0,
        "signal": None,
        "reason": "",
        "slots": 4,
        "pushed": {"files": 1, "bytes": 4200},
        "returned": {"files": 7, "bytes": 11_800_000},
        "times": {"created": 1000.0, "started": 1001.0, "ended": 1046.0},
        **changes,
    }


def worker(name: str = "css", **changes: Any) -> dict[str, Any]:
    """A worker object with the keys of the documentation."""
    return {
        "name": name,
        "host": "203.0.113.20",
        "state": "healthy",
        "slots_total": 32,
        "slots_used": 8,
        "speed_score": 87.3,
        "tags": ["heavy"],
        "toolchains": {"rust": "rustc 1.95.0"},
        "last_heartbeat": "2026-01-01T00:00:00Z",
        "active_jobs": [],
        "reason": "",
        **changes,
    }


@dataclass
class FakeRchd:
    """Answers from tables that a test fills; keeps what it was asked."""

    socket: Path
    workers: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, list[bytes]] = field(default_factory=dict)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    status_more: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        route = path.partition("?")[0]
        self.asked.append((method, path, body))
        parts = route.removeprefix("/v1/").split("/")
        if parts == ["health"]:
            return 200, {"ok": True, "pid": os.getpid(), "version": "0"}
        if parts == ["status"]:
            return 200, {
                "pid": os.getpid(),
                "version": "0",
                "uptime_seconds": 9240,
                "active_compilations": 3,
                "total_compilations": 212,
                "workers": self.workers,
                "jobs": [one for one in self.jobs if one["state"] in ("queued", "running")],
                **self.status_more,
            }
        if parts == ["workers"]:
            return 200, self.workers
        if parts == ["jobs"]:
            return 200, self.jobs
        if parts in (["stop"], ["refresh"], ["unportable", "forget"]):
            return 200, {"stopping": True}
        if parts[0] == "workers" and parts[2] == "probe":
            return 200, self.probes[parts[1]]
        if parts[0] == "workers":
            found = next((one for one in self.workers if one["name"] == parts[1]), None)
            if found is None:
                return 409, {"error": "UsageError", "message": f"no worker {parts[1]}", "hint": "", "exit_status": 2}
            states = {"drain": "draining", "enable": "healthy", "disable": "disabled"}
            found["state"] = states[parts[2]]
            return 200, found
        found = next((one for one in self.jobs if one["id"] == parts[1]), None)
        if found is None:
            return 404, {"error": "NoSuchJob", "message": f"no job {parts[1]}", "hint": "rch jobs", "exit_status": 6}
        if parts[2:] == ["signal"]:
            return 200, {"job": found["id"], "state": found["state"], "signalled": found["state"] == "running"}
        if parts[2:] == ["fetch"]:
            found["products"] = "verified"
        return 200, found


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    fake: FakeRchd


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve("GET", None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._serve("POST", json.loads(self.rfile.read(length) or b"{}"))

    def _serve(self, method: str, body: Any) -> None:
        fake = self.server.fake  # type: ignore[attr-defined]  # _Server's
        route = self.path.partition("?")[0]
        if route in fake.broken:
            status, data = fake.broken[route]
            self._send(status, data)
            return
        parts = route.split("/")
        if parts[-1] == "log" and parts[-2] in fake.logs:
            fake.asked.append((method, self.path, body))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in [*fake.logs[parts[-2]], b""]:
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.flush()
            return
        status, answer = fake.answer(method, self.path, body)
        self._send(status, json.dumps(answer).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@dataclass
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """A home with a state directory; runs ``rch`` in this process or as a process of its own."""

    def __init__(self, top: Path) -> None:
        self.home = top / "home"
        self.cwd = top / "work"
        self.state = top / "s"
        self.inventory = top / "inventory"
        for path in (self.home, self.cwd, self.inventory):
            path.mkdir()
        (self.inventory / "hosts.yml").write_text("all:\n  children:\n    rch_workers:\n      hosts: {}\n")
        self.env = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "RCH_STATE_DIR": str(self.state),
            "RCH_INVENTORY": str(self.inventory),
            "LC_ALL": "C.UTF-8",
        }

    def process(self, *words: str, stdin: str = "", timeout: float = 60, **env: str) -> Ended:
        """Run as a real process."""
        code = f"import sys; sys.path.insert(0, {str(TOP)!r}); from rch.cli.main import main; sys.exit(main())"
        ended = subprocess.run(
            [sys.executable, "-I", "-c", code, *words],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            env={**self.env, **env},
            cwd=self.cwd,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def __call__(self, *words: str, stdin: str = "", **env: str) -> Ended:
        """Run in this process: faster, same code."""
        from rch.cli.main import main

        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with pytest.MonkeyPatch.context() as patch:
            for name in list(os.environ):
                if name not in ("PATH", "PYTHONPATH"):
                    patch.delenv(name)
            for name, value in {**self.env, **env}.items():
                patch.setenv(name, value)
            patch.chdir(self.cwd)
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = main(list(words))
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode("utf-8", "surrogateescape"))  # type: ignore[attr-defined]  # BytesIO
        return Ended(status, *texts)


@pytest.fixture
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("c"))


@pytest.fixture
def rchd(shell: Shell) -> Iterator[FakeRchd]:
    run = shell.state / "run"
    run.mkdir(parents=True, mode=0o700)
    shell.state.chmod(0o700)
    fake = FakeRchd(run / "rchd.sock")
    with _Server(str(fake.socket), _Handler) as server:
        server.fake = fake
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield fake
        server.shutdown()
        thread.join(10)


@pytest.fixture
def make_job() -> Any:
    return job


@pytest.fixture
def make_worker() -> Any:
    return worker


@pytest.fixture
def dead_socket(shell: Shell) -> Path:
    """A socket file that nobody listens on, as SIGKILL leaves it."""
    run = shell.state / "run"
    run.mkdir(parents=True)
    path = run / "rchd.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    return path
