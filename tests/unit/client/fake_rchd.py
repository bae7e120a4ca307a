"""A scripted rchd: real sockets and FIFOs, the real codec of rch.daemon.wire, answers written by the test."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from rch.daemon.spool import SpoolServer
from rch.daemon.wire import Frame, SocketTransport, Transport, log_chunk, read_request
from rch.worker.protocol import log_frame

Script = Callable[["Peer"], None]


class Peer:
    """One client, as the script sees it."""

    def __init__(self, transport: Transport, request: dict[str, Any]) -> None:
        self.transport = transport
        self.request = request
        self.offset = 0
        self.seen: list[tuple[Frame, Any]] = []

    def say(self, frame: Frame, **fields: Any) -> None:
        self.transport.send(frame, json.dumps(fields).encode("ascii"))

    def accept(self, job: str = "j-1", worker: str = "css", **more: Any) -> None:
        self.say(Frame.ACCEPTED, job=job, worker=worker, kind="make", **more)

    def log(self, *pieces: tuple[int, bytes]) -> None:
        chunk = b"".join(log_frame(stream, data, 1) for stream, data in pieces)
        self.offset += len(chunk)
        self.transport.send(Frame.LOG, log_chunk(self.offset, chunk))

    def exit(self, status: int = 0, **more: Any) -> None:
        self.say(
            Frame.EXIT,
            **{"status": status, "signal": None, "job": "j-1", "products": "verified", "message": "", **more},
        )

    def taken(self, total: int) -> None:
        self.transport.send(Frame.STDIN_TAKEN, total.to_bytes(8, "big"))

    def receive(self) -> tuple[Frame, Any] | None:
        got = self.transport.receive()
        if got is None:
            return None
        frame, payload = got
        value: Any = payload
        if frame not in (Frame.STDIN, Frame.STDIN_END, Frame.LOCAL_STARTED):
            value = json.loads(payload)
        self.seen.append((frame, value))
        return frame, value

    def until(self, wanted: Frame) -> Any:
        """The payload of the next such frame; what comes before is in ``seen``."""
        while (got := self.receive()) is not None:
            if got[0] is wanted:
                return got[1]
        raise AssertionError(f"the client left without {wanted.name}; it said {self.seen}")

    def stdin(self) -> bytes:
        """All of stdin, acknowledged as it comes."""
        parts: list[bytes] = []
        while (got := self.receive()) is not None and got[0] is not Frame.STDIN_END:
            if got[0] is Frame.STDIN:
                parts.append(got[1])
                self.taken(sum(map(len, parts)))
        return b"".join(parts)

    def rest(self) -> list[tuple[Frame, Any]]:
        """Everything that the client still says, until it leaves."""
        with contextlib.suppress(OSError):
            while self.receive() is not None:
                pass
        return self.seen


class FakeRchd:
    """Serves *scripts*, one per connection (the last one again and again), over the socket or the spool."""

    def __init__(self, state: str, *scripts: Script, over: str = "socket") -> None:
        self.state = state
        self.run = os.path.join(state, "run")
        self.scripts = list(scripts)
        self.over = over
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self.done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._spool: SpoolServer | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        os.makedirs(self.run, mode=0o700, exist_ok=True)
        if self.over == "spool":
            self._spool = SpoolServer(os.path.join(self.run, "spool"), self._serve)
            self._spool.start()
        else:
            path = os.path.join(self.run, "rchd.sock")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(path)
            self._listener.listen(16)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._spool is not None:
            self._spool.stop()
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            os.unlink(os.path.join(self.run, "rchd.sock"))
        for thread in self._threads:
            thread.join(10)
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.transport.close()
        if self.errors:
            raise self.errors[0]

    def wait(self, limit_s: float = 10.0) -> None:
        """Until every script that was begun has ended."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            if self._threads and not any(t.is_alive() for t in self._threads):
                return
            time.sleep(0.01)
        raise AssertionError("a script still runs")

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve_socket, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve_socket(self, connection: socket.socket) -> None:
        transport = SocketTransport(connection)
        try:
            request = read_request(transport)
        except (OSError, ValueError):
            transport.close()  # a client that only looked whether somebody listens
            return
        self._serve(transport, request)

    def _serve(self, transport: Transport, request: dict[str, Any]) -> None:
        peer = Peer(transport, request)
        with self._lock:
            self.peers.append(peer)
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        try:
            script(peer)
        except BaseException as error:  # shown by the test that owns this rchd
            self.errors.append(error)
        finally:
            transport.close()


def main() -> None:
    """A fake rchd in a process of its own, for tests that kill it: serves one command, then waits."""
    import sys

    state, text, repeat = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])

    def script(peer: Peer) -> None:
        peer.accept()
        for _ in range(repeat):
            peer.log((1, text))
        time.sleep(600)

    with FakeRchd(state, script):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        time.sleep(600)


if __name__ == "__main__":
    main()
