"""serve -> supervisor: a process of its own session that has the slots and locks and outlives every connection.

Starting Python and compiling a zipapp takes longer than most warm jobs, so ``serve`` forks a *nursery* before it has
threads: one idle process with the supervisor's code loaded, which forks the supervisors and ends with ``serve``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from typing import List, NoReturn, Optional, Sequence

from rch.worker._jobdir import JobDir
from rch.worker.cache import own_command
from rch.worker.refusal import Refusal

READY_S = 15.0
"""A loaded machine may need seconds to start Python; a supervisor that says nothing by then is ended."""

_MOST_DESCRIPTORS = 200
"""The kernel passes at most 253 in one message."""

_MESSAGE = 1 << 16


class Nursery:
    """The forking process. Made before any thread exists."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            ours.close()
            _nurse(theirs)
        theirs.close()
        self._socket = ours

    def ask(self, job: str, slots: Sequence[int], locks: Sequence[int], ready: int) -> bool:
        """Ask for a supervisor; False when there is no nursery to ask (any more)."""
        descriptors = [ready, *slots, *locks]
        if len(descriptors) > _MOST_DESCRIPTORS:
            return False
        words = json.dumps({"job": job, "slots": len(slots)}).encode("ascii")
        try:
            socket.send_fds(self._socket, [words], descriptors, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True


def start_supervisor(job: JobDir, slots: List[int], locks: List[int], nursery: Optional[Nursery] = None) -> None:
    """Start a supervisor with copies of the descriptors *slots* and *locks*, and wait until it can be found.

    Without a nursery by starting ``rch-wkr supervise``, which forks once more so that it is nobody's child and never a
    zombie of ours. Raises Refusal.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        process = None
        if nursery is None or not nursery.ask(job.path, slots, locks, theirs):
            process = _execute(job, slots, locks, theirs)
        os.close(theirs)
        theirs = -1
        readable, _, _ = select.select([ours], [], [], READY_S)
        said = os.read(ours, 1) if readable else b""
        if process is not None:
            if not readable:
                process.kill()
            process.wait()  # the first of the two: it ends at once
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    if said != b"R":
        raise Refusal("internal", "the supervisor of %s did not start: %s" % (job.name, _last_words(job)))


def _execute(job: JobDir, slots: List[int], locks: List[int], ready: int) -> subprocess.Popen[bytes]:
    command = [*own_command(), "supervise", job.path]
    command += ["--slots", ",".join(map(str, slots)), "--locks", ",".join(map(str, locks)), "--ready", str(ready)]
    complaints = _complaints(job.path)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=complaints,
            stderr=complaints,
            pass_fds=[*slots, *locks, ready],
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(complaints)


def _nurse(requests: socket.socket) -> NoReturn:
    """The nursery's loop: it holds nothing of the channel, or the connection would never end."""
    status = 1
    try:
        quiet = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        mine = requests.fileno()
        os.closerange(3, mine)
        os.closerange(mine + 1, 1024)  # a connection to a warm process, for one, must end with serve and not with us
        os.setsid()
        os.chdir("/")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
        from rch.worker import _runner_source
        from rch.worker.supervise import supervise  # noqa: F401  loaded here, once, for all children

        _runner_source.program(sys.executable)

        _name("rch-wkr-nursery")
        while True:
            words, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE, _MOST_DESCRIPTORS)
            if not words:
                break
            if os.fork() == 0:
                requests.close()
                _become_supervisor(words, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        status = 0
    finally:
        os._exit(status)


def _become_supervisor(words: bytes, descriptors: Sequence[int]) -> NoReturn:
    status = 1
    try:
        request = json.loads(words)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        complaints = _complaints(request["job"])
        os.dup2(complaints, 1)
        os.dup2(complaints, 2)
        os.close(complaints)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _name("rch-wkr-job")
        from rch.worker.supervise import supervise

        count = request["slots"]
        supervise(request["job"], descriptors[1 : 1 + count], descriptors[1 + count :], descriptors[0])
        status = 0
    except BaseException:  # noqa: BLE001  the outer edge of a process
        traceback.print_exc()
    finally:
        os._exit(status)


def _name(text: str) -> None:
    """What ``ps`` shows, so that a person can tell the processes of one ``serve`` apart."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write(text)
    except OSError:
        pass


def _complaints(job: str) -> int:
    path = os.path.join(job, "supervisor.log")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _last_words(job: JobDir) -> str:
    try:
        with open(os.path.join(job.path, "supervisor.log"), "rb") as file:
            lines = file.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it said nothing"
