"""Where orders arrive: what the story in rch/offload.py asks of the daemon, step by step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import structlog

from rch.config import Config, load_config
from rch.config.places import Places
from rch.config.policy import policy_of
from rch.daemon import places as rooms
from rch.daemon.caches import SharedCaches
from rch.daemon.joblog import JobLog
from rch.daemon.modes import MODES, Modes, facts_for, view_of
from rch.daemon.pool import Member, Pool
from rch.daemon.probe import probe
from rch.daemon.running import Running, follow
from rch.daemon.session import Session
from rch.daemon.store import FINAL, Job, Store
from rch.daemon.wire import Frame, Transport
from rch.errors import (
    DiskFull,
    Fault,
    JobLost,
    NotOffloadable,
    ProductsUnverified,
    RchError,
    ToolMissing,
    Unreachable,
    UsageError,
    WorkerFault,
)
from rch.execute.executor import BulkSettings
from rch.execute.spec import job_spec
from rch.intercept import classify_argv
from rch.intercept.decision import Kind, Products, Segment, Verdict
from rch.offload import offload, see_through, tell
from rch.order import Order, parse_order
from rch.paths import AbsPath, Argv, RelPath
from rch.project import (
    BuildState,
    ProjectSettings,
    build_project,
    cargo_aliases,
    discover_roots,
    scan_build_dirs,
    stat_cache,
)
from rch.project.model import Manifest, Project, Root
from rch.schedule.choose import Wanted, WorkerView, choose
from rch.toolchains import FREE_COMMAND, build_argv, cores_wanted, kind_named, preflight, rust_targets
from rch.toolchains.cargo import expand as expand_aliases
from rch.transfer import (
    BuildDir,
    HeldIndex,
    Pushed,
    PushPlan,
    Returned,
    changed_since,
    check_size,
    compression_level,
    exists_here,
    plan_push,
    prepare_part,
    push,
    recall_push,
    record_placed,
    remember_push,
    return_delta,
    shared_tree_paths,
)
from rch.transfer.lag import lag_s
from rch.worker.protocol import INLINE_LIMIT

_log = structlog.get_logger("desk")

D_VARIABLES = ("RCH_CONFIG", "RCH_INVENTORY", "RCH_LOG_LEVEL")
"""Read once by rchd; a caller with other values is told (coverage A-11)."""

ADOPT_S = 30.0
"""An order waits at most this long for a new rchd to find the jobs of the last one."""

SLOTS_BY_DEFAULT = 4
"""Slots of a build that names no -j; more rarely helps an incremental build and starves the next agent."""


@dataclass(frozen=True)
class Lease:
    """n slots on one worker for one job, and why this worker."""

    member: Member
    view: WorkerView
    slots: int
    reason: str


class Desk:
    """All orders of one rchd."""

    def __init__(self, places: Places, store: Store, pool: Pool, *, instance: str) -> None:
        self._places = places
        self._store = store
        self._pool = pool
        self._instance = instance
        self._client = rooms.client_id(places)
        self._lock = threading.Lock()
        self._active: dict[str, Running] = {}
        self._root_locks: dict[str, threading.Lock] = {}
        self._modes = Modes(places.state, self._client)
        self._started_with = {name: os.environ.get(name, "") for name in D_VARIABLES}
        self._caches = SharedCaches()
        self._stopping = False
        self._adopted = threading.Event()

    # -- arrival ------------------------------------------------------------------------------------------------

    def serve(self, transport: Transport, request: Mapping[str, Any], *, spooled: bool) -> None:
        """One caller, from its request to its last frame. Runs in a thread of its own."""
        caller = Session(transport)
        try:
            order = parse_order(request, spooled=spooled)
            self._compare(order, caller)
            self._adopted.wait(ADOPT_S)  # until then a job that is under way is not known
            if order.attach_job:
                self._attach(order, caller)
            else:
                offload(order, caller, self)
        except RchError as error:
            caller.say(Frame.ERROR, status=error.exit_status, line=error.one_line())
        except Exception as error:  # noqa: BLE001  the outer edge: no traceback reaches a user, the log has it
            _log.exception("order failed")
            caller.say(
                Frame.ERROR, status=1, line=f"rch: error[Internal] {type(error).__name__}; next: rch daemon logs"
            )
        finally:
            caller.close()

    def _compare(self, order: Order, caller: Session) -> None:
        for name, ours in self._started_with.items():
            theirs = order.env.get(name, "")
            if theirs and theirs != ours:
                caller.note(f"[rch] {name} is {theirs} here, rchd runs with {ours or 'none'}; next: rch daemon restart")

    def _attach(self, order: Order, caller: Session) -> None:
        """A caller comes back to its job, after rchd or its connection had gone."""
        running = self._active.get(order.attach_job)
        if running is None:
            job = self._store.job(order.attach_job)
            if job is None:
                raise UsageError(f"no job {order.attach_job} is known here", what=order.attach_job)
            raise JobLost(f"job {job.id} has already been settled ({job.state})", job=job.id, hint=f"rch logs {job.id}")
        config = self.config_for(order)
        for root in running.roots:
            caller.prove(root.path)
        self._join(running, caller)
        self._resume_input(running, order, caller)
        with self._locks(running.roots):
            ending = see_through(running, order, caller, self, config)
        if ending is None:
            return
        if isinstance(ending, NotOffloadable):
            self.run_here(ending, running.kind, order, caller, config)
        else:
            tell(ending, caller, self, config)

    def _join(self, running: Running, caller: Session) -> None:
        """One more caller of a job under way; its signal may have come along with its request."""
        running.add(caller)
        caller.on_signal = lambda _: running.cancel(caller)
        if caller.cancelled:
            running.cancel(caller)

    # -- decide -------------------------------------------------------------------------------------------------

    def config_for(self, order: Order) -> Config:
        """The configuration of the order's directory and environment."""
        return load_config(order.cwd, order.env, state_dir=self._places.state)

    def decide(self, order: Order, config: Config) -> Segment:
        """The one decision (lessons IC-09), with the free command of a named place on top."""
        if self._stopping:
            raise NotOffloadable("rchd is stopping", code="no-daemon")
        segment = classify_argv(
            order.argv, order.cwd, policy_of(config), env=order.env, aliases=lambda cwd: cargo_aliases(cwd, order.env)
        )
        if segment.verdict is Verdict.LOCAL and order.options.must_be_remote:
            return replace(segment, verdict=Verdict.OFFLOAD, kind=FREE_COMMAND, reason="", tier=4)
        if segment.verdict is Verdict.OFFLOAD and not config.enabled and not order.options.must_be_remote:
            return replace(
                segment, verdict=Verdict.LOCAL, reason="disabled", detail="switched off by the configuration"
            )
        if segment.verdict is Verdict.OFFLOAD and config.local_only and not order.options.must_be_remote:
            return replace(
                segment, verdict=Verdict.LOCAL, reason="local-only", detail="local_only in the configuration"
            )
        return segment

    def understood(self, order: Order, segment: Segment) -> Order:
        """The order with the build's own words and what the job runs.

        Raises NotOffloadable with a ``preflight-…`` code when the tool here will only report an error.
        """
        assert segment.kind is not None
        words = Argv(*(segment.argv or order.argv))
        if segment.kind.name.startswith("cargo."):
            words = Argv(*expand_aliases(words, cargo_aliases(order.cwd, order.env)))
        run = Argv(*build_argv(words, segment.kind)) if segment.kind.run_locally_after else order.argv
        if segment.kind.name != FREE_COMMAND.name:
            found = preflight.check(words, segment.kind, order.cwd, read_small, names_in)
            if found.reason:
                raise NotOffloadable(found.details, code=found.reason, hint=found.suggestion)
        return replace(order, words=words, run=run)

    def must_be_remote(self, order: Order, config: Config | None) -> bool:
        """One policy for all paths (lessons HB-06)."""
        if order.options.must_be_remote:
            return True
        if config is None:
            try:
                config = self.config_for(order)
            except RchError:
                return False
        return not config.execution.fallback_to_local

    # -- project ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def hold_roots(self, order: Order, kind: Kind, config: Config) -> Iterator[tuple[Root, ...]]:
        """One returning job per root, from push to placement."""
        roots = discover_roots(
            order.words,
            kind,
            order.cwd,
            order.env,
            settings_of(config),
            state_dir=self._places.state,
            client_id=self._client,
            uid=order.uid,
        ).roots
        with self._locks(roots):
            yield roots

    @contextlib.contextmanager
    def _locks(self, roots: tuple[Root, ...]) -> Iterator[None]:
        with self._lock:
            locks = [self._root_locks.setdefault(k, threading.Lock()) for k in sorted({r.key for r in roots})]
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            yield

    def project(self, order: Order, kind: Kind, config: Config) -> Project:
        """Roots, manifests, tools and environment of the command, as they are now."""
        return build_project(
            order.words,
            kind,
            order.cwd,
            order.env,
            settings_of(config),
            state_dir=self._places.state,
            client_id=self._client,
            uid=order.uid,
            rehash=order.options.no_cache,
            also=lambda root: shared_tree_paths(self._places.state, root),
        )

    # -- schedule -----------------------------------------------------------------------------------------------

    def lease(
        self, order: Order, kind: Kind, project: Project, config: Config, tried: Mapping[str, tuple[str, str]]
    ) -> Lease:
        """The first admissible worker that answers, or NotOffloadable with each worker's reason."""
        mode = order.options.mode or config.switches.mode or ""
        if mode in MODES and not tried:
            special = self._modes.member(mode, order.env)
            self._pool.connect(special)
            seen = view_of(special)
            wanted = wanted_of(order, kind, project, config, seen.slots_total)
            return Lease(special, seen, max(1, min(wanted.slots, seen.slots_total)), f"mode {mode}")
        if not self._pool.members():
            self._pool.load()
        if not self._pool.members():
            error = self._pool.registry_error
            raise NotOffloadable(error or "no worker is registered", code="no-workers", hint="rch init")
        self._check_names(order)
        wanted = wanted_of(order, kind, project, config, len(os.sched_getaffinity(0)))
        refused = dict(tried)
        while True:
            choice = choose(wanted, self._views(project))
            candidates = [c for c in choice.candidates if c.name not in refused]
            if not candidates:
                refused = {**choice.refused, **refused}
                shown = "; ".join(
                    f"{name}: {text.removeprefix(name + ': ')}" for name, (_, text) in sorted(refused.items())
                )
                codes = {code for code, _ in refused.values()}
                code = codes.pop() if len(codes) == 1 else "no-candidate"
                workers = {name: text for name, (_, text) in refused.items()}
                only = self._pool.member(next(iter(refused))) if len(refused) == 1 else None
                hint = (only.hint if only else "") or HINTS.get(code, "")
                raise NotOffloadable(shown or "no worker is registered", code=code, workers=workers, hint=hint)
            view = candidates[0]
            member = self._pool.member(view.name)
            if member is None:
                refused[view.name] = ("no-candidate", "left the inventory")
                continue
            try:
                hello = self._pool.connect(member)
            except RchError as error:
                refused[view.name] = (self.code_of(error), error.message)
                continue
            if not hello.sandbox_ok or view.clock_ns != member.executor.clock_offset_ns():
                # What the handshake told was not known when the choice was made: choose again with it.
                choice = choose(wanted, [v for v in self._views(project) if v.name == view.name])
                if view.name in choice.refused:
                    refused[view.name] = choice.refused[view.name]
                    continue
            slots = max(1, min(wanted.slots, hello.slots_total))
            reason = "pinned" if wanted.pinned else ("only worker" if len(choice.candidates) == 1 else "standard")
            return Lease(member, view, slots, reason)

    def _check_names(self, order: Order) -> None:
        """A flag that names a worker or tag that does not exist is a mistake, not a restriction (lessons UX-04)."""
        members = self._pool.members()
        names = sorted(m.worker.name for m in members)
        if order.options.worker and order.options.worker not in names:
            raise UsageError(
                f"no worker {order.options.worker!r} in the inventory (known: {', '.join(names)})",
                what=order.options.worker,
                allowed=tuple(names),
                hint="rch workers list",
            )
        tags = {tag for m in members for tag in m.worker.declared.tags}
        for part in filter(None, (p.strip().removeprefix("!") for p in order.options.tag.split(","))):
            if part not in tags:
                known = ", ".join(sorted(tags)) or "none"
                raise UsageError(f"no worker has the tag {part!r} (known: {known})", what=part, hint="rch workers list")

    def _views(self, project: Project) -> list[WorkerView]:
        views = self._pool.views(self._store.switches(), lambda name: self._clock_then(project, name))
        return [replace(view, unportable=self._store.unportable(project.id, view.worker_class)) for view in views]

    def _clock_then(self, project: Project, worker: str) -> int | None:
        known = [c for r in project.roots if (c := self._store.root_clock(r.key, worker)) is not None]
        return known[0] if known else None

    # -- push and start -----------------------------------------------------------------------------------------

    def push_and_start(
        self, lease: Lease, order: Order, kind: Kind, project: Project, caller: Session, config: Config
    ) -> Running:
        """Everything between the lease and the first line of output. A fault leaves nothing held there."""
        member, executor = lease.member, lease.member.executor
        executor.bulk = bulk_settings(config, member)
        job = self._new_job(lease, order, kind, project)
        started = time.time()
        job.times["received"], job.times["created"] = order.received, started
        self._store.put_job(job)
        self._retire(project.roots)
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
        for root in project.roots:
            self._store.set_root_clock(root.key, lease.member.worker.name, executor.clock_offset_ns(), running.boot_id)
        self._begin(running, caller)
        self._store.put_job(job)
        for root in project.roots:  # while the job runs: for a restart, and for rch fetch
            remember_push(self._places.state, job.id, root, pushed[root.key].manifest, pushed[root.key].held)
        caller.say(
            Frame.ACCEPTED,
            job=job.id,
            worker=lease.member.worker.name,
            kind=kind.name,
            stdin=wants_stdin(order, kind),
        )
        if order.options.verbose:
            caller.note(f"[rch] {running.name}: {lease.slots} slots, {lease.reason}; {shown_push(job)}")
        self._connect_input(running, order, caller)
        return running

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
            part, body = prepare_part(plan, project.manifests[root.key], root, room=room)
            room -= len(body)
            parts.append(part)
            bodies.append(body)
        fields: dict[str, Any] = {"job": job.id, "slots": lease.slots, "wait_s": wait_s, "roots": parts}
        body = b"".join(bodies)
        # The job may start in the same round trip when all of the tree goes along and is still what was scanned. A tree
        # that was scanned and needs nothing equals one that was proved whole before: there is nothing to look for.
        if all("changes" in part for part in parts) and not any(
            not plan.empty and changed_since(project.manifests[root.key], root) for root, _, plan, _ in plans
        ):
            fields["spec"] = spec
            body += spec_body
        job.state = "staging"
        try:
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
                started=started,
                rescan=self._rescan(root.key, order, kind, config),
            )
            pushed[root.key].held.save(self._places.state)
        return pushed, started

    def _rescan(self, key: str, order: Order, kind: Kind, config: Config) -> Callable[[], Manifest]:
        return lambda: self.project(order, kind, config).manifests[key]

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
            roots=[asdict(root) for root in project.roots],
            options={"must_be_remote": order.options.must_be_remote, "class": lease.view.worker_class},
        )

    def _begin(self, running: Running, caller: Session) -> None:
        running.add(caller)
        caller.on_signal = lambda _: running.cancel(caller)
        caller.on_resize = lambda rows, cols: self._resize(running, rows, cols)
        with self._lock:
            self._active[running.job.id] = running
        threading.Thread(
            target=follow, args=(running, self._pool, self._store.put_job), name=running.job.id, daemon=True
        ).start()
        if caller.cancelled:
            running.cancel(caller)

    def _resize(self, running: Running, rows: int, cols: int) -> None:
        with contextlib.suppress(RchError):
            running.member.executor.request("resize", {"job": running.job.id, "rows": rows, "cols": cols})

    def _connect_input(self, running: Running, order: Order, caller: Session) -> None:
        if wants_stdin(order, running.kind):
            threading.Thread(target=self._forward_stdin, args=(running, caller), name="stdin", daemon=True).start()

    def _resume_input(self, running: Running, order: Order, caller: Session) -> None:
        """After a reconnect: the worker says how much it has, the caller goes on behind that."""
        if not wants_stdin(order, running.kind) or running.ended.is_set():
            return
        with contextlib.suppress(RchError):
            answer = running.member.executor.request("stdin", {"job": running.job.id, "eof": False}, timeout_s=10)
            total = answer.fields.get("total")
            if type(total) is int and total >= 0:
                caller.stdin_taken(total)
                arguments = (running, caller, total)
                threading.Thread(target=self._forward_stdin, args=arguments, name="stdin", daemon=True).start()

    def _forward_stdin(self, running: Running, caller: Session, total: int = 0) -> None:
        """The caller's stdin from position *total* on to the job, with its end; stops when either is gone."""
        pending, ended = b"", False
        while not running.ended.is_set():
            if not pending and not ended:
                pending, ended = caller.take_stdin(256 * 1024, 1.0)
                if not pending and not ended:
                    if caller.gone:
                        return
                    continue
            try:
                answer = running.member.executor.request(
                    "stdin", {"job": running.job.id, "eof": ended}, pending, timeout_s=30
                )
            except Unreachable:
                time.sleep(0.5)  # the follower reconnects; what was not accepted is sent again
                continue
            except RchError:
                return  # the job has ended or does not read
            accepted = answer.fields.get("accepted")
            taken = accepted if type(accepted) is int and 0 <= accepted <= len(pending) else len(pending)
            pending = pending[taken:]
            total += taken
            if taken:
                caller.stdin_taken(total)
            if ended and not pending:
                return
            if pending and taken == 0:
                time.sleep(0.02)  # the job reads slowly; its buffer there is full

    # -- run ----------------------------------------------------------------------------------------------------

    def hold_back(self, running: Running, order: Order, config: Config) -> bool:
        """Keep the output until the end is known: asked for, or a red result would be repeated here (HB-08).

        A terminal is never held back: people want to see that something happens.
        """
        if not config.execution.streaming_output:
            return True
        return order.fds["1"] != "tty" and self._may_repeat(running, order)

    def _may_repeat(self, running: Running, order: Order) -> bool:
        if order.options.must_be_remote or running.kind.name == FREE_COMMAND.name:
            return False
        worker_class = str(running.job.options.get("class", ""))
        return not self._store.was_green(running.job.project, running.kind.name, worker_class)

    def repeat_red_here(self, running: Running, order: Order) -> bool:
        """A red result of what was never green on that class of worker is repeated here (lessons HB-08)."""
        rc = running.rc or {}
        red = rc.get("reason") == "exited" and rc.get("code") != 0
        return red and self._may_repeat(running, order)

    def red_there(self, running: Running) -> NotOffloadable:
        """The reason of that repetition; carries what has to be remembered if it is green here."""
        return RedThere(running)

    def relay_log(self, running: Running, order: Order, caller: Session, *, until_end_only: bool) -> bool:
        """The log to this caller, from its offset, until the job has ended; False when the caller has gone.

        until_end_only: wait for the end and send nothing.
        """
        offset = order.attach_offset
        while not (caller.gone or (caller.cancelled and running.ended.is_set())):
            if until_end_only:
                if running.ended.wait(0.5):
                    break
                continue
            data = running.log.read(offset, wait_s=1.0)
            if data:
                offset += len(data)
                caller.log(offset, data)
            elif running.ended.is_set() and offset >= running.log.size:
                break
            elif running.log.ended:
                running.ended.wait(0.5)  # the log is whole, the result is being written down
        return not caller.gone

    # -- return -------------------------------------------------------------------------------------------------

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
            identity=next((c.proved[root.path] for c in running.callers if root.path in c.proved), None),
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
            then = self._store.root_clock(running.roots[0].key, running.name) if running.roots else None
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
        self._forget_active(running, collect=False)

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

    def settle(self, job_id: str, caller: Session) -> None:
        """After the caller has its status: collect the job there, pack its log here, once nobody waits for it."""
        with self._lock:
            running = self._active.get(job_id)
        if running is None:
            return
        running.leave(caller)
        if not running.waiting() and running.job.products != "undelivered":
            self._forget_active(running, collect=True)

    def _retire(self, roots: tuple[Root, ...]) -> None:
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
            self._forget_active(running, collect=True)

    def give_up(self, running: Running) -> None:
        """Nobody wants this job's products: end it there and forget it."""
        if running.rc is None:
            with contextlib.suppress(RchError):
                running.member.executor.request("signal", {"job": running.job.id, "signal": "cancel"}, timeout_s=5)
        running.job.products = "none"
        self._store.put_job(running.job)
        self._forget_active(running, collect=True)

    def _forget_active(self, running: Running, *, collect: bool) -> None:
        with self._lock:
            self._active.pop(running.job.id, None)
        with contextlib.suppress(RchError):
            running.member.executor.request("release", {"job": running.job.id, "collect": collect}, timeout_s=30)
        running.locked = False
        with contextlib.suppress(OSError):
            running.log.pack()

    # -- local --------------------------------------------------------------------------------------------------

    def run_here(
        self, reason: NotOffloadable, kind: Kind | None, order: Order, caller: Session, config: Config | None
    ) -> None:
        """Grant the caller the run of its own command, and remember how it ended."""
        if config is None:
            with contextlib.suppress(RchError):
                config = self.config_for(order)
        offloadable = kind is not None and reason.code not in SILENT
        job = Job(
            id=f"j-{secrets.token_hex(5)}",
            key="",
            command=list(order.argv),
            cwd=order.cwd,
            kind=kind.name if kind else "",
            state="running",
            worker="here",
            reason=reason.code,
            times={"created": time.time(), "started": time.time()},
        )
        caller.say(
            Frame.LOCAL,
            code=reason.code,
            reason=" ".join(reason.message.split()),
            hint=reason.hint,
            slots=(cores_wanted(order.words or order.argv, kind) or 1) if kind else 0,
            env=dict(config.execution.env) if config else {},
            hooks={"on_fallback": config.hooks.on_fallback if config and offloadable else ""},
            quiet=not offloadable or (kind is not None and kind.name.startswith("cc.")),
        )
        _log.info("local", command=order.argv.shown()[:500], code=reason.code, reason=reason.message)
        if not offloadable:
            return
        self._store.put_job(job)
        done = caller.wait_local()
        status = done.get("status") if done else None
        job.state = "lost" if done is None else ("done" if status == 0 else "failed")
        job.exit_status = status if type(status) is int else None
        job.times["ended"] = time.time()
        self._store.put_job(job)
        if isinstance(reason, RedThere) and status == 0:
            why = f"{order.argv.shown()[:80]} failed on {reason.worker}, passed here"
            self._store.mark_unportable(reason.project, reason.worker_class, why)
            _log.warning("unportable", project=reason.project, worker_class=reason.worker_class, why=why)

    # -- coming back --------------------------------------------------------------------------------------------

    def returning_requester(self, project: Project, order: Order, kind: Kind, caller: Session) -> Running | None:
        """The job of an identical command on an identical tree that nobody has taken home (lessons EX-03)."""
        if order.options.no_cache or order.options.dry_run:
            return None
        job = self._store.latest_with_key(key_of(project, order, kind))
        if job is None:
            return None
        with self._lock:
            running = self._active.get(job.id)
        if running is None or running.waiting() or running.cancel_sent or running.kind.name != kind.name:
            return None
        self._join(running, caller)
        caller.say(Frame.ACCEPTED, job=job.id, worker=running.name, kind=kind.name)
        return running

    def adopt_unfinished(self) -> None:
        """After a restart: find every job that was under way, and follow it again; orders wait for that."""
        try:
            self._adopt_unfinished()
        finally:
            self._adopted.set()

    def _adopt_unfinished(self) -> None:
        self._pool.refresh()
        for job in self._store.unfinished():
            member = self._pool.member(job.worker)
            roots = tuple(root_from(r) for r in job.roots)
            if member is None or job.state == "queued" or not roots:
                job.state, job.reason = (
                    ("lost", "rchd stopped before it started")
                    if job.worker != "here"
                    else (
                        "lost",
                        "rchd stopped meanwhile",
                    )
                )
                self._store.put_job(job)
                continue
            running = Running(
                job=job,
                kind=FREE_COMMAND if job.kind == FREE_COMMAND.name else kind_named(job.kind),
                member=member,
                log=JobLog(rooms.job_dir(self._places, job.id)),
                roots=roots,
                pushed=None,
                locked=False,
            )
            with self._lock:
                self._active[job.id] = running
            threading.Thread(
                target=follow, args=(running, self._pool, self._store.put_job), name=job.id, daemon=True
            ).start()

    # -- management ---------------------------------------------------------------------------------------------

    def running(self) -> list[str]:
        """Ids of the jobs under way."""
        with self._lock:
            return [r.job.id for r in self._active.values() if not r.ended.is_set()]

    def log_of(self, job_id: str) -> JobLog | None:
        """The log of a job under way."""
        with self._lock:
            running = self._active.get(job_id)
        return running.log if running else None

    def signal(self, job: Job, name: str) -> None:
        """`rch cancel` and friends."""
        with self._lock:
            running = self._active.get(job.id)
        if running is None:
            raise UsageError(f"job {job.id} is not under way", what=job.id)
        running.cancel_sent = running.cancel_sent or name == "cancel"
        running.member.executor.request("signal", {"job": job.id, "signal": name}, timeout_s=10)

    def fetch(self, job: Job) -> Job:
        """`rch fetch`: complete the return of an undelivered job while its directory lives."""
        if job.products != "undelivered":
            return job
        with self._lock:
            running = self._active.get(job.id)
        if running is None:
            member = self._pool.member(job.worker)
            if member is None:
                raise Unreachable(f"{job.worker} is not in the inventory any more", host=job.worker)
            running = Running(
                job=job,
                kind=FREE_COMMAND if job.kind == FREE_COMMAND.name else kind_named(job.kind),
                member=member,
                log=JobLog(rooms.job_dir(self._places, job.id)),
                roots=tuple(root_from(r) for r in job.roots),
                pushed=None,
                locked=False,
            )
            running.rc = {"reason": "exited", "code": job.exit_status}
            running.ended.set()
        running.delivery_error = None
        with self._locks(running.roots):
            returned = self.deliver(running, load_config(job.cwd, dict(os.environ), state_dir=self._places.state))
        self.finished(running, returned, job.times.get("ended", time.time()))
        self._forget_active(running, collect=True)
        return running.job

    def probe(self, member: Member) -> dict[str, Any]:
        """Both planes on connections of their own."""
        return probe(member, self._places, self._client)

    def fault(self, member: Member, fault: Fault) -> None:
        """A fault before the start; the next worker is tried."""
        _log.warning("fault", worker=member.worker.name, error=fault.label, message=fault.message)
        if isinstance(fault, Unreachable):
            self._pool.mark_down(member, fault)

    def code_of(self, error: RchError) -> str:
        """The reason code that a fault means when the command runs here because of it."""
        if isinstance(error, ToolMissing):
            return "capability-missing"
        if isinstance(error, DiskFull):
            return "disk-full"
        return "unreachable"

    def dry_run_text(self, order: Order, segment: Segment, project: Project, lease: Lease) -> str:
        """What `--dry-run` prints (coverage B-8)."""
        free = lease.view.slots_total - lease.view.slots_used
        kind = segment.kind.name if segment.kind else ""
        return (
            f"[rch] dry run: {order.argv.shown()} · offload · {kind} · {segment.confidence * 100:.0f} % · "
            f"root {project.roots[0].path} · worker {lease.member.worker.name} "
            f"({free}/{lease.view.slots_total} slots free)"
        )

    def stop(self) -> None:
        """No new orders; jobs go on under their supervisors."""
        self._stopping = True
        self._modes.close()


