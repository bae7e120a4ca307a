"""The exchange with rchd while a command is its business: bytes and signals both ways, until there is an ending.

One loop over non-blocking descriptors. The caller's own stdout and stderr stay as they are (their flags belong to
others too): they are written when they can take something, in pieces that cannot block.
"""

# ruff: noqa: SIM105 -- contextlib costs the client's start-up 2 ms

from __future__ import annotations

import errno
import os
import select
import sys
from time import monotonic

from rch import client_frames as wire
from rch.client_link import Link, LinkGone
from rch.client_paths import Traceless

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

OUT_MAX = 256 * 1024
"""Bytes of output that may wait for a slow reader; then nothing more is taken from rchd."""

REPLAY_MAX = 4 << 20
"""Bytes of a piped stdin that are kept for a repetition here (lessons HB-08)."""

_CHUNK = 64 * 1024
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


class OutputLost(Exception):
    """stdout or stderr cannot be written any more; ``number`` is the errno."""

    def __init__(self, fd: int, number: int) -> None:
        super().__init__(fd, number)
        self.fd = fd
        self.number = number


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
        self.roots: list[str] = []
        self.signalled = 0
        self.progress = False  # the last link brought more than signs of life
        self.stdin = Stdin(caller.fds["0"], interactive=interactive)
        self._caller = caller
        self._raw_tty = interactive and caller.fds["0"] == "tty"
        self._quiet = quiet
        self._make_filters = filters
        self._filters: dict[int, LineFilter] = {}
        self._on_hook = on_hook
        self._link: Link | None = None
        self._out: list[tuple[int, memoryview]] = []
        self._out_bytes = 0
        self._proofs: dict[str, tuple[int, str, Traceless]] = {}
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
        self._remove_proofs()
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
            self._remove_proofs()
            self._link = None

    def _loop(self, link: Link) -> Ending:
        heard = monotonic()
        while True:
            self._tell_signals()
            if self.signalled and not self.job:  # nothing runs anywhere yet
                link.drain(0.2)
                return Ending("signal", status=128 + self.signalled)
            if self._ending is not None and not self._out:
                self._flush_filters(everything=True)
                if not self._out:
                    return self._ending
            if link.has_ready:
                heard = monotonic()
                self._take_all(link)
                continue
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            reading = self._ending is None and self._out_bytes < OUT_MAX
            if reading:
                poll.register(link.read_fd, select.POLLIN)
            if link.waiting and link.write_fd != link.read_fd:
                poll.register(link.write_fd, select.POLLOUT)
            elif link.waiting:
                poll.register(link.read_fd, (select.POLLIN if reading else 0) | select.POLLOUT)
            if self.stdin.wanted(link.waiting) and self._ending is None:
                poll.register(0, select.POLLIN)
            if self._out:
                poll.register(self._out[0][0], select.POLLOUT)
            limit = self._limit_s(heard) if reading else self._filter_wait_s()
            ready = dict(poll.poll(None if limit is None else limit * 1000))
            if self._wake_read in ready:
                _drain_pipe(self._wake_read)
            if self._resized:
                self._resized = False
                self._send_size(link)
            if self._out and self._out[0][0] in ready:
                self._write_some()
            if 0 in ready and self.stdin.wanted(link.waiting):
                self._forward_stdin(link)
            if link.waiting:
                link.flush()
            if reading and ready.get(link.read_fd, 0) & ~select.POLLOUT:
                heard = monotonic()
                self._take_all(link)
            elif reading and not ready and self._alive_seen and monotonic() - heard > SILENT_S:
                raise LinkGone("rchd has stopped talking")
            self._flush_filters(everything=False)

    def _take_all(self, link: Link) -> None:
        for kind, payload in link.receive():
            if self._ending is None:
                try:
                    self._take(link, kind, payload)
                except wire.FrameError as error:
                    raise LinkGone(str(error)) from None
        self._write_some()

    def _take(self, link: Link, kind: int, payload: bytes) -> None:
        self.progress = self.progress or kind not in (wire.ALIVE, wire.ACCEPTED)
        if kind == wire.LOG:
            self._take_log(payload)
        elif kind == wire.ALIVE:
            self._alive_seen = True
        elif kind == wire.NOTE:
            if not self._quiet:
                self._queue(2, raw_line(payload.decode("utf-8", "replace")))
        elif kind == wire.ACCEPTED:
            fields = wire.load_object(payload)
            self.job = str(fields.get("job", ""))
            self.worker = str(fields.get("worker", ""))
            if self._make_filters is not None and not self._filters:
                self._filters = self._make_filters(self.worker)
            if fields.get("stdin") is not False:
                self.stdin.open()
        elif kind == wire.STDIN_TAKEN:
            self._resume_stdin(link, payload)
        elif kind == wire.PROVE:
            self._prove(link, wire.load_object(payload))
        elif kind == wire.PROVED:
            self._remove_proof(str(wire.load_object(payload).get("root", "")))
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
                line_filter = self._filters.get(stream)
                self._queue(stream, line_filter.feed(data) if line_filter else data)
        self.offset = after

    def _queue(self, fd: int, data: bytes) -> None:
        if data and self._caller.fds[str(fd)] not in ("closed", "null"):
            self._out.append((fd, memoryview(data)))
            self._out_bytes += len(data)

    def _write_some(self) -> None:
        """Write what can be written without waiting; raises OutputLost."""
        while self._out:
            fd, view = self._out[0]
            size = len(view)
            if self._caller.fds[str(fd)] != "file":
                poll = select.poll()
                poll.register(fd, select.POLLOUT)
                if not poll.poll(0):
                    return
                size = select.PIPE_BUF  # that much room is there when a pipe says it can be written
            try:
                sent = os.write(fd, view[:size])
            except BlockingIOError:
                return
            except OSError as error:
                self._out.clear()
                raise OutputLost(fd, error.errno or errno.EIO) from None
            self._out_bytes -= sent
            if sent == len(view):
                self._out.pop(0)
            else:
                self._out[0] = (fd, view[sent:])

    def _flush_filters(self, *, everything: bool) -> None:
        for fd, line_filter in self._filters.items():
            wait = line_filter.wait_s()
            if wait is not None and (everything or wait <= 0):
                self._queue(fd, line_filter.flush())

    def _filter_wait_s(self) -> float | None:
        waits = [w for f in self._filters.values() if (w := f.wait_s()) is not None]
        return min(waits) if waits else None

    def _limit_s(self, heard: float) -> float | None:
        limits = [w for w in (self._filter_wait_s(),) if w is not None]
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
        for start in range(0, len(again), _CHUNK):
            link.send(wire.STDIN, again[start : start + _CHUNK])
        if self.stdin.end_again():
            link.send(wire.STDIN_END)

    # -- proofs and hooks -----------------------------------------------------------------------------------------

    def _prove(self, link: Link, fields: dict[str, Any]) -> None:
        root, nonce = str(fields.get("root", "")), str(fields.get("nonce", ""))
        answer: dict[str, object] = {"root": root}
        try:
            fd, trace, device, inode = create_proof(root, nonce)
        except OSError as error:
            answer["error"] = error.strerror or str(error)
        else:
            self._remove_proof(root)
            self._proofs[root] = (fd, nonce, trace)
            if root not in self.roots:
                self.roots.append(root)
            answer.update(dev=device, ino=inode)
        link.say(wire.PROOF, answer)

    def _remove_proof(self, root: str) -> None:
        proof = self._proofs.pop(root, None)
        if proof is not None:
            fd, nonce, trace = proof
            ours = trace.still_ours()
            try:
                os.unlink(nonce, dir_fd=fd)
            except OSError:
                ours = False
            if ours:
                trace.restore()
            os.close(fd)

    def _remove_proofs(self) -> None:
        for root in list(self._proofs):
            self._remove_proof(root)

    def _run_hook(self, link: Link, fields: dict[str, Any]) -> None:
        from rch.client_local import Interrupted

        try:
            result = self._on_hook(fields)
        except Interrupted as stop:
            self._on_cancel(stop.number, None)
            result = {"status": 128 + stop.number, "problem": "interrupted"}
        link.say(wire.HOOK_DONE, {"name": str(fields.get("name", "")), **result})


