"""The command run here: as the client's own child, under local slots, with its terminal, limits and confinement.

rchd never runs anything for a caller (lessons SE-08); it only says how many slots a run takes. The slots are files
that the client locks for the duration, so a killed client gives them back, and the command never inherits one
(lessons SQ-09).
"""

# ruff: noqa: SIM105, S606 -- contextlib costs the client's start-up 2 ms; exec is what this module is for

from __future__ import annotations

import errno
import fcntl
import os
import sys
from time import monotonic, sleep, time_ns

from rch.client_frames import dumps, printable, raw, text
from rch.client_paths import path_without_shims

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any
else:
    import _signal as signal  # the public module costs 4 ms through enum

HOOK_S = 60.0
"""Seconds one hook may take (coverage A-20)."""

FALLBACK_SLOTS = 4
"""Slots of a run that nobody estimated: no rchd was there to ask."""

EVENTS_MAX = 1 << 20
"""Bytes of ``client.log`` before it becomes ``client.log.1``."""

_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_KERNEL = 0x80  # si_code of a signal that the terminal sent to the whole foreground group
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "rustc")


class Interrupted(Exception):
    """A signal ended the wait for a slot; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Slots:
    """Slots of this machine, held until :meth:`release` or the end of this process."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def take(self, state: str, wanted: int, on_wait: Callable[[int, int], None]) -> None:
        """Wait for *wanted* of this machine's CPUs in order of arrival; ``on_wait(wanted, total)`` after a second.

        Only a signal ends the wait (Interrupted). Where the state directory cannot be used there is no limit: a
        sandbox must not keep its caller from building. A run inside a run that holds slots takes none of its own.
        """
        total = len(os.sched_getaffinity(0))
        wanted = min(wanted, total)
        if wanted <= 0:
            return
        try:
            files = _open_slots(os.path.join(state, "local-slots"), total)
        except OSError:
            return
        handlers = _wait_handlers(lambda: on_wait(wanted, total))
        try:
            self._take(files[0], files[1:], wanted)
        except BaseException:
            self._held.clear()
            raise
        finally:
            for fd in files:
                if fd not in self._held:
                    os.close(fd)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _take(self, ticket: int, slots: list[int], wanted: int) -> None:
        # The ticket's queue is the kernel's: whoever waits longest gets it. Only its holder polls the slots.
        if not _try_lock(ticket):
            if _ancestor_holds([ticket, *slots]):
                return
            fcntl.flock(ticket, fcntl.LOCK_EX)
        pause = 0.01
        while True:
            for fd in slots:
                if len(self._held) < wanted and fd not in self._held and _try_lock(fd):
                    self._held.append(fd)
            if len(self._held) == wanted:
                return
            if pause == 0.01 and _ancestor_holds(slots):
                self._held.clear()
                return
            pause = min(0.1, pause * 1.5)
            sleep(pause)

    def release(self) -> None:
        """Give the slots back."""
        for fd in self._held:
            os.close(fd)
        self._held.clear()


def wanted_slots(argv: Sequence[str]) -> int:
    """Slots for a run without an estimate: what ``-j`` says, 1 for a compiler, else :data:`FALLBACK_SLOTS`."""
    name = os.path.basename(argv[0])
    if name in _COMPILERS:
        return 1
    for index, word in enumerate(argv[1:], 1):
        for option in ("-j", "--jobs=", "--parallel="):
            number = word.removeprefix(option) if word.startswith(option) else ""
            if word in ("-j", "--jobs", "--parallel") and index + 1 < len(argv):
                number = argv[index + 1]
            if number.isascii() and number.isdigit():
                return max(1, int(number[:6]))
    return FALLBACK_SLOTS