class RedThere(NotOffloadable):
    """Red on a class of worker where this project never was green; green here means unportable."""

    def __init__(self, running: Running) -> None:
        super().__init__(
            f"failed on {running.name}, where this project never built before; repeated here",
            code="red-there",
            hint="rch doctor .",
        )
        self.worker = running.name
        self.worker_class = str(running.job.options.get("class", ""))
        self.project = running.job.project


SILENT = frozenset({"not-a-build", "never-intercept", "disabled", "on-worker", "bypass", "excluded", "toolchain-off"})
"""Reasons of commands that could not have been offloaded: no line on stderr."""

HINTS = {
    "toolchain-mismatch": "ansible-playbook playbooks/workers.yml",
    "clock-skew": "rch doctor",
    "unreachable": "rch workers probe",
    "capability-missing": "rch doctor",
    "no-candidate": "rch status",
}


def read_small(path: str) -> bytes | None:
    """A manifest for the preflight; None when there is none that could be one."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def names_in(path: str) -> list[str] | None:
    """The names in a directory for the preflight; None when it cannot be read."""
    try:
        return os.listdir(path)
    except OSError:
        return None


def settings_of(config: Config) -> ProjectSettings:
    """The part of the configuration that says what travels."""
    return ProjectSettings(
        exclude_patterns=tuple(config.transfer.exclude.patterns),
        exclude_extra=tuple(config.transfer.exclude_extra),
        force_include=tuple(config.transfer.force_include),
        git=config.transfer.git,
        max_transfer_size_mb=config.max_transfer_mb,
        execution_env=dict(config.execution.env),
        id=config.project.id or "",
        name=config.project.name or "",
    )


def wanted_of(order: Order, kind: Kind, project: Project, config: Config, cpus: int) -> Wanted:
    """What the command asks of a worker."""
    slots = cores_wanted(order.words, kind) or config.execution.cores or min(SLOTS_BY_DEFAULT, max(1, cpus))
    if kind.name == FREE_COMMAND.name:
        slots = config.execution.cores or 1
    allowed = [frozenset(names) for names in config.allowed]
    switches = config.switches
    if switches.worker:
        allowed.append(frozenset({switches.worker}))
    if switches.workers:
        allowed.append(frozenset(switches.workers))
    tag = order.options.tag or switches.tag or ""
    return Wanted(
        slots=slots,
        tools=project.tools,
        rust_targets=rust_targets(order.words, kind),
        pinned=order.options.worker,
        allowed=tuple(allowed),
        blocked=frozenset(config.workers.blocked),
        tags=tuple(part.strip() for part in tag.split(",") if part.strip()),
        min_speed_score=float(config.workers.min_speed_score),
        returns_files=kind.products is Products.FILES,
    )


NO_INPUT = frozenset(
    {
        "cargo.build",
        "cargo.check",
        "cargo.clippy",
        "cargo.doc",
        "cargo.rustc",
        "cc.compile",
        "cc.check",
        "go.build",
        "rustc",
    }
)
"""Kinds that never read their input: `while read x; do cargo build; done <list` keeps its list."""


def wants_stdin(order: Order, kind: Kind) -> bool:
    """Is the caller's stdin forwarded? A pipe, file or socket is, a terminal only with -i."""
    nature = order.fds["0"]
    if kind.name in NO_INPUT:
        return False
    return nature in ("pipe", "file") or (nature == "tty" and order.options.interactive)


