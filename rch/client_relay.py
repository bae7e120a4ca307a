"""The exchange with rchd while a command is its business: bytes and signals both ways, until there is an ending.

One loop over non-blocking descriptors. The caller's own stdout and stderr stay as they are (their flags belong to
others too): they are written when they can take something, in pieces that cannot block.
"""

# ruff: noqa: SIM105 -- contextlib costs the client's start-up 2 ms

from __future__ import annotations

import os
import select
from time import monotonic

from rch import client_frames as wire
from rch.client_end import end_by, raw_line
from rch.client_link import Link, LinkGone
from rch.client_proof import Proofs
from rch.client_sink import OUT_MAX, Output, OutputLost
from rch.client_stdin import CHUNK, Stdin

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from rch.client_output import LineFilter
    from rch.client_request import Caller
else:
    import _signal as signal

PROMPT_S = 2.0
"""Seconds until the prompt is back after the first signal, whatever rchd does (lessons UX-06)."""

SILENT_S = 4 * wire.ALIVE_EVERY_S
"""Seconds without any frame after which rchd counts as hanging, once it has said ALIVE."""

_CANCELLING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_NAMES: dict[int, str] = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGHUP: "HUP", signal.SIGQUIT: "QUIT"}


class Ending:
    """How the exchange ended.

    how: "exit", "local" and "error" with the frame's object in ``fields``; "lost" when rchd is gone;
         "signal" when the caller's signal ended it, with ``status`` 128+n; "output" when stdout or stderr failed.
    """

    __slots__ = ("fields", "how", "status")

    def __init__(self, how: str, fields: dict[str, Any] | None = None, status: int = 0) -> None:
        self.how = how
        self.fields = fields or {}
        self.status = status


