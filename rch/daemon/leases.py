"""Which worker takes a command, for how many slots and why; and why each of the others does not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from rch.config import Config
from rch.daemon.modes import MODES, Modes, view_of
from rch.daemon.names import check_names
from rch.daemon.pool import Member, Pool
from rch.daemon.portability import Portability
from rch.daemon.requirements import Requirements
from rch.daemon.store import Store
from rch.daemon.terms import wanted_of
from rch.errors import DiskFull, Fault, NotOffloadable, RchError, ToolMissing, Unreachable
from rch.intercept.decision import Kind
from rch.order import Order
from rch.paths import AbsPath
from rch.project.model import Project
from rch.schedule.choose import Wanted, WorkerView, choose
from rch.transfer import HeldIndex

_log = structlog.get_logger("leases")


HINTS = {
    "toolchain-mismatch": "rch workers sync",
    "clock-skew": "rch doctor",
    "unreachable": "rch workers probe",
    "capability-missing": "rch doctor",
    "no-candidate": "rch status",
}


@dataclass(frozen=True)
class Lease:
    """n slots on one worker for one job, and why this worker."""

    member: Member
    view: WorkerView
    slots: int
    reason: str


class Leases:
    """Finds a worker for a command."""

    def __init__(self, state_dir: AbsPath, pool: Pool, store: Store, modes: Modes, portability: Portability) -> None:
        self._portability = portability
        self._requirements = Requirements()
        self._state = state_dir
        self._pool = pool
        self._store = store
        self._modes = modes

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
        check_names(order, config, self._pool.members())
        wanted = wanted_of(order, kind, project, config, len(os.sched_getaffinity(0)))
        refused = dict(tried)
        while True:
            views = self._views(project)
            choice = choose(wanted, views)
            for view in views:
                if view.clock_moved and view.name in choice.refused:  # once: the next command starts cold there
                    self._end_pool(project, view.name)
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
            view, admissible = candidates[0], len(choice.candidates)
            member = self._pool.member(view.name)
            if member is None:
                refused[view.name] = ("no-candidate", "left the inventory")
                continue
            try:
                hello = self._pool.connect(member)
            except RchError as error:
                refused[view.name] = (code_of(error), error.message)
                continue
            if not hello.sandbox_ok or view.clock_ns != member.executor.clock_offset_ns():
                # What the handshake told was not known when the choice was made: choose again with it.
                choice = choose(wanted, [v for v in self._views(project) if v.name == view.name])
                view = next(iter(choice.candidates), view)
            if view.clock_moved or choice.refused.get(view.name, ("", ""))[0] == "clock-skew":
                self._end_pool(project, view.name)  # refused for it once, or its kind does not mind: cold either way
            if view.name in choice.refused:
                refused[view.name] = choice.refused[view.name]
                continue
            if lacking := self._requirements.lacking(member, project):
                refused[view.name] = ("capability-missing", f"lacks {lacking}")
                continue
            slots = max(1, min(wanted.slots, hello.slots_total))
            return Lease(member, view, slots, _why(wanted, view, admissible))

    def _views(self, project: Project) -> list[WorkerView]:
        views = self._pool.views(self._store.switches(), lambda name: self._clock_then(project, name))
        return self._portability.judged(project.id, views)

    def _clock_then(self, project: Project, worker: str) -> int | None:
        known = [c for r in project.roots if (c := self._store.root_clock(r.key, worker)) is not None]
        return known[0] if known else None

    def _end_pool(self, project: Project, worker: str) -> None:
        """Times of before and after a jump of the clock do not compare (PM-04): what was built there is given up."""
        for root in project.roots:
            HeldIndex.load(self._state, root.key, worker).afresh().save(self._state)
            self._store.forget_root_clock(root.key, worker)
        _log.warning("pool ended", worker=worker, project=project.id)

    def fault(self, member: Member, fault: Fault) -> None:
        """A fault before the start; the next worker is tried."""
        _log.warning("fault", worker=member.worker.name, error=fault.label, message=fault.message)
        if isinstance(fault, Unreachable):
            self._pool.mark_down(member, fault)


def _why(wanted: Wanted, view: WorkerView, admissible: int) -> str:
    """The reason of a lease (coverage C-5)."""
    if wanted.pinned:
        return "pinned"
    if wanted.preferred and not wanted.prefers(view):
        return "fallback"
    return "only worker" if admissible == 1 else "standard"


def code_of(error: RchError) -> str:
    """The reason code that a fault means when the command runs here because of it."""
    if isinstance(error, ToolMissing):
        return "capability-missing"
    if isinstance(error, DiskFull):
        return "disk-full"
    return "unreachable"
