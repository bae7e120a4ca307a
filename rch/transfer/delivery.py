"""return: the Delta asked for, planned, fetched, verified, placed, recorded. The acting half of ``returns``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rch.errors import TransferFault, Unreachable
from rch.execute.executor import Executor
from rch.paths import AbsPath, RelPath
from rch.project.beneath import Beneath
from rch.project.model import Manifest, Root
from rch.transfer._retry import with_retries
from rch.transfer._steps import Hook, no_hook
from rch.transfer.held import HeldIndex, remember_tree_paths
from rch.transfer.machine import this_machine
from rch.transfer.model import (
    BuildDir,
    Conflict,
    ConflictKind,
    Delta,
    LocalBuild,
    Placement,
    Returned,
    ReturnPlan,
    Stamp,
)
from rch.transfer.place import place
from rch.transfer.returns import NothingHere, new_tree_paths, plan_return, settle, unhashed
from rch.transfer.scope import Classes
from rch.transfer.snapshot import TICK_NS, changed_since, hash_beneath
from rch.transfer.staging import Fetched, Staging, fetch, refuse_foreign, unverified
from rch.transfer.validate import check_tree, parse_delta, refuse
from rch.worker.protocol import INLINE_LIMIT, Entry

DELTA_TIMEOUT_S = 300.0
"""The worker walks the tree and hashes what changed; 50,000 files take about a second, a full disk its time."""

AHEAD_NS = 2_000_000_000
"""A returned time further ahead than that was set by the job itself (``touch -d``), not by the worker's clock: the
clocks of workers that return files differ by at most 1 s (PM-04)."""


def ask_delta(executor: Executor, job: str, root: Root, held: HeldIndex, manifest: Manifest) -> Delta:
    """What the job left in the worker's tree, validated. Raises HostileAnswer, Unreachable, WorkerFault."""
    host = executor.worker.name
    fields = {"job": job, "root": root.key, "since": held.since, "inline": INLINE_LIMIT}
    answer = executor.request("delta", fields, timeout_s=DELTA_TIMEOUT_S)
    delta = parse_delta(answer.fields, answer.body, host)
    there = held.apply_delta(delta).entries
    check_tree(there, host)
    _refuse_loss(delta, there, manifest, host)
    return delta


def _refuse_loss(delta: Delta, there: Mapping[str, Entry], manifest: Manifest, host: str) -> None:
    """A tree that was lost there looks like a job that deleted everything; it must not empty the project here."""
    files = [path for path, entry in manifest.entries.items() if entry.type == "f"]
    if not files:
        return
    lost = sum(path not in there for path in files)
    # of a difference, the worker says what was deleted; of a complete listing, only that it is not there
    if lost == len(files) or (delta.complete and lost * 2 > len(files)):
        raise refuse(host, f"a tree without {lost} of the {len(files)} files that were sent", files)


def return_delta(
    executor: Executor,
    job: str,
    root: Root,
    manifest: Manifest,
    held: HeldIndex,
    *,
    state_dir: AbsPath,
    scan: Callable[[], LocalBuild],
    policy: BuildDir,
    extra_patterns: Sequence[str] = (),
    machine: str | None = "",
    identity: tuple[int, int] | None = None,
    pause: Callable[[float], None] = time.sleep,
    hook: Hook = no_hook,
    admit: Callable[[], None] = lambda: None,
) -> Returned:
    """Make the files here those of the job *job*, after every ending that reached its process (lessons AR-04).

    manifest, held: as the push left them (``Pushed``). scan: the build directories here, asked only when needed; the
    caller may have made it while the job ran. identity: (device, inode) that the caller proved for the root.
    machine: what executables must be made for, "" is this machine, None checks nothing (cross builds).
    admit: asked once the delta is here, before anything is planned or placed; what it raises ends the return.
    The record of what the worker holds is written only when all is in place, so a crash leads to more being sent.
    Raises ProductsUnverified when not every file arrived whole (nothing is placed then), DiskFull, HostileAnswer, and
    Unreachable when the control channel is gone, and the root's lock with it: to be asked again with both.
    """
    delivery = _Delivery(
        executor,
        job,
        root,
        manifest,
        held,
        state_dir,
        scan,
        policy,
        extra_patterns,
        this_machine() if machine == "" else machine,
        identity,
        pause,
        hook,
        admit,
    )
    return delivery.deliver()


@dataclass
class _Delivery:
    """One return; the fields are the arguments of :func:`return_delta`."""

    executor: Executor
    job: str
    root: Root
    manifest: Manifest
    held: HeldIndex
    state_dir: AbsPath
    scan: Callable[[], LocalBuild]
    policy: BuildDir
    extra_patterns: Sequence[str]
    machine: str | None
    identity: tuple[int, int] | None
    pause: Callable[[float], None]
    hook: Hook
    admit: Callable[[], None]
    requests: int = 0

    @property
    def host(self) -> str:
        return self.executor.worker.name

    def deliver(self) -> Returned:
        delta = self._delta()
        self.admit()
        looks = self.policy is not BuildDir.NONE or bool(self.extra_patterns) or bool(self.held.owed)
        local: LocalBuild = self.scan() if looks and self.root.build_dirs else NothingHere()
        unsteady = _hash_needed(local, unhashed(delta, self.held, self.manifest, self.root, local))
        if unsteady:
            conflicts = tuple(Conflict(RelPath(path), ConflictKind.BUILD) for path in unsteady)
            return Returned(conflicts=conflicts, requests=self.requests)
        new_paths = new_tree_paths(delta, self.manifest, self.root)
        unsent = self._unsent(new_paths)
        plan = self._plan(delta, local, unsent, ())
        changed: list[str] = []
        if not plan.empty or plan.conflicts:
            changed = self._edited(changed_since(self.manifest, self.root), delta)
            if changed:
                plan = self._plan(delta, local, unsent, changed)
        if _needs_repair(plan.conflicts):
            # the command runs here next, from the state that is here now: what it wrote there would be applied twice
            self._remember_unsent(plan.conflicts)
            return Returned(conflicts=plan.conflicts, requests=self.requests, capped=plan.cap_ns is not None)
        present = self._unlisted(plan)
        spent, placement = self._bring_and_place(plan, delta, local, new_paths)
        conflicts = (*plan.conflicts, *placement.conflicts)
        if not _needs_repair(conflicts):
            capped = self._after(plan, placement, {*changed, *present})
            self._settle(delta, conflicts)
        else:
            self._remember_unsent(conflicts)
            capped = plan.cap_ns is not None
        return Returned(
            files=spent.files,
            size_bytes=spent.size_bytes,
            metadata=len(placement.placed) - sum(p.entry.type == "f" for p in placement.placed.values()),
            deletes=len(placement.removed),
            requests=self.requests + spent.requests,
            processes=spent.processes,
            conflicts=conflicts,
            capped=capped,
            placement=placement,
        )

    def _delta(self) -> Delta:
        def ask() -> Delta:
            self.requests += 1
            return ask_delta(self.executor, self.job, self.root, self.held, self.manifest)

        try:
            return with_retries(ask, (TransferFault, Unreachable), self.pause, sensible=lambda: self.executor.connected)
        except (TransferFault, Unreachable) as error:
            if not self.executor.connected:
                raise
            raise unverified(self.host, self.job, (), error.message) from error

    def _plan(
        self,
        delta: Delta,
        local: LocalBuild,
        unsent: Mapping[str, tuple[Entry, Stamp]],
        changed: Collection[str],
    ) -> ReturnPlan:
        return plan_return(
            delta,
            self.held,
            self.manifest,
            self.root,
            local,
            self.policy,
            unsent=unsent,
            changed_here=changed,
            extra_patterns=self.extra_patterns,
        )

    def _unsent(self, entries: Sequence[Entry]) -> dict[str, tuple[Entry, Stamp]]:
        """Paths that the job made and that exist here without having been sent."""
        found: dict[str, tuple[Entry, Stamp]] = {}
        if not entries:
            return found
        taken = self.manifest.taken_ns - TICK_NS
        with Beneath(self.root.real) as tree:
            for entry in entries:
                status = tree.lstat(entry.path)
                if status is None:
                    continue
                now = Stamp.of(status)
                content = ""
                if now.type == "f" and entry.type == "f" and now.size == entry.size:
                    content = hash_beneath(tree, entry.path)
                elif now.type == "l":
                    content = tree.readlink(entry.path) or ""
                if now.ctime_ns >= taken and now.type != "d" and content != entry.content:
                    continue  # made here while the job ran: placement will find it and keep it
                found[entry.path] = (
                    Entry(entry.path, now.type if now.type != "?" else "f", now.mode, now.size, now.mtime_ns, content),
                    now,
                )
        return found

    def _edited(self, changed: Sequence[str], delta: Delta) -> list[str]:
        """Those of *changed* that somebody here changed: an interrupted return of this very job placed the others."""
        there = self.held.apply_delta(delta).entries
        edited = []
        with Beneath(self.root.real) as tree:
            for path in changed:
                entry, status = there.get(path), tree.lstat(path)
                if status is None or entry is None:
                    same = status is None and entry is None
                else:
                    now = Stamp.of(status)
                    same = now.type == entry.type and (
                        now.type == "d"
                        or (now.type == "l" and tree.readlink(path) == entry.content)
                        or (now.size == entry.size and hash_beneath(tree, path) == entry.content)
                    )
                if not same:
                    edited.append(path)
        return edited

    def _bring_and_place(
        self, plan: ReturnPlan, delta: Delta, local: LocalBuild, new_paths: Sequence[Entry]
    ) -> tuple[Fetched, Placement]:
        if plan.empty:
            return Fetched(), Placement()
        staging = Staging(self.state_dir, self.root.key, self.job)
        try:
            staging.open()
            spent = fetch(
                self.executor,
                self.job,
                self.root,
                plan,
                delta.bodies,
                staging,
                here=self._held_here(local),
                pause=self.pause,
            )
            if self.machine is not None:
                refuse_foreign(plan, staging, self.job, self.host, self.machine)
            placement = place(
                plan,
                staging,
                self.root,
                state_dir=self.state_dir,
                job=self.job,
                taken_ns=self.manifest.taken_ns,
                tree_paths=[e.path for e in new_paths],
                identity=self.identity,
                hook=self.hook,
            )
        except TransferFault as error:
            raise unverified(self.host, self.job, [p.entry.path for p in plan.placings], error.message) from error
        finally:
            staging.remove()
        return spent, placement

    def _held_here(self, local: LocalBuild) -> Iterator[Entry]:
        for path in local:
            entry = local[path]
            if entry.content:
                yield entry
        made_up = self.manifest.sources
        yield from (e for e in self.manifest.entries.values() if e.path not in made_up)

    def _unlisted(self, plan: ReturnPlan) -> set[str]:
        """What lies, before we place anything, in the directories whose times that will change, beside the manifest."""
        changing = [*(p.entry.path for p in plan.placings), *(r.path for r in plan.removals)]
        directories = {"", *(p.rpartition("/")[0] for p in changing), *(p.entry.path for p in plan.placings)}
        found: set[str] = set()
        classes = Classes(self.root, self.manifest)
        for directory in directories:
            if classes.is_build(directory):
                continue
            with contextlib.suppress(OSError):
                names = os.listdir(os.path.join(self.root.real, directory))
                found.update(f"{directory}/{name}" if directory else name for name in names)
        return found - self.manifest.entries.keys()

    def _after(self, plan: ReturnPlan, placement: Placement, seen: Collection[str]) -> bool:
        """Times of this machine must order what was built and what is edited next (PM-04). True if times were capped.

        The worker's clock may be ahead by up to a second: an edit made in that second would look older than the
        products. So the command does not end before the newest of them is past, and sources that changed up to then
        cap all times at the snapshot's.
        """
        if not placement.placed:
            return plan.cap_ns is not None
        now = time.time_ns()
        newest = max(
            (p.entry.mtime_ns for p in placement.placed.values() if p.entry.mtime_ns <= now + AHEAD_NS), default=0
        )
        if newest + TICK_NS > now:
            self.pause((newest + TICK_NS - now) / 1e9)
        if plan.cap_ns is not None:
            return True
        ours = {*placement.placed, *placement.removed, *(p.entry.path for p in plan.placings), *seen}
        late = [path for path in changed_since(self.manifest, self.root) if path not in ours]
        if not late:
            return False
        with Beneath(self.root.real) as tree:
            for path, (entry, status) in placement.placed.items():
                current = tree.lstat(path)
                if (
                    entry.mtime_ns > self.manifest.taken_ns
                    and current is not None
                    and Stamp.of(current) == Stamp.of(status)
                ):
                    fd, name = tree.parent(path)
                    time_ns = self.manifest.taken_ns
                    os.utime(name, ns=(time_ns, time_ns), dir_fd=fd, follow_symlinks=False)
        return True

    def _settle(self, delta: Delta, conflicts: Sequence[Conflict]) -> None:
        after = settle(self.held, delta, conflicts, self.manifest, self.root, self.policy, self.extra_patterns)
        after.save(self.state_dir)

    def _remember_unsent(self, conflicts: Sequence[Conflict]) -> None:
        """From the next job on these files are sent, so that both sides talk of the same one."""
        unsent = [c.path for c in conflicts if c.kind is ConflictKind.UNSENT]
        remember_tree_paths(self.state_dir, self.root.key, self.root.real, unsent)


def _hash_needed(local: LocalBuild, paths: Sequence[str]) -> list[str]:
    """Hash *paths*; answers those that are not any more what the scan saw: somebody builds here at this moment."""
    unsteady = []
    for path in paths:
        scanned = Stamp.of(local.status(path))
        if not local.hash_of(path) or Stamp.of(local.status(path)) != scanned:
            unsteady.append(path)
    return unsteady


def _needs_repair(conflicts: Sequence[Conflict]) -> bool:
    return any(c.kind is not ConflictKind.SOURCE for c in conflicts)