class Relay:
    """State of one command across all connections that serve it."""

    def __init__(
        self,
        caller: Caller,
        *,
        interactive: bool,
        quiet: bool,
        filters: Callable[[str], dict[int, LineFilter]] | None,
        on_hook: Callable[[dict[str, Any]], dict[str, object]],
    ) -> None:
        self.job = ""
        self.worker = ""
        self.offset = 0
        self.signalled = 0
        self.progress = False  # the last link brought more than signs of life
        self.stdin = Stdin(caller.fds["0"], interactive=interactive)
        self.output = Output(caller.fds, filters)
        self.proofs = Proofs()
        self._caller = caller
        self._raw_tty = interactive and caller.fds["0"] == "tty"
        self._quiet = quiet
        self._on_hook = on_hook
        self._link: Link | None = None
        self._signals: list[int] = []
        self._told: list[int] = []
        self._resized = False
        self._alive_seen = False
        self._ending: Ending | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._old_handlers: dict[int, Any] = {}
        self._old_tty: list[Any] | None = None

    # -- the caller's signals and terminal ------------------------------------------------------------------------

    def watch(self) -> None:
        """From now on signals are handled here; :meth:`unwatch` undoes it."""
        for number in _CANCELLING:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or a background job of a script: as it was
                self._old_handlers[number] = signal.signal(number, self._on_cancel)
        if "tty" in (self._caller.fds["1"], self._caller.fds["2"]):
            self._old_handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._on_resize)
        self._old_handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        if self._raw_tty:
            self._make_raw()

    def unwatch(self) -> None:
        """Handlers and terminal as they were."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.set_wakeup_fd(-1)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers.clear()
        self._restore_tty()

    def _on_cancel(self, number: int, _frame: object) -> None:
        if self.signalled:
            self._leave(128 + number)
            return
        self.signalled = number
        self._signals.append(number)
        signal.setitimer(signal.ITIMER_REAL, PROMPT_S)

    def _on_alarm(self, _number: int, _frame: object) -> None:
        self._leave(128 + self.signalled)

    def _on_resize(self, _number: int, _frame: object) -> None:
        self._resized = True

    def _leave(self, status: int) -> None:
        """The prompt back, now. The cancel goes on without us."""
        self.proofs.remove_all()
        if self._link is not None:
            self._tell_signals()
        self._restore_tty()
        if self._link is None and self.job and self._stay_behind():
            return
        end_by(status - 128)

    def _stay_behind(self) -> bool:
        """True in a child that has nothing of the caller's and goes on looking for an rchd that can end the job."""
        if os.fork():
            return False
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return True

    def _make_raw(self) -> None:
        import termios

        try:
            old = termios.tcgetattr(0)
            new = [*old[:6], list(old[6])]
            # Keys go to the job untouched, also Ctrl-C; what is shown is still prepared by this terminal.
            new[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
            new[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
            new[6][termios.VMIN], new[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSADRAIN, new)
        except termios.error:
            return
        self._old_tty = old

    def _restore_tty(self) -> None:
        if self._old_tty is not None:
            import termios

            old, self._old_tty = self._old_tty, None
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, old)
            except termios.error:
                pass

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self, link: Link) -> Ending:
        """Serve *link* until there is an ending; "lost" leaves everything in place for the next link."""
        self._link = link
        self._ending = None
        self._alive_seen = self.progress = False
        if self.job:
            self._told.clear()  # a new rchd has not heard of them
            self._signals = [self.signalled] if self.signalled else []
            self.stdin.expect_resume()
        try:
            return self._loop(link)
        except LinkGone:
            # A job that was to end has to hear so from the next rchd.
            gone = self.signalled and not self.job
            return Ending("signal", status=128 + self.signalled) if gone else Ending("lost")
        except OutputLost as lost:
            link.say(wire.SIGNAL, {"signal": "cancel"})
            link.drain(0.5)
            return Ending("output", {"fd": lost.fd, "errno": lost.number})
        finally:
            self.proofs.remove_all()
            self._link = None

    def _loop(self, link: Link) -> Ending:
        heard = monotonic()
        while True:
            self._tell_signals()
            if self.signalled and not self.job:  # nothing runs anywhere yet
                link.drain(0.2)
                return Ending("signal", status=128 + self.signalled)
            if self._ending is not None and not self.output.waiting:
                self.output.release(everything=True)
                if not self.output.waiting:
                    return self._ending
            if link.has_ready:
                heard = monotonic()
                self._take_all(link)
                continue
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            reading = self._ending is None and self.output.waiting < OUT_MAX
            if reading:
                poll.register(link.read_fd, select.POLLIN)
            if link.waiting and link.write_fd != link.read_fd:
                poll.register(link.write_fd, select.POLLOUT)
            elif link.waiting:
                poll.register(link.read_fd, (select.POLLIN if reading else 0) | select.POLLOUT)
            if self.stdin.wanted(link.waiting) and self._ending is None:
                poll.register(0, select.POLLIN)
            first = self.output.first
            if first is not None:
                poll.register(first, select.POLLOUT)
            limit = self._limit_s(heard) if reading else self.output.wait_s()
            ready = dict(poll.poll(None if limit is None else limit * 1000))
            if self._wake_read in ready:
                _drain_pipe(self._wake_read)
            if self._resized:
                self._resized = False
                self._send_size(link)
            if first in ready:
                self.output.write_some()
            if 0 in ready and self.stdin.wanted(link.waiting):
                self._forward_stdin(link)
            if link.waiting:
                link.flush()
            if reading and ready.get(link.read_fd, 0) & ~select.POLLOUT:
                heard = monotonic()
                self._take_all(link)
            elif reading and not ready and self._alive_seen and monotonic() - heard > SILENT_S:
                raise LinkGone("rchd has stopped talking")
            self.output.release()

    def _take_all(self, link: Link) -> None:
        for kind, payload in link.receive():
            if self._ending is None:
                try:
                    self._take(link, kind, payload)
                except wire.FrameError as error:
                    raise LinkGone(str(error)) from None
        self.output.write_some()

    def _take(self, link: Link, kind: int, payload: bytes) -> None:
        self.progress = self.progress or kind not in (wire.ALIVE, wire.ACCEPTED)
        if kind == wire.LOG:
            self._take_log(payload)
        elif kind == wire.ALIVE:
            self._alive_seen = True
        elif kind == wire.NOTE:
            if not self._quiet:
                self.output.put(2, raw_line(payload.decode("utf-8", "replace")))
        elif kind == wire.ACCEPTED:
            fields = wire.load_object(payload)
            self.job = str(fields.get("job", ""))
            self.worker = str(fields.get("worker", ""))
            self.output.comes_from(self.worker)
            if fields.get("stdin") is not False:
                self.stdin.open()
        elif kind == wire.STDIN_TAKEN:
            self._resume_stdin(link, payload)
        elif kind == wire.PROVE:
            fields = wire.load_object(payload)
            link.say(wire.PROOF, self.proofs.make(str(fields.get("root", "")), str(fields.get("nonce", ""))))
        elif kind == wire.PROVED:
            self.proofs.remove(str(wire.load_object(payload).get("root", "")))
        elif kind == wire.HOOK:
            self._run_hook(link, wire.load_object(payload))
        elif kind in (wire.LOCAL, wire.EXIT, wire.ERROR):
            how = {wire.LOCAL: "local", wire.EXIT: "exit", wire.ERROR: "error"}[kind]
            self._ending = Ending(how, wire.load_object(payload))

    # -- output ---------------------------------------------------------------------------------------------------

    def _take_log(self, payload: bytes) -> None:
        if len(payload) < wire.LOG_OFFSET.size:
            raise wire.FrameError("a LOG frame without its offset")
        (after,) = wire.LOG_OFFSET.unpack_from(payload)
        chunk = payload[wire.LOG_OFFSET.size :]
        begin = after - len(chunk)
        if not 0 <= begin <= self.offset:
            raise wire.FrameError(f"the log goes on at {begin}, {self.offset} was expected")
        # After a reconnect some frames may come again; frames are whole, so a boundary is always met.
        skip = self.offset - begin
        if skip >= len(chunk):
            return
        for stream, data in wire.log_frames(chunk[skip:]):
            if stream in (1, 2) and data:
                self.output.feed(stream, data)
        self.offset = after

    def _limit_s(self, heard: float) -> float | None:
        limits = [w for w in (self.output.wait_s(),) if w is not None]
        if self._alive_seen:
            limits.append(max(0.05, heard + SILENT_S + 0.05 - monotonic()))
        return min(limits) if limits else None

    # -- what goes up ---------------------------------------------------------------------------------------------

    def _tell_signals(self) -> None:
        link = self._link
        while self._signals and link is not None:
            number = self._signals.pop(0)
            self._told.append(number)
            link.say(wire.SIGNAL, {"signal": _NAMES[number]})

    def _send_size(self, link: Link) -> None:
        from rch.client_request import window_size

        rows, cols = window_size(self._caller.fds)
        link.say(wire.RESIZE, {"rows": rows, "cols": cols})

    def _forward_stdin(self, link: Link) -> None:
        data = self.stdin.read()
        if data is None:
            return
        if not data:
            link.send(wire.STDIN_END)
        elif self._raw_tty and b"\x03" in data and link.waiting:
            self._on_cancel(signal.SIGINT, None)  # rchd takes nothing any more: Ctrl-C is for us
        else:
            link.send(wire.STDIN, data)

    def _resume_stdin(self, link: Link, payload: bytes) -> None:
        if len(payload) != wire.LOG_OFFSET.size:
            raise wire.FrameError("STDIN_TAKEN is 8 bytes")
        again = self.stdin.taken(wire.LOG_OFFSET.unpack(payload)[0])
        for start in range(0, len(again), CHUNK):
            link.send(wire.STDIN, again[start : start + CHUNK])
        if self.stdin.end_again():
            link.send(wire.STDIN_END)

    # -- hooks ----------------------------------------------------------------------------------------------------

    def _run_hook(self, link: Link, fields: dict[str, Any]) -> None:
        from rch.client_local import Interrupted

        try:
            result = self._on_hook(fields)
        except Interrupted as stop:
            self._on_cancel(stop.number, None)
            result = {"status": 128 + stop.number, "problem": "interrupted"}
        link.say(wire.HOOK_DONE, {"name": str(fields.get("name", "")), **result})


def _drain_pipe(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass
