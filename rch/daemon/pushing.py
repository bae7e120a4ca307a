"""push and start: everything between the lease of a worker and the first line of output."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import structlog

from rch.config import Config
from rch.config.places import Places
from rch.daemon import job_input
from rch.daemon import places as rooms
from rch.daemon.caches import SharedCaches
from rch.daemon.joblog import JobLog
from rch.daemon.leases import Lease
from rch.daemon.modes import facts_for
from rch.daemon.projects import Projects
from rch.daemon.running import Running
from rch.daemon.session import Session
from rch.daemon.store import Job, Store
from rch.daemon.terms import (
    bulk_settings,
    check_scan,
    memory_limit,
    network_of,
    overridden,
    says_more,
    wants_stdin,
)
from rch.daemon.underway import Underway, join, key_of
from rch.daemon.wire import Frame
from rch.errors import NotOffloadable, RchError, WorkerFault
from rch.execute.spec import job_spec
from rch.intercept.decision import Kind, Products
from rch.order import Order
from rch.project.model import Manifest, Project, Root
from rch.transfer import (
    HeldIndex,
    Pushed,
    PushPlan,
    changed_since,
    check_size,
    exists_here,
    plan_push,
    prepare_part,
    push,
    remember_push,
)
from rch.transfer.lag import lag_s
from rch.worker.protocol import INLINE_LIMIT

_log = structlog.get_logger("push")

LOOK_BESIDE = 20_000
"""Paths from which on the second look takes longer (50 ms) than one more round trip: it is made while the worker
applies the push, and the start is a request of its own."""


class Pusher:
    """Brings projects to workers and starts their jobs there."""

    def __init__(self, places: Places, store: Store, client: str, projects: Projects, underway: Underway) -> None:
        self._places = places
        self._store = store
        self._client = client
        self._projects = projects
        self._underway = underway
        self._caches = SharedCaches()

    def push_and_start(
        self, lease: Lease, order: Order, kind: Kind, project: Project, caller: Session, config: Config
    ) -> Running:
        """Everything between the lease and the first line of output. A fault leaves nothing held there."""
        check_scan(config)
        member, executor = lease.member, lease.member.executor
        executor.bulk = bulk_settings(config, member)
        job = self._new_job(lease, order, kind, project)
        started = time.time()
        job.times["received"], job.times["created"] = order.received, started
        self._store.put_job(job)
        self._underway.retire(project.roots)
        try:
            self._run_pre_transfer(project, caller, config)
            cache_requests = self._caches.send(member, project)
            spec, spec_body = job_spec(
                project,
                order,
                kind,
                facts_for(member, project),
                job_id=job.id,
                client=self._client,
                timeout_s=float(config.execution.timeout_sec),
                network=network_of(order, config),
                stdin=wants_stdin(order, kind),
                memory_bytes=memory_limit(member, config),
            )
            pushed, spec_sent = self._push(lease, job, order, project, kind, config, spec, spec_body)
            if caller.cancelled or caller.gone:
                raise NotOffloadable("the caller left before the start", code="cancelled")
            if not spec_sent:
                executor.request("start", {"job": job.id, "spec": spec}, spec_body, timeout_s=30)
        except BaseException as error:
            job.state = "failed" if isinstance(error, NotOffloadable) else "lost"
            job.reason = str(error)[:500]
            self._store.put_job(job)
            with contextlib.suppress(RchError):
                executor.request("release", {"job": job.id, "collect": True}, timeout_s=10)
            raise
        job.state = "running"
        job.pushed = {
            "files": sum(p.files for p in pushed.values()),
            "bytes": sum(p.size_bytes for p in pushed.values()),
            "deletes": sum(p.deletes for p in pushed.values()),
            "requests": cache_requests + 1 + sum(p.requests for p in pushed.values()) + (0 if spec_sent else 1),
            "processes": sum(p.processes for p in pushed.values()),
        }
        job.times["started"] = time.time()
        job.times["pushed_s"] = job.times["started"] - started
        hello = member.hello
        running = Running(
            job=job,
            kind=kind,
            member=member,
            log=JobLog(rooms.job_dir(self._places, job.id)),
            roots=project.roots,
            pushed=pushed,
            locked=True,
            boot_id=hello.boot_id if hello else "",
        )
        job.options["clock_ns"] = clock = executor.clock_offset_ns()
        for root in project.roots:
            self._store.set_root_clock(root.key, running.name, clock, running.boot_id)
        self._begin(running, caller)
        self._store.put_job(job)
        for root in project.roots:
            self._remember(job, root, pushed[root.key])
        caller.say(
            Frame.ACCEPTED,
            job=job.id,
            worker=lease.member.worker.name,
            kind=kind.name,
            stdin=wants_stdin(order, kind),
        )
        if says_more(order, config):
            caller.note(f"[rch] {running.name}: {lease.slots} slots, {lease.reason}; {shown_push(job)}")
            if keys := overridden(order, config):
                caller.note(f"[rch] naming {running.name} overrides {keys}")
        job_input.connect(running, order, caller)
        return running

    def _remember(self, job: Job, root: Root, pushed: Pushed) -> None:
        """While the job runs already: for the next push, for a restart of rchd, and for rch fetch.

        A record that could not be written is no reason to fail: the next push asks the worker what it holds.
        """
        state = self._places.state
        try:
            pushed.held.save(state)
            remember_push(state, job.id, root, pushed.manifest, pushed.held)
        except OSError as error:
            _log.warning("push not remembered", job=job.id, root=root.path, why=str(error))

    def _run_pre_transfer(self, project: Project, caller: Session, config: Config) -> None:
        if config.hooks.pre_transfer:
            why = caller.run_hook("pre_transfer", config.hooks.pre_transfer, project.roots[0].path)
            if why:
                raise NotOffloadable(f"hooks.pre_transfer failed ({why})", code="hook-failed")

    def _push(
        self,
        lease: Lease,
        job: Job,
        order: Order,
        project: Project,
        kind: Kind,
        config: Config,
        spec: dict[str, Any],
        spec_body: bytes,
    ) -> tuple[dict[str, Pushed], bool]:
        """Lock, slots and trees in one round trip where they fit into it; (pushed per root key, the job started)."""
        executor, name = lease.member.executor, lease.member.worker.name
        wait_s = float(config.execution.queue_wait_sec) if config.execution.enable_queueing else 0.0
        plans: list[tuple[Root, HeldIndex, PushPlan, Callable[[str], bool]]] = []
        for root in project.roots:
            held = HeldIndex.load(self._places.state, root.key, name)
            held = held.afresh() if order.options.no_cache else held
            here = exists_here(root)
            plan = plan_push(project.manifests[root.key], root, held, here)
            check_size(plan, config.max_transfer_mb * 1_000_000, root)
            plans.append((root, held, plan, here))
        if kind.products is Products.FILES:
            time.sleep(lag_s([plan for _, _, plan, _ in plans], executor.clock_offset_ns(), time.time_ns()))
        parts: list[dict[str, Any]] = []
        bodies: list[bytes] = []
        room = INLINE_LIMIT
        for root, _, plan, _ in plans:
            if order.options.no_cache:  # an empty tree is a matter of ``sync``; here only the lock is taken
                parts.append({"key": root.key, "path": root.path, "base": None})
                continue
            part, body = prepare_part(plan, project.manifests[root.key], root, room=room)
            room -= len(body)
            parts.append(part)
            bodies.append(body)
        fields: dict[str, Any] = {"job": job.id, "slots": lease.slots, "wait_s": wait_s, "roots": parts}
        body = b"".join(bodies)
        # The job may start in the same round trip when all of the tree goes along and is still what was scanned. A tree
        # that was scanned and needs nothing equals one that was proved whole before: there is nothing to look for.
        whole = all("changes" in part for part in parts)
        edited = [(project.manifests[root.key], root) for root, _, plan, _ in plans if not plan.empty]
        beside = whole and sum(len(manifest.entries) for manifest, _ in edited) > LOOK_BESIDE
        looked = whole and not beside and _unchanged(edited)
        if looked:
            fields["spec"] = spec
            body += spec_body
        job.state = "staging"
        try:
            if beside:
                with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
                    asked = pool.submit(executor.request, "prepare", fields, body, timeout_s=wait_s + 30)
                    looked = _unchanged(edited)
                    answer = asked.result()
            else:
                answer = executor.request("prepare", fields, body, timeout_s=wait_s + 30)
        except WorkerFault as error:
            if error.code == "busy":
                raise NotOffloadable(
                    f"{name}: no free slots within {wait_s:g} s", code="queue-timeout", hint="rch queue"
                ) from error
            raise
        rows = answer.fields.get("roots")
        rows = rows if isinstance(rows, dict) else {}
        started = answer.fields.get("started") is True
        pushed: dict[str, Pushed] = {}
        for (root, held, plan, here), part in zip(plans, parts, strict=True):
            row = rows.get(root.key)
            pushed[root.key] = push(
                executor,
                job.id,
                root,
                project.manifests[root.key],
                held,
                plan,
                part=part,
                answer=row if isinstance(row, dict) else {},
                exists_here=here,
                looked=looked,
                reset=order.options.no_cache,
                rescan=self._rescan(root, project.manifests[root.key], order, kind, config),
            )
        return pushed, started

    def _rescan(self, root: Root, before: Manifest, order: Order, kind: Kind, config: Config) -> Callable[[], Manifest]:
        def look_again() -> Manifest:
            manifest = self._projects.project(order, kind, config).manifests.get(root.key)
            if manifest is None or manifest.identity != before.identity:
                raise NotOffloadable(
                    f"{root.path} is not the directory any more that it was when the command started",
                    code="path-not-proved",
                    hint="run the command again",
                )
            return manifest

        return look_again

    def _new_job(self, lease: Lease, order: Order, kind: Kind, project: Project) -> Job:
        return Job(
            id=f"j-{secrets.token_hex(5)}",
            key=key_of(project, order, kind),
            command=list(order.argv),
            cwd=order.cwd,
            kind=kind.name,
            worker=lease.member.worker.name,
            slots=lease.slots,
            reason=lease.reason,
            requester=str(order.pid),
            project=project.id,
            project_name=project.name,
            roots=[asdict(root) for root in project.roots],
            options={
                "must_be_remote": order.options.must_be_remote,
                "class": lease.view.worker_class,
                "equipment": lease.view.equipment,
            },
        )

    def _begin(self, running: Running, caller: Session) -> None:
        caller.on_resize = lambda rows, cols: job_input.resize(running, rows, cols)
        join(running, caller)
        self._underway.follow(running)


def _unchanged(scanned: Sequence[tuple[Manifest, Root]]) -> bool:
    return not any(changed_since(manifest, root) for manifest, root in scanned)


def shown_push(job: Job) -> str:
    """ "pushed 14 files, 9.1 kB, 1 round trip"."""
    size = job.pushed.get("bytes", 0)
    return (
        f"pushed {job.pushed.get('files', 0)} files, {size / 1000:.1f} kB, {job.pushed.get('requests', 0)} round trips"
    )
