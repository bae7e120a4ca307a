"""The jobs under way: found by their id or their command, joined by callers, given up, collected."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading

from rch.daemon.joblog import JobLog
from rch.daemon.pool import Pool
from rch.daemon.running import Running, follow
from rch.daemon.session import Session
from rch.daemon.store import Job, Store
from rch.errors import RchError, UsageError
from rch.intercept.decision import Kind
from rch.order import Order
from rch.project.model import Project, Root


class Underway:
    """Jobs that rchd follows, and those that ended and wait for somebody to take them home."""

    def __init__(self, store: Store, pool: Pool) -> None:
        self._store = store
        self._pool = pool
        self._lock = threading.Lock()
        self._active: dict[str, Running] = {}

    def get(self, job_id: str) -> Running | None:
        """The job of that id, while it is here."""
        with self._lock:
            return self._active.get(job_id)

    def follow(self, running: Running) -> None:
        """Take a job up and bring its log here, in a thread of its own."""
        with self._lock:
            self._active[running.job.id] = running
        threading.Thread(
            target=follow, args=(running, self._pool, self._store.put_job), name=running.job.id, daemon=True
        ).start()

    def ids(self) -> list[str]:
        """Ids of those that have not ended."""
        with self._lock:
            return [r.job.id for r in self._active.values() if not r.ended.is_set()]

    def log_of(self, job_id: str) -> JobLog | None:
        """The log of a job under way."""
        running = self.get(job_id)
        return running.log if running else None

    def requester_returns(self, project: Project, order: Order, kind: Kind, caller: Session) -> Running | None:
        """The job of an identical command on an identical tree that nobody has taken home (lessons EX-03)."""
        if order.options.no_cache or order.options.dry_run:
            return None
        job = self._store.latest_with_key(key_of(project, order, kind))
        running = self.get(job.id) if job is not None else None
        if running is None or running.waiting() or running.cancel_sent or running.kind.name != kind.name:
            return None
        join(running, caller)
        return running

    def signal(self, job: Job, name: str) -> None:
        """`rch cancel` and friends."""
        running = self.get(job.id)
        if running is None:
            raise UsageError(f"job {job.id} is not under way", what=job.id)
        running.cancel_sent = running.cancel_sent or name == "cancel"
        running.member.executor.request("signal", {"job": job.id, "signal": name}, timeout_s=10)

    def settle(self, job_id: str, caller: Session) -> None:
        """After the caller has its status: collect the job there, pack its log here, once nobody waits for it."""
        running = self.get(job_id)
        if running is None:
            return
        running.leave(caller)
        if not running.waiting() and running.job.products != "undelivered":
            self.forget(running, collect=True)

    def retire(self, roots: tuple[Root, ...]) -> None:
        """Ended jobs of these roots that nobody came for: a newer command makes their products history."""
        keys = {r.key for r in roots}
        with self._lock:
            stale = [
                r
                for r in self._active.values()
                if r.ended.is_set() and not r.waiting() and keys & {root.key for root in r.roots}
            ]
        for running in stale:
            running.job.products = "none"
            self._store.put_job(running.job)
            self.forget(running, collect=True)

    def give_up(self, running: Running) -> None:
        """Nobody wants this job's products: end it there and forget it."""
        if running.rc is None:
            with contextlib.suppress(RchError):
                running.member.executor.request("signal", {"job": running.job.id, "signal": "cancel"}, timeout_s=5)
        running.job.products = "none"
        self._store.put_job(running.job)
        self.forget(running, collect=True)

    def forget(self, running: Running, *, collect: bool) -> None:
        """Give back what it holds there; with *collect* its directory there goes too."""
        with self._lock:
            self._active.pop(running.job.id, None)
        with contextlib.suppress(RchError):
            running.member.executor.request("release", {"job": running.job.id, "collect": collect}, timeout_s=30)
        running.locked = False
        with contextlib.suppress(OSError):
            running.log.pack()


def join(running: Running, caller: Session) -> None:
    """One more caller of a job under way; its signal may have come along with its request."""
    running.add(caller)
    caller.on_signal = lambda _: running.cancel(caller)
    if caller.cancelled:
        running.cancel(caller)


def key_of(project: Project, order: Order, kind: Kind) -> str:
    """Identity of a command on a tree: what makes a second requester the same requester."""
    parts = [
        list(order.argv),
        order.cwd,
        kind.name,
        sorted(project.env.items()),
        project.digest,
        [order.fds[n] == "tty" for n in ("0", "1", "2")],
        order.same_out,
    ]
    return hashlib.blake2b(json.dumps(parts).encode("ascii"), digest_size=16).hexdigest()