def find_program(name: str, environ: Mapping[bytes, bytes]) -> tuple[bytes, int]:
    """``(path, 0)`` of the program that a shell would start, without shims; ``(b"", 127 or 126)`` if there is none."""
    word = os.fsencode(name)
    if b"/" in word:
        if not os.path.exists(word):
            return b"", 127
        return (word, 0) if os.access(word, os.X_OK) and not os.path.isdir(word) else (b"", 126)
    status = 127
    for place in os.fsencode(path_without_shims(os.fsdecode(environ.get(b"PATH", os.defpath.encode())))).split(b":"):
        path = os.path.join(place or b".", word)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path, 0
            status = 126
    return b"", status


def replace_process(argv: Sequence[str], environ: Mapping[bytes, bytes]) -> int:
    """``exec`` the real tool: same process, same everything. Returns a status only when that is impossible."""
    path, status = find_program(argv[0], environ)
    if status:
        return _no_program(argv[0], status)
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    words = [os.fsencode(w) for w in argv]
    try:
        os.execve(path, words, environ)
    except OSError as error:
        if error.errno == errno.ENOEXEC:  # a script without an interpreter line, which a shell runs itself
            os.execve("/bin/sh", [b"sh", path, *words[1:]], environ)
        return _no_program(argv[0], 126, error.strerror)


def run_child(argv: Sequence[str], environ: Mapping[bytes, bytes], started: Callable[[], None], stdin: int = 0) -> int:
    """Run *argv* as a child with this process's descriptors, terminal and process group; its exit status, or -n.

    started: called once the child runs. stdin: the descriptor that is its standard input.
    Signals that were sent to this process alone are passed on; those that the terminal sends reach the child anyway.
    """
    path, status = find_program(argv[0], environ)
    if status:
        return _no_program(argv[0], status)
    blocked = [n for n in _WATCHED if signal.getsignal(n) != signal.SIG_IGN]
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [*blocked, signal.SIGCHLD])
    try:
        words = [os.fsencode(w) for w in argv]
        try:
            pid = _spawn(path, words, environ, old, stdin)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                return _no_program(argv[0], 126, error.strerror)
            pid = _spawn(b"/bin/sh", [b"sh", path, *words[1:]], environ, old, stdin)
        started()
        while True:
            done, waited = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(waited)
            # The limit covers a SIGCHLD that somebody had blocked and ignored before us.
            info = signal.sigtimedwait([*blocked, signal.SIGCHLD], 1.0)
            if info is not None and info.si_signo != signal.SIGCHLD and info.si_code != _FROM_KERNEL:
                try:
                    os.kill(pid, info.si_signo)
                except ProcessLookupError:
                    pass
    finally:
        # What is still pending here has reached the child too; it must not end us before its status is told.
        while signal.sigtimedwait(blocked, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def run_hook(command: str, cwd: str, environ: Mapping[bytes, bytes], limit_s: float = HOOK_S) -> tuple[int, str]:
    """Run a hook by ``sh -c`` in *cwd*; ``(status, problem)``, problem "" if it ended with 0 in time.

    stdin is /dev/null, all output goes to stderr. At the limit everything that the hook has started is killed.
    """
    mark = b"RCH_HOOK_RUN=" + os.urandom(12).hex().encode()
    name, _, value = mark.partition(b"=")
    null = os.open(os.devnull, os.O_RDONLY)
    blocked = [n for n in _WATCHED if signal.getsignal(n) != signal.SIG_IGN]
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [*blocked, signal.SIGCHLD])
    try:
        try:
            pid = os.posix_spawn(
                "/bin/sh",
                [b"sh", b"-c", b'cd -- "$1" && exec sh -c "$2"', b"sh", raw(cwd), raw(command)],
                {**environ, name: value},
                file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
                setsid=True,
                setsigmask=old,
                setsigdef=_IGNORED_BY_PYTHON,
            )
        except OSError as error:
            return 126, f"could not be started ({error.strerror})"
        until = monotonic() + limit_s
        while True:
            done, waited = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(waited)
                status = code if code >= 0 else 128 - code
                return status, f"ended with status {status}" if status else ""
            left = until - monotonic()
            info = signal.sigtimedwait([*blocked, signal.SIGCHLD], max(0.0, min(left, 1.0)))
            stopped = info is not None and info.si_signo != signal.SIGCHLD
            if stopped or left <= 0:
                _kill_tree(pid, mark)
                os.waitpid(pid, 0)
                if stopped and info is not None:
                    raise Interrupted(info.si_signo)
                return 124, f"did not end within {limit_s:g} s and was killed"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
        os.close(null)