def network_of(order: Order, config: Config) -> str:
    """A caller without network never gets one (lessons EX-10); one that came through the spool counts as such."""
    return "none" if order.spooled or config.execution.network == "none" else "host"


def build_dir_policy(config: Config, kind: Kind) -> BuildDir:
    """``artifacts.build_dir`` with "auto" resolved (design.md 6.4)."""
    if config.artifacts.build_dir != "auto":
        return BuildDir(config.artifacts.build_dir)
    return BuildDir.FULL if kind.products is Products.FILES else BuildDir.NONE


def memory_limit(member: Member, config: Config) -> int | None:
    """A ceiling that is never tighter than the machine itself (``execution.resource_limits``)."""
    total = member.worker.observed.facts.get("memory_bytes")
    return total if config.execution.resource_limits and type(total) is int and total > 0 else None


def bulk_settings(config: Config, member: Member) -> BulkSettings:
    """Levels and patience of rsync for this command (coverage A-18; RCH_COMPRESSION beats both keys)."""
    loopback = member.worker.declared.host in ("localhost", "::1") or member.worker.declared.host.startswith("127.")
    forced = config.switches.compression

    def level(setting: int | str, direction: str) -> int:
        return compression_level(
            forced if forced is not None else setting,
            direction=direction,
            mbit_s=None,
            cpu_score=None,
            loopback=loopback,
        )

    return BulkSettings(
        no_progress_s=config.transfer.timeout_sec,
        push_level=level(config.transfer.compression_level, "push"),
        return_level=level(config.artifacts.compression_level, "return"),
    )


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


def root_from(row: Mapping[str, Any]) -> Root:
    """A Root as a job's record holds it."""
    return Root(
        path=AbsPath(str(row["path"])),
        real=AbsPath(str(row["real"])),
        key=str(row["key"]),
        build_dirs=tuple(RelPath(str(d)) for d in row.get("build_dirs", ())),
    )


def shown_push(job: Job) -> str:
    """ "pushed 14 files, 9.1 kB, 1 round trip"."""
    size = job.pushed.get("bytes", 0)
    return (
        f"pushed {job.pushed.get('files', 0)} files, {size / 1000:.1f} kB, {job.pushed.get('requests', 0)} round trips"
    )


__all__ = ["FINAL", "Desk", "Lease"]
