"""The hook as a process: stdin to rchd, rchd's answer to stdout, silence whenever anything is amiss.

Started as ``python -I -S /abs/rch/agents/hook.py AGENT`` by the installed hook where no compiler made the faster
``hook.c``, and by ``rch hook AGENT``. Standard library only, a fixed list of it (lessons IC-06). Always ends with 0.
"""

from __future__ import annotations

import os
import select
import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
else:
    import _socket as socket  # the public module costs 4 ms

if __name__ == "__main__":
    # -I leaves this package out of the path. Behind everything else, so that nothing beside it is found first.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))

from rch.client_paths import BadPlace, run_dir, socket_path, state_dir  # noqa: E402 - once it can be found

ANSWER_S = 0.8
"""Seconds within which rchd has to answer; an agent waits for us."""

INPUT_MAX = 8 << 20
"""Bytes of a question; a longer one is read and left alone."""

VARIABLES = (
    "HOME", "PATH", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "RCH_ON_WORKER", "RCH_BYPASS",
    "RCH_ENABLED", "RCH_LOCAL_ONLY", "RCH_STATE_DIR", "RCH_CONFIG", "RCH_INVENTORY", "RCH_REQUIRE_REMOTE", "RCH_MODE",
    "RCH_DRY_RUN", "CLAUDE_CONFIG_DIR", "CLAUDE_PROJECT_DIR", "CLAUDECODE", "BASH_MAX_TIMEOUT_MS",
    "BASH_DEFAULT_TIMEOUT_MS", "CARGO_HOME", "CODEX_HOME", "COPILOT_HOME", "COPILOT_CLI", "COPILOT_ALLOW_ALL",
    "CURSOR_VERSION", "GEMINI_CLI_HOME", "OPENCODE_EXPERIMENTAL_BASH_DEFAULT_TIMEOUT_MS",
)  # fmt: skip
"""What rchd is told of the agent's environment: the switches, and where the user's rules lie."""

_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:-")


def main(words: list[str] | None = None) -> int:
    """Answer the agent ``words[0]``; always 0."""
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["--start"]:
        _start()
        return 0
    agent = words[0] if words else ""
    data = b""
    try:
        given = _read_all(0)
        if 0 < len(given) <= INPUT_MAX and not switched_off(os.environ):
            data = ask(agent, given, os.environ)
    except Exception:  # noqa: BLE001 -- whatever it is, it must not reach the agent
        data = b""
    if not data and agent == "cursor":
        data = b"{}\n"
    _write_all(1, data)
    return 0


def switched_off(environ: Mapping[str, str]) -> bool:
    """Inside a job, under RCH_BYPASS or RCH_ENABLED=0 nobody is asked."""
    return (
        environ.get("RCH_ON_WORKER", "").lower() not in ("", *_OFF)
        or environ.get("RCH_BYPASS", "").lower() in _ON
        or environ.get("RCH_ENABLED", "").lower() in _OFF
    )


def ask(agent: str, given: bytes, environ: Mapping[str, str]) -> bytes:
    """rchd's answer, b"" for none. Starts an rchd that is not there, for the next time."""
    try:
        place = socket_path(run_dir(environ))
    except BadPlace:
        return b""
    until = monotonic() + ANSWER_S
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(place)
                break
            except BlockingIOError:  # rchd's queue of connections is full
                if monotonic() > until:
                    return b""
                select.select([], [], [], 0.01)
            except (FileNotFoundError, ConnectionRefusedError):
                _start_detached()
                return b""
        head = (
            f"POST /hook/{agent or 'any'} HTTP/1.1\r\nHost: rchd\r\nConnection: close\r\n"
            f"X-Rch-Env: {encoded(environ)}\r\nContent-Type: application/json\r\nContent-Length: {len(given)}\r\n\r\n"
        )
        return _exchange(sock.fileno(), head.encode("ascii") + given, until)
    except OSError:
        return b""
    finally:
        sock.close()


def encoded(environ: Mapping[str, str]) -> str:
    """The set ones of VARIABLES as ``NAME=value&…`` with percent signs."""
    parts = []
    for name in VARIABLES:
        value = environ.get(name)
        if value:
            told = "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in os.fsencode(value)[:4096])
            parts.append(f"{name}={told}")
    return "&".join(parts)


def _exchange(fd: int, request: bytes, until: float) -> bytes:
    view = memoryview(request)
    while view:
        if not _wait(fd, select.POLLOUT, until):
            return b""
        view = view[os.write(fd, view) :]
    answer = b""
    while _wait(fd, select.POLLIN, until):
        part = os.read(fd, 1 << 16)
        if not part:
            break
        answer += part
    else:
        return b""
    head, _, body = answer.partition(b"\r\n\r\n")
    whole = f"content-length: {len(body)}\r\n".encode("ascii") in head.lower() + b"\r\n"
    return body if head.startswith(b"HTTP/1.1 200 ") and body.startswith(b"{") and whole else b""


def _wait(fd: int, event: int, until: float) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(0.0, until - monotonic()) * 1000))


def _start_detached() -> None:
    """Start rchd from a process that holds nothing of the agent's: it waits for our descriptors to close."""
    if os.fork():
        return
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, 256)
        if os.fork() == 0:
            _start()
    finally:
        os._exit(0)


def _start() -> None:
    """Start rchd if this process may (a hook runs outside of the agent's sandbox; a job starts none)."""
    from rch import client_start

    if os.environ.get("RCH_ON_WORKER"):
        return
    state, run = state_dir(os.environ), run_dir(os.environ)
    if client_start.confinement(state):
        return
    client_start.start_daemon(state, run, os.environ, lambda: _listens(socket_path(run)))


def _listens(place: str) -> bool:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(place)
        return True
    except OSError:
        return False
    finally:
        sock.close()


def _read_all(fd: int) -> bytes:
    parts = []
    size = 0
    while part := os.read(fd, 1 << 16):
        size += len(part)
        if size <= INPUT_MAX + 1:
            parts.append(part)
    return b"".join(parts) if size <= INPUT_MAX else b""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:  # the agent has gone
        pass


if __name__ == "__main__":
    sys.exit(main())