def record_event(state: str, fields: Mapping[str, object]) -> None:
    """One JSON line in ``<state>/log/client.log``: what was decided without an rchd that could have logged it."""
    path = os.path.join(state, "log", "client.log")
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, dumps({"time_ns": time_ns(), **fields}) + b"\n")
            if os.fstat(fd).st_size > EVENTS_MAX:
                os.rename(path, path + ".1")
        finally:
            os.close(fd)
    except OSError:
        pass  # a place that cannot be written must not keep anybody from building


def _spawn(path: bytes, words: list[bytes], environ: Mapping[bytes, bytes], mask: Iterable[int], stdin: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0)] if stdin else []
    return os.posix_spawn(path, words, environ, file_actions=actions, setsigmask=mask, setsigdef=_IGNORED_BY_PYTHON)


def _no_program(name: str, status: int, why: str | None = None) -> int:
    problem = why or ("command not found" if status == 127 else "cannot be executed")
    sys.stderr.write(f"rch: {printable(name)}: {problem}\n")
    sys.stderr.flush()
    return status


def _open_slots(place: str, total: int) -> list[int]:
    """The ticket and one file per CPU, read-only where they cannot be made; raises OSError when there are none."""
    found: list[int] = []
    try:
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)
        except OSError:
            pass
        for name in ("ticket", *map(str, range(total))):
            path = os.path.join(place, name)
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            found.append(fd)
    except OSError:
        for fd in found:
            os.close(fd)
        raise
    return found


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_handlers(on_wait: Callable[[], None]) -> dict[int, Any]:
    """For a wait of any length: a watched signal raises Interrupted, a second calls *on_wait*; the handlers before."""

    def interrupt(number: int, _frame: object) -> None:
        raise Interrupted(number)

    def alarm(_number: int, _frame: object) -> None:
        on_wait()

    watched = [n for n in _WATCHED[:4] if signal.getsignal(n) != signal.SIG_IGN]
    old: dict[int, Any] = {n: signal.signal(n, interrupt) for n in watched}
    old[signal.SIGALRM] = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    return old


def _ancestor_holds(files: Sequence[int]) -> bool:
    """Is one of *files* locked by a process that we descend from? Then waiting for it would never end."""
    inodes = {str(os.fstat(fd).st_ino) for fd in files}
    holders = set()
    for line in _read_all("/proc/locks").splitlines():
        # 1: FLOCK  ADVISORY  WRITE 123 08:01:4711 0 EOF; "->" marks one that waits. Inodes here, devices differ
        # between file systems' own numbers and these: an equal inode elsewhere held by an ancestor is far-fetched.
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] in inodes:
            holders.add(words[4])
    pid = os.getppid()
    while pid > 0 and holders:
        if str(pid) in holders:
            return True
        fields = _read_all(f"/proc/{pid}/stat").rpartition(")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0
    return False


def _kill_tree(leader: int, mark: bytes) -> None:
    """Kill the hook's session and everything that still carries its mark, also what has left the session."""
    for _ in range(5):
        victims = [pid for pid in _pids() if _in_session(pid, leader) or mark in _environ_of(pid)]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not victims:
            return
        sleep(0.02)


def _pids() -> list[int]:
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def _in_session(pid: int, leader: int) -> bool:
    fields = _read_all(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return len(fields) > 3 and fields[3] == str(leader) and fields[0] != "Z"


def _environ_of(pid: int) -> list[bytes]:
    return raw(_read_all(f"/proc/{pid}/environ")).split(b"\0")


def _read_all(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    parts = []
    try:
        while part := os.read(fd, 64 * 1024):
            parts.append(part)
    except OSError:
        pass
    finally:
        os.close(fd)
    return text(b"".join(parts))
