"""The supervisor of one job: its parent, its log, its clock and its end. It outlives every connection.

One process, one thread, one loop. It holds the locks of the job's slots and roots by descriptor, so its own end,
however it comes, gives them back; the sandbox dies with it (lessons EX-02, SQ-09).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import selectors
import signal
import socket
import sys
import termios
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence

from rch.worker import _clock, _fetched
from rch.worker._cgroup import JobGroup, job_group, oom_kills_of_machine
from rch.worker._control import Control
from rch.worker._feed import Feed
from rch.worker._fetch_env import check_program, fetch_environment
from rch.worker._jobdir import JobDir
from rch.worker._launch import Launched, launch
from rch.worker._locks import open_lock, try_lock
from rch.worker._log import LogWriter
from rch.worker._mountpoints import MountPoints
from rch.worker._outcome import Outcome, shown, start_failure
from rch.worker._sandbox import Mount, job_mounts
from rch.worker.cache import Cache, boot_id
from rch.worker.protocol import LOG_PAYLOAD_MAX, STREAM_STDERR
from rch.worker.refusal import Refusal
from rch.worker.spec import Place, Spec, Step, parse_spec

GRACE_S = 5.0
"""Between TERM and KILL, everywhere (lessons EX-02)."""

_STUCK_S = 3.0
"""PID 1 answers a KILL of everything within this time, or its sandbox is torn down from outside."""

_FETCH_FDS = {"0": "null", "1": "pipe", "2": "same"}
"""A fetch step has no input; all it says counts as stderr."""

_TIOCSIG = 0x40045436
_TERMINAL_SIGNALS = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP}


class Supervisor:
    """Runs the job of one job directory to its end."""

    def __init__(self, job: JobDir, slots: Sequence[int], locks: Sequence[int]) -> None:
        self.job = job
        self.cache = Cache(os.path.dirname(os.path.dirname(job.path)))
        self._slots = list(slots)
        self._locks = list(locks)
        self._selector = selectors.DefaultSelector()
        self._log = LogWriter(self.job.log)
        self._launched: Optional[Launched] = None
        self._outcome = Outcome()
        self._lines = b""
        self._errors = b""
        self._terminal: Optional[int] = None
        self._feed = Feed(self._selector, self._read_terminal)
        self._kill_at: Optional[float] = None
        self._tear_at: Optional[float] = None
        self._ends_at: Optional[float] = None
        self._cancelled = False
        self._wake = self._wakeup()
        self._control = Control(job.path, self._selector, self._handle)

    def run(self) -> None:
        """From the spec to ``rc``. Never raises for what a job or a spec can do."""
        started_ns = _clock.now_ns()
        spec: Optional[Spec] = None
        try:
            spec = parse_spec(self.job.spec(), self.cache)
            cpus = self.job.cpus()
            self.job.forget_secrets()
            outcome = self._carry_out(spec, cpus)
        except (Refusal, OSError) as error:
            outcome = Outcome()
            outcome.reason, outcome.message = "setup", str(error)
        self._finish(outcome, started_ns)

    # -- the story ----------------------------------------------------------------------------------------------

    def _carry_out(self, spec: Spec, cpus: List[int]) -> Outcome:
        shared = self._shared(spec)
        env = {**spec.env, "RCH_ON_WORKER": "1", "RCH_JOB": self.job.name}
        with MountPoints(self.cache, spec, job_mounts(spec, self.job.path, shared, fetching=False)):
            steps = [step for step in spec.fetch if not _fetched.known(self.cache, _fetched_into(spec), step.stamp)]
            failed = self._fetch(spec, steps, env, cpus, shared)
            if failed is not None:
                return failed
            outcome = self._main(spec, env, cpus, shared)
            if len(steps) < len(spec.fetch) and self._lacked_sources(outcome):
                # What the stamp saw is there, but not whole. Nothing was compiled: bring it, and begin again.
                for step in spec.fetch:
                    _fetched.forget(self.cache, _fetched_into(spec), step.stamp)
                outcome = self._fetch(spec, spec.fetch, env, cpus, shared) or self._main(spec, env, cpus, shared)
            return outcome

    def _main(self, spec: Spec, env: Dict[str, str], cpus: List[int], shared: List[Place]) -> Outcome:
        mounts = job_mounts(spec, self.job.path, shared, fetching=False)
        group = job_group(self.job.name, spec.memory_bytes) if spec.memory_bytes else None
        kills = oom_kills_of_machine()
        try:
            outcome = self._command(spec, spec.argv, env, spec.fds, mounts, cpus, spec.timeout_s, group)
            outcome.judge_memory(group, kills)
        finally:
            if group is not None:
                group.remove()
        return outcome

    def _fetch(
        self, spec: Spec, steps: Sequence[Step], env: Dict[str, str], cpus: List[int], shared: List[Place]
    ) -> Optional[Outcome]:
        """Run *steps*; how they failed, or None."""
        mounts = job_mounts(spec, self.job.path, shared, fetching=True)
        fixed = [mount for mount in mounts if mount.source not in {place.source for place in shared}]
        env = fetch_environment(env, fixed)
        for step in steps:
            check_program(step.argv, fixed)
            with self._fetch_turn():
                outcome = self._command(spec, step.argv, env, _FETCH_FDS, mounts, cpus, step.timeout_s, None)
                if self._cancelled or outcome.wait_status != 0:
                    return self._fetch_failed(outcome, step.argv)
                _fetched.remember(self.cache, _fetched_into(spec), step.stamp)
        return None

    def _lacked_sources(self, outcome: Outcome) -> bool:
        ended_red = outcome.reason == "exited" and bool(outcome.wait_status) and outcome.failure is None
        return ended_red and not self._cancelled and not self._feed.used and _fetched.may_be_missing(self.job.log)

    def _shared(self, spec: Spec) -> List[Place]:
        places: List[Place] = []
        if spec.cargo_home is not None:
            places += [
                Place(path, os.path.join(spec.cargo_home, os.path.basename(path)), writable=False)
                for path in self.cache.shared_parts("cargo")
            ]
        if spec.module_cache is not None:
            places.append(Place(self.cache.shared_parts("go")[0], spec.module_cache, writable=False))
        return places

    @contextlib.contextmanager
    def _fetch_turn(self) -> Iterator[None]:
        """One fetch at a time: cargo's own lock lies in the per-job home and does not see the others."""
        lock = open_lock(os.path.join(self.cache.path, "caches", "lock"))
        try:
            while not try_lock(lock) and not self._cancelled:
                self._serve_events(0.1)
            yield
        finally:
            os.close(lock)

    def _fetch_failed(self, outcome: Outcome, argv: Sequence[str]) -> Outcome:
        if outcome.reason == "killed":
            return outcome
        how = outcome.message or ("timeout" if outcome.reason == "timeout" else shown(outcome.wait_status))
        outcome.message = "fetch failed: %s: %s" % (" ".join(argv)[:200], how)
        outcome.reason, outcome.failure, outcome.wait_status = "setup", (None, outcome.message), None
        return outcome

    def _finish(self, outcome: Outcome, started_ns: int) -> None:
        """Free the slots, then say so: who reads ``rc`` finds them free."""
        for descriptor in self._slots:
            os.close(descriptor)
        self.job.write_result(outcome.result(started_ns))
        self._control.close()

    # -- one command --------------------------------------------------------------------------------------------

    def _command(
        self,
        spec: Spec,
        argv: Sequence[str],
        env: Dict[str, str],
        fds: Dict[str, str],
        mounts: Sequence[Mount],
        cpus: Sequence[int],
        timeout_s: Optional[float],
        group: Optional[JobGroup],
    ) -> Outcome:
        self._outcome = Outcome()
        if self._cancelled:
            self._outcome.reason = "killed"
            return self._outcome
        try:
            launched = launch(
                spec,
                argv,
                env,
                fds,
                job=self.job.path,
                cache=self.cache.path,
                mounts=mounts,
                cpus=cpus,
                enter=group.enter if group is not None else None,
            )
        except OSError as error:
            self._outcome.failure = (None, "the sandbox cannot be started: %s" % (error.strerror or error))
            return self._outcome
        self._launched = launched
        self._lines = self._errors = b""
        self._kill_at = self._tear_at = None
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        fetching = fds is _FETCH_FDS
        self._watch(launched.control.fileno(), self._read_control)
        os.set_blocking(launched.errors, False)
        self._watch(launched.errors, self._read_errors)
        for descriptor, stream in launched.outputs.items():
            self._watch_output(descriptor, STREAM_STDERR if fetching else stream)
        if not fetching:
            self._feed.begin(has_input=fds["0"] != "null")
        if launched.stdin is not None:
            self._feed.into_pipe(launched.stdin)
        try:
            self._loop(launched)
        finally:
            self._tear_down(launched)
        return self._conclude(launched)

    def _loop(self, launched: Launched) -> None:
        """Until the sandbox is gone and its pipes are read empty (they end when its last process does)."""
        while True:
            self._control.tell_watchers(self._log.size)
            if launched.process.poll() is not None and not launched.outputs and self._terminal is None:
                return
            self._serve_events(self._pause())
            self._escalate(launched)

    def _serve_events(self, timeout_s: Optional[float]) -> None:
        for key, _ in self._selector.select(timeout_s):
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:  # an earlier event of this round may have closed it
                key.data()

    def _pause(self) -> Optional[float]:
        times = [t for t in (self._ends_at, self._kill_at, self._tear_at) if t is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _escalate(self, launched: Launched) -> None:
        now = time.monotonic()
        if self._ends_at is not None and now >= self._ends_at:
            self._ends_at = None
            self._end_job("timeout")
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._tear_at = now + _STUCK_S
            self._say("A %d" % signal.SIGKILL)
        if self._tear_at is not None and now >= self._tear_at:
            self._tear_at = None
            launched.process.kill()

    def _end_job(self, reason: str) -> None:
        """TERM to every process of the sandbox, KILL after the grace. A second call changes nothing."""
        if self._kill_at is None and self._tear_at is None:
            self._outcome.reason = reason
            self._ends_at = None
            self._kill_at = time.monotonic() + GRACE_S
            self._say("A %d" % signal.SIGTERM)

    def _conclude(self, launched: Launched) -> Outcome:
        self._read_rest_of_control(launched)
        outcome = self._outcome
        if outcome.failure is None and outcome.wait_status is None:
            if not outcome.started_ns:
                words = self._errors.decode("utf-8", "replace").split()
                outcome.failure = (None, "the sandbox failed: %s" % (" ".join(words)[:500] or "no word from it"))
            else:
                outcome.wait_status = int(signal.SIGKILL)
                if outcome.reason == "exited":
                    outcome.reason, outcome.message = "killed", "the sandbox was killed from outside"
        if outcome.reason == "timeout":
            outcome.message = "time limit reached"
        return outcome

    def _tear_down(self, launched: Launched) -> None:
        with contextlib.suppress(OSError):
            self._errors += os.read(launched.errors, 4096)
        for descriptor in [*launched.outputs, launched.errors]:
            self._unwatch(descriptor)
        launched.outputs.clear()
        self._feed.close()
        self._close_terminal()
        self._unwatch(launched.control.fileno(), close=False)
        if launched.process.poll() is None:
            launched.process.kill()
            launched.process.wait()

    def _read_rest_of_control(self, launched: Launched) -> None:
        with contextlib.suppress(OSError):
            launched.control.setblocking(False)
            while True:
                data = launched.control.recv(4096)
                if not data:
                    break
                self._take_lines(data)
        launched.control.close()
        self._launched = None

    # -- what arrives -------------------------------------------------------------------------------------------

    def _read_control(self) -> None:
        assert self._launched is not None
        control = self._launched.control
        try:
            data, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            self._terminal = descriptor
            self._watch_output(descriptor, self._launched.terminal_stream or STREAM_STDERR)
            self._feed.into_terminal(descriptor)
        if not data:
            self._unwatch(control.fileno(), close=False)
            return
        self._take_lines(data)

    def _take_lines(self, data: bytes) -> None:
        self._lines += data
        while b"\n" in self._lines:
            line, _, self._lines = self._lines.partition(b"\n")
            words = line.split()
            if words[:1] == [b"S"]:
                self._outcome.started_ns = int(words[1]) + _clock.offset_ns()
                self.job.note_start(self._outcome.started_ns)
            elif words[:1] == [b"F"]:
                self._outcome.failure = start_failure(int(words[1]), words[2])
            elif words[:1] == [b"X"]:
                self._outcome.wait_status = int(words[1])
                self._outcome.usage = (int(words[2]), int(words[3]), int(words[4]))
            if words[:1] in ([b"X"], [b"F"]) and self._terminal is None:
                self._say("B")

    def _read_errors(self) -> None:
        assert self._launched is not None
        data = os.read(self._launched.errors, 4096)
        if data:
            self._errors = (self._errors + data)[-4096:]
        else:
            self._unwatch(self._launched.errors, close=False)

    def _watch_output(self, descriptor: int, stream: int) -> None:
        os.set_blocking(descriptor, False)
        self._watch(descriptor, lambda: self._read_output(descriptor, stream))

    def _read_output(self, descriptor: int, stream: int) -> None:
        try:
            data = os.read(descriptor, LOG_PAYLOAD_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the last process that had the terminal open is gone
                raise
            data = b""
        if data:
            self._keep(stream, data)
        elif descriptor == self._terminal:
            self._close_terminal()
            self._say("B")
        else:
            assert self._launched is not None
            self._launched.outputs.pop(descriptor, None)
            self._unwatch(descriptor)

    def _keep(self, stream: int, data: bytes) -> None:
        """Output is never lost: what the log cannot take ends the job, aloud."""
        try:
            self._log.write(stream, data)
        except OSError as error:
            if not self._outcome.message:
                self._outcome.message = "the log could not be written (%s)" % (error.strerror or error)
                self._cancelled = True
                self._end_job("killed")

    # -- what is asked ------------------------------------------------------------------------------------------

    def _handle(self, request: Dict[str, Any], body: bytes) -> Optional[Dict[str, Any]]:
        op = request.get("op")
        if op == "stdin":
            accepted = self._feed.take(body, ended=request.get("eof") is True)
            return {"ok": True, "accepted": accepted, "total": self._feed.total}
        if op == "signal":
            self._signal(str(request.get("signal")))
            return {"ok": True}
        if op == "resize":
            if self._terminal is not None:
                with contextlib.suppress(OSError, ValueError):
                    rows, cols = int(request.get("rows", 0)), int(request.get("cols", 0))
                    sizes = b"".join(n.to_bytes(2, sys.byteorder) for n in (rows, cols, 0, 0))
                    fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, sizes)
            return {"ok": True}
        return None

    def _signal(self, name: str) -> None:
        if name == "cancel":
            self._cancelled = True
            self._end_job("killed")
            return
        number = getattr(signal, "SIG" + name, None)
        if not isinstance(number, signal.Signals):
            return
        if number == signal.SIGKILL:
            self._outcome.reason = "killed"
            self._say("A %d" % number)
        elif self._terminal is not None and number in _TERMINAL_SIGNALS:
            # To whatever is in the foreground there, as a key press would.
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._terminal, _TIOCSIG, int(number))
        else:
            self._say("K %d" % number)

    # -- insides ------------------------------------------------------------------------------------------------

    def _say(self, line: str) -> None:
        if self._launched is not None:
            with contextlib.suppress(OSError):
                self._launched.control.send(line.encode("ascii") + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _watch(self, descriptor: int, act: Any) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, act)

    def _unwatch(self, descriptor: int, *, close: bool = True) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)
        if close:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _close_terminal(self) -> None:
        if self._terminal is not None:
            self._feed.close()
            self._unwatch(self._terminal)
            self._terminal = None

    def _read_terminal(self) -> None:
        if self._terminal is not None and self._launched is not None:
            self._read_output(self._terminal, self._launched.terminal_stream or STREAM_STDERR)

    def _wakeup(self) -> int:
        """Signals arrive as bytes in the loop: an ended child, and TERM (the machine goes down) as a cancel."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self._selector.register(read_end, selectors.EVENT_READ, self._read_wakeup)
        return read_end

    def _read_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if signal.SIGTERM in os.read(self._wake, 4096):
                self._signal("cancel")


def _fetched_into(spec: Spec) -> str:
    """The shared cache that the fetch steps of *spec* fill."""
    return "go" if spec.module_cache is not None else "cargo"


def supervise(job: str, slots: Sequence[int], locks: Sequence[int], ready: Optional[int]) -> None:
    """Run the job of directory *job* to its end; *slots* and *locks* are descriptors to hold meanwhile.

    ready: written to and closed once the job can be found, watched and signalled.
    """
    directory = JobDir(job)
    pid_file = directory.claim({"pid": os.getpid(), "boot_id": boot_id(), "started_ns": _clock.now_ns()})
    supervisor = Supervisor(directory, slots, locks)
    if ready is not None:
        os.write(ready, b"R")
        os.close(ready)
    supervisor.run()
    for descriptor in locks:
        os.close(descriptor)
    os.close(pid_file)