class Stdin:
    """The caller's standard input on its way to the job.

    Nothing is read before a worker has accepted the job, so that a command that runs here finds all of it. A file is
    read at positions of its own and its offset is moved at the end only. Of a pipe the last bytes are kept, for
    another rchd and for a repetition here.
    """

    def __init__(self, nature: str, *, interactive: bool) -> None:
        self.sent = 0
        self._is_file = nature == "file"
        self._forwarded = nature in ("pipe", "file") or (nature == "tty" and interactive)
        self._is_tty = nature == "tty"
        self._open = self._ended = self._waits_for_resume = False
        self._taken = 0
        self._kept = bytearray()
        self._kept_from = 0
        self._start = 0
        if self._is_file:
            try:
                self._start = os.lseek(0, 0, os.SEEK_CUR)
            except OSError:
                self._is_file = False

    def open(self) -> None:
        """A job is there to read."""
        self._open = self._forwarded

    def wanted(self, waiting: int) -> bool:
        """Should fd 0 be read now? *waiting*: bytes that the link could not send yet."""
        return (
            self._open
            and not self._ended
            and not self._waits_for_resume
            and not waiting
            and self.sent - self._taken < wire.STDIN_WINDOW
        )

    def read(self) -> bytes | None:
        """Some bytes, b"" at the end (also of a terminal or descriptor that fails), None for nothing yet."""
        room = min(_CHUNK, wire.STDIN_WINDOW - (self.sent - self._taken))
        try:
            data = os.pread(0, room, self._start + self.sent) if self._is_file else os.read(0, room)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self._ended = True
        elif not self._is_file:
            self._kept += data
            surplus = len(self._kept) - max(REPLAY_MAX, self.sent + len(data) - self._taken)
            if surplus > 0:
                del self._kept[:surplus]
                self._kept_from += surplus
        self.sent += len(data)
        return data

    def expect_resume(self) -> None:
        """A new rchd: nothing more until it says how much the worker has."""
        self._waits_for_resume = self._open

    def taken(self, total: int) -> bytes:
        """The worker has the first *total* bytes; what has to be sent again, b"" unless a new rchd asks."""
        if not 0 <= total <= self.sent:
            raise wire.FrameError(f"STDIN_TAKEN says {total}, {self.sent} were sent")
        self._taken = max(self._taken, total)
        if not self._waits_for_resume:
            return b""
        self._waits_for_resume = False
        self._taken = total
        if self._is_file:
            self.sent = total
            self._ended = False
            return b""
        if total < self._kept_from:
            raise wire.FrameError(f"stdin from {total} on is wanted again, it is kept from {self._kept_from} on")
        self._end_due = self._ended
        return bytes(self._kept[total - self._kept_from :])

    _end_due = False

    def end_again(self) -> bool:
        """Must STDIN_END be said again, after the bytes of :meth:`taken`?"""
        due, self._end_due = self._end_due, False
        return due

    def settle(self, used: object) -> None:
        """The command has ended there: a file's offset stands behind what it was given, or behind *used* bytes."""
        if self._is_file and self._open:
            count = used if type(used) is int and 0 <= used <= self.sent else self.sent
            try:
                os.lseek(0, self._start + count, os.SEEK_SET)
            except OSError:
                pass

    def replay(self) -> int | None:
        """A descriptor that gives the whole stdin once more, for a run here; 0 if fd 0 still has it all.

        None when too much of a pipe has been read to repeat it. Feeding the rest takes a process of its own, which
        ends with the input.
        """
        if not self.sent or self._is_file or self._is_tty:
            return 0
        if self._kept_from:
            return None
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            try:
                os.close(read_end)
                _pump(bytes(self._kept), write_end, ended=self._ended)
            finally:
                os._exit(0)
        os.close(write_end)
        return read_end


