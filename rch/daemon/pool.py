"""The workers as rchd holds them: one kept-open executor each, watched by pings, with what is known of their state.

A request path never connects to a worker that is known to be down before its next probe (lessons SQ-06), and
recovery needs no traffic: the watch thread probes on its own (HB-01).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from rch.errors import ConfigError, Fault, RchError, Unreachable
from rch.execute.executor import Executor, Hello
from rch.execute.local import LocalExecutor
from rch.execute.ssh import SshExecutor
from rch.fleet.model import Registry, Worker
from rch.fleet.registry import load_registry, read_registry, refresh_if_stale
from rch.fleet.toolchains import equipment, identities, rust_targets, shown, worker_class
from rch.paths import AbsPath
from rch.schedule.choose import WorkerView

PING_S = 5.0
"""A ping every 5 s, two misses mark the worker unreachable (design.md section 3)."""

WATCHERS = 16
"""Threads that look after workers; more workers than that take turns within one interval."""

RETRY_S = (2.0, 5.0, 10.0, 30.0)
"""Seconds until the next probe of a worker that is down; the last one repeats."""


@dataclass
class Member:
    """One worker: declared and observed facts, its executor, its state, guarded by ``lock``."""

    worker: Worker
    executor: Executor
    lock: threading.Lock = field(default_factory=threading.Lock)
    state: str = "unknown"
    reason: str = ""
    hint: str = ""
    hello: Hello | None = None
    last_heartbeat: float = 0.0
    latency_s: float = 0.0
    slots_used: int = 0
    health: dict[str, Any] = field(default_factory=dict)
    misses: int = 0
    next_health: float = 0.0
    failures: int = 0
    retry_at: float = 0.0

    def ready(self) -> bool:
        """Connected, as far as is known."""
        return self.state in ("healthy", "degraded") and self.hello is not None


class Pool:
    """All workers of the registry.

    make_executor: replaced by tests; takes the worker, gives the executor for its ``executor`` value.
    """

    def __init__(
        self,
        state_dir: AbsPath,
        run_dir: AbsPath,
        client: str,
        *,
        inventory: AbsPath | None = None,
        make_executor: Callable[[Worker], Executor] | None = None,
        heartbeat_s: float = 30.0,
    ) -> None:
        self._state_dir = state_dir
        self._run_dir = run_dir
        self._client = client
        self._inventory = inventory
        self._make = make_executor or self._executor
        self._heartbeat_s = heartbeat_s
        self._lock = threading.Lock()
        self._members: dict[str, Member] = {}
        self._digest = ""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.registry_error = ""
        self.log = structlog.get_logger("pool")

    # -- membership ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the snapshot and begin to watch. Never raises: a broken inventory is a reason, not an end."""
        try:
            self._adopt(read_registry(self._state_dir))
        except ConfigError as error:
            self.registry_error = error.message
        thread = threading.Thread(target=self._watch, name="pool-watch", daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """Close every connection; no master and no channel is left."""
        self._stop.set()
        for member in self.members():
            member.executor.close()
        for thread in self._threads:
            thread.join(5)

    def refresh(self) -> None:
        """Take over a changed inventory or changed facts now."""
        try:
            registry = refresh_if_stale(self._state_dir, self._inventory) or read_registry(self._state_dir)
            self.registry_error = ""
        except ConfigError as error:
            self.registry_error = error.message
            return
        self._adopt(registry)

    def load(self) -> None:
        """Compile the inventory if there is no usable snapshot. For the first request only; half a second."""
        try:
            self._adopt(load_registry(self._state_dir, self._inventory))
            self.registry_error = ""
        except ConfigError as error:
            self.registry_error = error.message

    def members(self) -> list[Member]:
        """All workers that are enabled or not, by name."""
        with self._lock:
            return [self._members[name] for name in sorted(self._members)]

    def member(self, name: str) -> Member | None:
        """The worker of that name, or None."""
        with self._lock:
            return self._members.get(name)

    def _adopt(self, registry: Registry) -> None:
        gone: list[Member] = []
        with self._lock:
            for name, member in list(self._members.items()):
                new = registry.workers.get(name)
                if new is None or new.declared != member.worker.declared:
                    gone.append(self._members.pop(name))
                else:
                    member.worker = new
            for name, worker in registry.workers.items():
                if name not in self._members:
                    self._members[name] = Member(worker, self._make(worker))
            self._digest = registry.digest
        for member in gone:
            member.executor.close()

    def _executor(self, worker: Worker) -> Executor:
        if worker.declared.executor == "local":
            directory = os.path.join(self._state_dir, "local-worker", worker.name)
            return LocalExecutor(worker, directory=AbsPath(directory), client=self._client)
        return SshExecutor(worker, run_dir=self._run_dir, client=self._client)

    # -- use ----------------------------------------------------------------------------------------------------

    def connect(self, member: Member) -> Hello:
        """A usable connection to the worker, or its Fault; a worker known to be down answers at once."""
        if not member.ready() and time.monotonic() < member.retry_at:
            raise Unreachable(
                f"{member.worker.name}: {member.reason}", host=member.worker.name, stage="connect", hint=member.hint
            )
        started = time.monotonic()
        try:
            hello = member.executor.connect()
        except RchError as error:
            self.mark_down(member, error)
            raise
        with member.lock:
            if not member.ready():
                self.log.info("worker up", worker=member.worker.name, seconds=round(time.monotonic() - started, 3))
            member.state, member.reason, member.hint = "healthy", "", ""
            member.hello = hello
            member.failures = 0
            member.last_heartbeat = time.time()
        return hello

    def mark_down(self, member: Member, error: RchError) -> None:
        """Remember that the worker cannot be reached, until its next probe."""
        with member.lock:
            member.state = "unreachable"
            member.reason = error.message.removeprefix(f"{member.worker.name}: ")
            member.hint = error.hint
            member.hello = None
            member.retry_at = time.monotonic() + RETRY_S[min(member.failures, len(RETRY_S) - 1)]
            member.failures += 1
        self.log.warning("worker down", worker=member.worker.name, reason=member.reason)

    def views(self, switches: Mapping[str, str], clocks: Callable[[str], int | None]) -> list[WorkerView]:
        """Snapshot for the choice. *clocks* gives the offset at this tree's last job on a worker."""
        return [self._view(m, switches.get(m.worker.name, ""), clocks(m.worker.name)) for m in self.members()]

    def _view(self, member: Member, switch: str, clock_then_ns: int | None) -> WorkerView:
        declared, facts = member.worker.declared, member.worker.observed.facts
        hello = member.hello
        state, reason = member.state, member.reason
        if state == "unknown":
            state = "healthy"  # not looked at yet: the request path will connect and find out
        if switch:
            state, reason = {"drain": "draining", "disable": "disabled"}[switch], "by hand"
        elif not declared.enabled:
            state, reason = "disabled", "rch_enabled is false in the inventory"
        elif state == "unreachable" and time.monotonic() >= member.retry_at:
            state = "degraded"  # due for a probe: this request may be it
        total = hello.slots_total if hello else (declared.slots or int(facts.get("cores", 1) or 1))
        score = facts.get("speed_score")
        return WorkerView(
            name=member.worker.name,
            state=state,
            state_reason=reason,
            slots_total=total,
            slots_used=member.slots_used,
            priority=declared.priority,
            tags=declared.tags,
            speed_score=float(score) if isinstance(score, (int, float)) else None,
            tools=identities(facts),
            rust_targets=rust_targets(facts),
            tools_shown=shown(facts),
            sandbox_ok=hello.sandbox_ok if hello else True,
            sandbox_why=hello.sandbox_why if hello else "",
            worker_class=worker_class(facts),
            equipment=equipment(facts),
            clock_ns=member.executor.clock_offset_ns(),
            clock_then_ns=clock_then_ns,
        )

    # -- watching -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Refresh the registry; look after each worker in a thread of its own, so a wedged one delays no other."""
        with ThreadPoolExecutor(max_workers=WATCHERS, thread_name_prefix="watch") as watchers:
            running: dict[str, Future[None]] = {}
            while True:
                for member in self.members():
                    earlier = running.get(member.worker.name)
                    if member.worker.declared.enabled and (earlier is None or earlier.done()):
                        running[member.worker.name] = watchers.submit(self._watch_one, member)
                if self._stop.wait(PING_S):
                    return
                self.refresh()

    def _watch_one(self, member: Member) -> None:
        now = time.monotonic()
        if not member.ready():
            if now >= member.retry_at:
                with contextlib.suppress(RchError):  # recorded by connect
                    self.connect(member)
            return
        try:
            started = time.monotonic()
            member.executor.request("ping", timeout_s=PING_S)
            member.latency_s = time.monotonic() - started
            member.last_heartbeat = time.time()
            member.misses = 0
            if now >= member.next_health:
                member.next_health = now + self._heartbeat_s
                member.health = dict(member.executor.request("health", timeout_s=PING_S).fields)
            used = member.health.get("slots_used")
            member.slots_used = used if type(used) is int else 0
        except Fault as error:
            member.misses += 1
            if member.misses >= 2 or not member.executor.connected:
                member.misses = 0
                self.mark_down(member, error)
                member.executor.close()
