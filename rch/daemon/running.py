"""A job that rchd follows: its log flows in from the worker, callers read the copy, the first one takes it home.

The follower thread only follows. Products are delivered by a caller's thread, once, so that nothing is ever placed
for a caller that has gone (lessons EX-03).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from rch.daemon.joblog import JobLog, whole_frames
from rch.daemon.store import Job
from rch.errors import Fault, HostileAnswer, JobLost, RchError, Unreachable, WorkerFault
from rch.intercept.decision import Kind
from rch.project.model import Root
from rch.transfer import Pushed, Returned
from rch.worker import protocol

if TYPE_CHECKING:
    from rch.daemon.pool import Member, Pool
    from rch.daemon.session import Session

_log = structlog.get_logger("job")

READ_WAIT_S = 4.0
"""A read stays open on the worker this long; its answer may take as long again and a margin."""

RECONNECT_S = 20.0
"""How long a worker may be away before its job counts as lost to us. A dead link shows in 10 s (lessons OS-07)."""

STATE_OF_REASON = {"timeout": "timeout", "killed": "killed", "oom": "oom", "lost": "lost"}


@dataclass
class Running:
    """One job under way (or ended and not yet taken home).

    pushed:  per root key what the worker's tree was when the job started; None after a restart of rchd, when it is
             read from the state directory.
    locked:  the worker's locks of the roots are held by this rchd's connection.
    result:  the worker's rc, or the Fault that hides it.
    """

    job: Job
    kind: Kind
    member: Member
    log: JobLog
    roots: tuple[Root, ...]
    pushed: dict[str, Pushed] | None
    locked: bool
    boot_id: str = ""
    callers: list[Session] = field(default_factory=list)
    rc: dict[str, Any] | None = None
    fault: RchError | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    deliver_lock: threading.Lock = field(default_factory=threading.Lock)
    delivered: list[Returned] | None = None
    delivery_error: RchError | None = None
    cancel_sent: bool = False

    @property
    def name(self) -> str:
        return self.member.worker.name

    def add(self, caller: Session) -> None:
        """One more reader of this job."""
        self.callers.append(caller)

    def leave(self, caller: Session) -> None:
        """A caller is done with it."""
        with contextlib.suppress(ValueError):
            self.callers.remove(caller)

    def waiting(self) -> bool:
        """Is somebody there to take the products home?"""
        return any(not c.gone for c in self.callers)

    def cancel(self, caller: Session | None) -> None:
        """End the job, unless another caller still waits for it (lessons SQ-03)."""
        if any(c is not caller and not c.gone for c in self.callers):
            return
        self.cancel_sent = True
        self.send_cancel()

    def send_cancel(self) -> None:
        """Tell the worker; where it is out of reach, the follower does so when it is back."""
        with contextlib.suppress(RchError):
            self.member.executor.request("signal", {"job": self.job.id, "signal": "cancel"}, timeout_s=10)


def follow(running: Running, pool: Pool, save: Callable[[Job], None]) -> None:
    """Bring the log here until the job has ended; sets ``rc`` or ``fault``, then ``ended``. Runs in its own thread."""
    job = running.job
    try:
        running.rc = _read_to_the_end(running, pool)
        job.state = state_of(running.rc)
        job.exit_status = exit_status(running.rc)
        job.signal = running.rc.get("signal")
        job.reason = job.reason if running.rc.get("reason") == "exited" else str(running.rc.get("reason", ""))
        started, ended = running.rc.get("started_ns"), running.rc.get("ended_ns")
        if type(started) is int and type(ended) is int:
            job.times["ran_s"] = max(0.0, (ended - started) / 1e9)
        cpu = [running.rc.get(k) for k in ("user_ms", "system_ms")]
        job.times["cpu_s"] = sum(c for c in cpu if isinstance(c, (int, float))) / 1000
    except RchError as error:
        running.fault = error
        job.state = "lost" if isinstance(error, JobLost) else job.state
        job.reason = error.message
        _log.warning("job out of reach", job=job.id, worker=running.name, why=error.message)
    except Exception as error:  # noqa: BLE001  the outer edge of this thread: the callers must hear of it
        _log.exception("follower failed", job=job.id)
        running.fault = Fault(f"{running.name}: following the job failed ({error})", host=running.name)
    finally:
        job.times["ended"] = time.time()
        running.log.end()
        if running.rc is not None and job.products == "none" and running.rc.get("reason") != "setup":
            job.products = "undelivered"
        save(job)
        with running.deliver_lock:
            if not running.waiting():  # nobody to take it home now: other commands may have the roots
                running.locked = False
                with contextlib.suppress(RchError):
                    running.member.executor.request("release", {"job": job.id, "collect": False}, timeout_s=10)
            running.ended.set()


def _read_to_the_end(running: Running, pool: Pool) -> dict[str, Any]:
    lost_since: float | None = None
    while True:
        try:
            answer = running.member.executor.request(
                "read",
                {
                    "job": running.job.id,
                    "offset": running.log.size,
                    "max": protocol.LOG_PAYLOAD_MAX,
                    "wait_s": READ_WAIT_S,
                },
                timeout_s=READ_WAIT_S * 2 + 5,
            )
        except Unreachable as error:
            now = time.monotonic()
            lost_since = lost_since if lost_since is not None else now
            _reconnect(running, pool, error, lost_since)
            continue
        except WorkerFault as error:
            if error.code == "no-such-job":
                raise JobLost(
                    f"{running.name}: job {running.job.id} is gone", host=running.name, job=running.job.id
                ) from error
            raise
        lost_since = None
        if whole_frames(answer.body) != len(answer.body):
            raise HostileAnswer(f"{running.name}: log frames that are none or cut", host=running.name)
        if answer.body:
            running.log.append(answer.body)
        if answer.fields.get("ended") is True:
            rc = answer.fields.get("rc")
            if not isinstance(rc, dict):
                raise JobLost(f"{running.name}: the job ended without a result", host=running.name, job=running.job.id)
            if rc.get("reason") == "lost":
                raise JobLost(f"{running.name}: the job's supervisor died", host=running.name, job=running.job.id)
            return rc


def _reconnect(running: Running, pool: Pool, error: Unreachable, lost_since: float) -> None:
    """Get the connection back within the limit, or raise."""
    running.locked = False
    while time.monotonic() - lost_since < RECONNECT_S:
        running.member.retry_at = 0.0
        try:
            hello = pool.connect(running.member)
        except RchError:
            time.sleep(0.5)
            continue
        if running.boot_id and hello.boot_id != running.boot_id:
            raise JobLost(f"{running.name} has rebooted", host=running.name, job=running.job.id)
        running.boot_id = hello.boot_id
        if running.cancel_sent:
            running.send_cancel()
        return
    raise Unreachable(
        f"{running.name}: out of reach for {RECONNECT_S:.0f} s while the job ran",
        host=running.name,
        stage="request",
        elapsed_s=time.monotonic() - lost_since,
    ) from error


def state_of(rc: dict[str, Any]) -> str:
    """The final state that a worker's rc means (checklist S21)."""
    reason = rc.get("reason")
    if reason in STATE_OF_REASON:
        return STATE_OF_REASON[reason]
    return "done" if rc.get("code") == 0 else "failed"


def exit_status(rc: dict[str, Any]) -> int:
    """The command's own status; 128+n for a signal; 124 for our limit (design.md 6.1)."""
    if rc.get("reason") == "timeout":
        return 124
    number = rc.get("signal")
    if type(number) is int and 0 < number < 128:
        return 128 + number
    code = rc.get("code")
    return code if type(code) is int and 0 <= code <= 255 else 1