def create_proof(root: str, nonce: str) -> tuple[int, Traceless, int, int]:
    """Create the file *nonce* in *root*; the open directory, its times, device and inode. Raises OSError.

    Only a name that rchd makes is accepted: whoever plays rchd gets no file of its choice written.
    """
    digits = nonce.removeprefix(wire.PROOF_PREFIX)
    if digits == nonce or len(digits) < 16 or not set(digits) <= set("0123456789abcdef"):
        raise OSError(errno.EINVAL, "not the name of a proof")
    if not root.startswith("/"):
        raise OSError(errno.EINVAL, "not an absolute path")
    directory = os.open(wire.raw(root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        trace = Traceless(directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(nonce, flags, 0o600, dir_fd=directory))
        trace.made()
    except BaseException:
        os.close(directory)
        raise
    return directory, trace, found.st_dev, found.st_ino


def end_by(number: int) -> None:
    """End as death by signal *number* looks from outside: status 128+n.

    For Ctrl-C at a terminal it is the signal itself: a shell that runs us in a loop stops the loop only then.
    """
    if number == signal.SIGINT and _in_foreground():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(128 + number)


def _in_foreground() -> bool:
    for fd in (0, 1, 2):
        try:
            if os.tcgetpgrp(fd) == os.getpgrp():
                return True
        except OSError:  # no terminal, or not ours
            continue
    return False


def raw_line(text: str) -> bytes:
    """*text* as one harmless line."""
    return wire.printable(text).encode("utf-8", "replace") + b"\n"


def die_of_output(lost: dict[str, Any]) -> int:
    """End as the tool would have: by SIGPIPE when the reader has gone, else with one line and 1."""
    number = lost.get("errno")
    if number == errno.EPIPE:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        return 128 + signal.SIGPIPE
    name = "stdout" if lost.get("fd") == 1 else "stderr"
    label = "DiskFull" if number in (errno.ENOSPC, errno.EDQUOT) else "OSError"
    why = os.strerror(number if type(number) is int else errno.EIO)
    sys.stderr.write(f"rch: error[{label}] here: {name} cannot be written ({why}); the command was cancelled\n")
    return 1


def _pump(kept: bytes, write_end: int, *, ended: bool) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    data = kept
    while data:
        view = memoryview(data)
        while view:
            view = view[os.write(write_end, view) :]
        data = b"" if ended else os.read(0, _CHUNK)


def _drain_pipe(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass
