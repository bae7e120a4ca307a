"""One caller, as rchd sees it: what may be said to it, and what it says meanwhile.

A reader thread takes the caller's frames; the pipeline's thread writes. A caller that goes away without a word
(SIGKILL) is *gone*: its job goes on, and nothing is placed. One that sent a signal has *cancelled*.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rch.daemon.wire import Frame, Transport
from rch.errors import NotOffloadable
from rch.paths import AbsPath
from rch.project.model import Project

PROOF_S = 5.0
"""A caller answers a request for proof at once; one that does not is not believed."""

HOOK_S = 75.0
"""The caller ends a hook after 60 s; what it needs to kill its tree comes on top."""

STDIN_BUFFER = 1 << 20
"""Bytes of the caller's stdin held here at most; then the caller is not read, which stops its sender."""


class Session:
    """The caller of one command.

    on_signal: called with the signal's name from the reader thread; set by whoever runs the job.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._send_lock = threading.Lock()
        self._state = threading.Condition()
        self._stdin: deque[bytes] = deque()
        self._stdin_bytes = 0
        self._stdin_ended = False
        self._proofs: dict[str, dict[str, Any]] = {}
        self._hooks: dict[str, dict[str, Any]] = {}
        self._local_done: dict[str, Any] | None = None
        self.proved: dict[str, tuple[int, int]] = {}
        self.gone = False
        self.cancelled = ""
        self.size: tuple[int, int] | None = None
        self.on_signal: Callable[[str], None] | None = None
        self.on_resize: Callable[[int, int], None] | None = None
        threading.Thread(target=self._read_loop, name="session", daemon=True).start()

    # -- to the caller ------------------------------------------------------------------------------------------

    def send(self, frame: Frame, payload: bytes = b"") -> None:
        """One frame; a caller that is gone is noticed, not raised."""
        try:
            with self._send_lock:
                self._transport.send(frame, payload)
        except OSError:
            self._lost()

    def say(self, frame: Frame, **fields: Any) -> None:
        """One frame with a JSON object."""
        self.send(frame, json.dumps(fields).encode("ascii"))

    def log(self, offset_after: int, frames: bytes) -> None:
        """A chunk of the job's log; *offset_after* is where the next one begins."""
        self.send(Frame.LOG, offset_after.to_bytes(8, "big") + frames)

    def note(self, line: str) -> None:
        """One line for the caller's stderr."""
        self.send(Frame.NOTE, line.encode("utf-8", "replace"))

    # -- from the caller ----------------------------------------------------------------------------------------

    def prove(self, root: AbsPath) -> None:
        """Have the caller show that it can write *root*, and that it means the directory that we see (SE-08).

        Raises NotOffloadable ``path-not-proved``.
        """
        nonce = f".rch-proof-{secrets.token_hex(12)}"
        self.say(Frame.PROVE, root=root, nonce=nonce)
        with self._state:
            self._state.wait_for(lambda: root in self._proofs or self.gone, PROOF_S)
            proof = self._proofs.pop(root, None)
        why = ""
        if proof is None:
            why = "the caller did not answer"
        elif "error" in proof:
            why = f"the caller cannot write there ({str(proof['error'])[:100]})"
        else:
            try:
                # One directory for both looks: a path could lead to another one in between.
                fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    here = os.fstat(fd)
                    written = os.stat(nonce, dir_fd=fd, follow_symlinks=False)
                finally:
                    os.close(fd)
            except OSError as error:
                why = f"what the caller wrote is not to be seen from here ({error.strerror})"
            else:
                if (here.st_dev, here.st_ino) != (proof.get("dev"), proof.get("ino")):
                    why = "the caller sees another directory under that path"
                elif written.st_uid != os.getuid():
                    why = "another user wrote the proof"
        self.say(Frame.PROVED, root=root)
        if why:
            raise NotOffloadable(f"{root}: {why}", code="path-not-proved")
        self.proved[root] = (here.st_dev, here.st_ino)

    def require_proved(self, project: Project) -> None:
        """What was read for *project* is what this caller has shown to be its own, and nothing else.

        The caller decides how long a proof takes, and may change meanwhile what a path, a link or a Makefile leads to.
        Raises NotOffloadable ``path-not-proved``.
        """
        for root in project.roots:
            shown = self.proved.get(root.path)
            if shown is None or shown != project.manifests[root.key].identity:
                raise NotOffloadable(
                    f"{root.path} became part of the command, or another directory, while it was looked at",
                    code="path-not-proved",
                    hint="run the command again",
                )

    def run_hook(self, name: str, command: str, cwd: str) -> str:
        """Have the caller run a configured command as its own child (coverage A-20); what went wrong, or ""."""
        self.say(Frame.HOOK, name=name, command=command, cwd=cwd)
        with self._state:
            self._state.wait_for(lambda: name in self._hooks or self.gone or bool(self.cancelled), HOOK_S)
            done = self._hooks.pop(name, None)
        if done is None:
            return "the caller did not answer"
        if done.get("problem"):
            return str(done["problem"])[:200]
        return "" if done.get("status") == 0 else f"exit status {done.get('status')}"

    def stdin_taken(self, total: int) -> None:
        """Tell the caller how much of its stdin the worker has by now."""
        self.send(Frame.STDIN_TAKEN, total.to_bytes(8, "big"))

    def take_stdin(self, limit: int, wait_s: float) -> tuple[bytes, bool]:
        """Some of the caller's stdin and whether it has ended; b"" when none came within *wait_s*."""
        with self._state:
            self._state.wait_for(lambda: self._stdin or self._stdin_ended or self.gone, wait_s)
            parts: list[bytes] = []
            size = 0
            while self._stdin and size < limit:
                part = self._stdin.popleft()
                if size + len(part) > limit:
                    self._stdin.appendleft(part[limit - size :])
                    part = part[: limit - size]
                parts.append(part)
                size += len(part)
            self._stdin_bytes -= size
            self._state.notify_all()
            return b"".join(parts), self._stdin_ended and not self._stdin

    def wait_local(self) -> Mapping[str, Any] | None:
        """How the caller's own run ended; None when it went away first."""
        with self._state:
            self._state.wait_for(lambda: self._local_done is not None or self.gone)
            return self._local_done

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self._transport.close()

    # -- insides ------------------------------------------------------------------------------------------------

    def _read_loop(self) -> None:
        try:
            while True:
                received = self._transport.receive()
                if received is None:
                    break
                self._take(*received)
        except (OSError, ValueError):
            pass  # a broken connection and a broken frame end the same way: the caller is gone
        self._lost()

    def _take(self, frame: Frame, payload: bytes) -> None:
        if frame is Frame.STDIN:
            with self._state:
                self._state.wait_for(lambda: self._stdin_bytes < STDIN_BUFFER or self.gone)
                self._stdin.append(payload)
                self._stdin_bytes += len(payload)
                self._state.notify_all()
            return
        fields = json.loads(payload) if payload else {}
        if not isinstance(fields, dict):
            raise ValueError("a frame's JSON is an object")  # noqa: TRY004  a broken frame, whatever its type
        with self._state:
            if frame is Frame.STDIN_END:
                self._stdin_ended = True
            elif frame is Frame.PROOF:
                self._proofs[str(fields.get("root", ""))] = fields
            elif frame is Frame.HOOK_DONE:
                self._hooks[str(fields.get("name", ""))] = fields
            elif frame is Frame.LOCAL_DONE:
                self._local_done = fields
            elif frame is Frame.SIGNAL:
                self.cancelled = str(fields.get("signal", "TERM"))
            elif frame is Frame.RESIZE:
                self.size = (int(fields.get("rows", 24)), int(fields.get("cols", 80)))
            self._state.notify_all()
        if frame is Frame.SIGNAL and self.on_signal is not None:
            self.on_signal(self.cancelled)
        if frame is Frame.RESIZE and self.on_resize is not None and self.size is not None:
            self.on_resize(*self.size)

    def _lost(self) -> None:
        with self._state:
            self.gone = True
            self._state.notify_all()
