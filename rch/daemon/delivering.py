"""return: what the job changed comes home, once, whoever asks for it, and is written down."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

from rch.config import Config, load_config
from rch.config.places import Places
from rch.daemon.adoption import revived
from rch.daemon.pool import Pool
from rch.daemon.root_locks import RootLocks
from rch.daemon.running import Running
from rch.daemon.store import Job, Store
from rch.daemon.terms import build_dir_policy
from rch.daemon.underway import Underway
from rch.errors import Fault, ProductsUnverified, RchError, Unreachable, WorkerFault
from rch.intercept.decision import Products
from rch.project import BuildState, scan_build_dirs, stat_cache
from rch.project.model import Root
from rch.transfer import BuildDir, HeldIndex, Returned, recall_push, record_placed, return_delta


class Deliveries:
    """Products on their way home, and those that did not arrive."""

    def __init__(self, places: Places, store: Store, pool: Pool, underway: Underway, locks: RootLocks) -> None:
        self._places = places
        self._store = store
        self._pool = pool
        self._underway = underway
        self._locks = locks

    def deliver(self, running: Running, config: Config) -> list[Returned]:
        """Bring every root home, once; later callers get the same answer."""
        with running.deliver_lock:
            if running.delivery_error is not None:
                raise running.delivery_error
            if running.delivered is None:
                started = time.time()
                running.job.state, final = "returning", running.job.state
                self._store.put_job(running.job)
                try:
                    running.delivered = self._deliver(running, config)
                except RchError as error:
                    running.delivery_error = error
                    raise
                finally:
                    running.job.state = final
                    running.job.times["returned_s"] = time.time() - started
            return running.delivered

    def _deliver(self, running: Running, config: Config) -> list[Returned]:
        executor, job = running.member.executor, running.job
        policy = build_dir_policy(config, running.kind)
        last: Fault | None = None
        for attempt in range(3):  # coverage A-25: 3 attempts, 1 s · 2^n
            if attempt:
                time.sleep(2.0 ** (attempt - 1))
            try:
                if not running.locked or not executor.connected:
                    self._relock(running)
                clock = self._clock_check(running)
                return [self._return_root(running, root, config, policy, clock) for root in running.roots]
            except (Unreachable, WorkerFault) as fault:
                last = fault
                running.locked = False
        raise ProductsUnverified(
            last.message if last else f"{running.name}: job {job.id} could not be returned", hint=f"rch fetch {job.id}"
        ) from last

    def _return_root(
        self, running: Running, root: Root, config: Config, policy: BuildDir, admit: Callable[[], None]
    ) -> Returned:
        state = self._places.state
        if running.pushed is not None:
            manifest, held = running.pushed[root.key].manifest, running.pushed[root.key].held
        else:
            manifest, held = recall_push(state, running.job.id, root)
        tree, build = stat_cache(state, root.key), stat_cache(state, root.key, "build")
        scans: list[BuildState] = []

        def scan() -> BuildState:
            scans.append(scan_build_dirs(root, build))
            return scans[-1]

        returned = return_delta(
            running.member.executor,
            running.job.id,
            root,
            manifest,
            held,
            state_dir=state,
            scan=scan,
            policy=policy,
            extra_patterns=tuple(config.artifacts.extra_patterns),
            admit=admit,
            # Placed only in the directory that a caller has shown to be its own (SE-08), whatever lies there by now.
            # Without one (rch fetch) it is the directory of which the job was made.
            identity=next((c.proved[root.path] for c in running.callers if root.path in c.proved), manifest.identity),
        )
        record_placed(returned.placement, root, manifest, tree=tree, build=build)
        if scans:
            scans[-1].save()
        return returned

    def _relock(self, running: Running) -> None:
        """Take the roots' locks again after a restart, a lost connection or a time without callers."""
        running.member.retry_at = 0.0
        self._pool.connect(running.member)
        parts = [{"key": r.key, "path": r.path, "base": None} for r in running.roots]
        running.member.executor.request(
            "prepare", {"job": running.job.id, "slots": 0, "wait_s": 10, "roots": parts}, timeout_s=30
        )
        running.locked = True

    def _clock_check(self, running: Running) -> Callable[[], None]:
        """Measure the worker's clock again (lessons PM-04) while the delta is on its way; the answer judges it.

        That raises ProductsUnverified when the clock jumped during the job: then no files are returned.
        """
        if running.kind.products is not Products.FILES:
            return lambda: None

        def ping() -> None:
            with contextlib.suppress(Fault):
                running.member.executor.request("ping", timeout_s=10)

        def judge() -> None:
            measured.join(11)
            now = running.member.executor.clock_offset_ns()
            then = running.job.options.get("clock_ns")
            if abs(now) > 10**9 or (then is not None and abs(now - then) > 10**9):
                raise ProductsUnverified(
                    f"{running.name}: its clock moved while the job ran (now {now / 1e9:+.1f} s)", hint="rch doctor"
                )

        measured = threading.Thread(target=ping, name="clock", daemon=True)
        measured.start()
        return judge

    def finished(self, running: Running, returned: list[Returned], when: float) -> None:
        """All is in place: record it."""
        job = running.job
        job.products = "verified"
        job.times["ended"] = when
        job.returned = {
            "files": sum(r.files for r in returned),
            "bytes": sum(r.size_bytes for r in returned),
            "deletes": sum(r.deletes for r in returned),
            "requests": sum(r.requests for r in returned),
            "processes": sum(r.processes for r in returned),
        }
        rc = running.rc or {}
        if rc.get("reason") == "exited" and not job.options.get("must_be_remote"):
            self._store.record_result(
                job.project, job.kind, str(job.options.get("class", "")), green=rc.get("code") == 0
            )
        self._store.put_job(job)

    def undelivered(self, running: Running, error: RchError) -> None:
        """The products did not arrive; the job stays there for ``rch fetch``."""
        running.job.products = "undelivered"
        running.job.reason = error.message
        self._store.put_job(running.job)
        self._underway.forget(running, collect=False)

    def clean_up(self, running: Running, config: Config) -> None:
        """``artifacts.cleanup_remote``: after a verified return nothing of the project stays there."""
        if not config.artifacts.cleanup_remote or running.job.products != "verified":
            return
        for root in running.roots:
            fields = {"job": running.job.id, "root": root.key, "base": "", "reset": True}
            empty: dict[str, list[str]] = {"changes": [], "deletes": [], "bodies": [], "staged": [], "exact": []}
            with contextlib.suppress(RchError):
                running.member.executor.request("sync", {**fields, **empty}, timeout_s=60)
                HeldIndex.load(self._places.state, root.key, running.name).forget(self._places.state)

    def fetch(self, job: Job) -> Job:
        """`rch fetch`: complete the return of an undelivered job while its directory lives."""
        if job.products != "undelivered":
            return job
        running = self._underway.get(job.id)
        if running is None:
            member = self._pool.member(job.worker)
            if member is None:
                raise Unreachable(f"{job.worker} is not in the inventory any more", host=job.worker)
            running = revived(job, member, self._places)
            running.rc = {"reason": "exited", "code": job.exit_status}
            running.ended.set()
        running.delivery_error = None
        with self._locks.hold(running.roots):
            returned = self.deliver(running, load_config(job.cwd, dict(os.environ), state_dir=self._places.state))
        self.finished(running, returned, job.times.get("ended", time.time()))
        self._underway.forget(running, collect=True)
        return running.job
