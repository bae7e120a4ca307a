"""A last look at every path before placement: what may be done, what has changed here meanwhile (lessons AR-03)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from rch.paths import RelPath
from rch.project.beneath import Beneath
from rch.transfer.journal import Step
from rch.transfer.model import Conflict, ConflictKind, Expected, Placing, Removal, ReturnPlan, Stamp
from rch.transfer.snapshot import TICK_NS, hash_beneath, is_unchanged
from rch.worker.protocol import Entry


@dataclass
class Survey:
    """Steps that may be taken, in order (areas and names of staged files still open), and what may not."""

    steps: list[Step] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)

    @property
    def repair_locally(self) -> bool:
        return any(c.kind is not ConflictKind.SOURCE for c in self.conflicts)


def matches(now: Stamp | None, before: Stamp | None, *, loose: bool) -> bool:
    """True if *now* is the state that a step expects. loose: ctime does not count."""
    if now is None or before is None or not loose:
        return now == before
    return now._replace(ctime_ns=0) == before._replace(ctime_ns=0)


def survey(plan: ReturnPlan, tree: Beneath, taken_ns: int) -> Survey:
    """Look at every path of *plan* below *tree*; *taken_ns* is the time of the snapshot. Reads, changes nothing."""
    return _Surveyor(plan, tree, taken_ns - TICK_NS).survey()


class _Surveyor:
    def __init__(self, plan: ReturnPlan, tree: Beneath, taken_ns: int) -> None:
        self.plan = plan
        self.tree = tree
        self.taken_ns = taken_ns
        self.found = Survey()
        self.leaving: set[str] = set()
        self.blocked: dict[str, ConflictKind] = {}
        self.parents: dict[str, None] = {}
        self.named: dict[str, int] = {}

    def survey(self) -> Survey:
        removals = [step for removal in self.plan.removals if (step := self._removal(removal)) is not None]
        # files and links first, so that directories are empty when their turn comes
        steps = [s for s in removals if s.op == "remove"] + [s for s in removals if s.op == "rmdir"]
        finishing: dict[str, Step] = {}
        for placing in self.plan.placings:
            step = self._placing(placing, finishing)
            if step is not None:
                steps.append(step)
        for path in self.parents:
            if path not in finishing:
                self._keep_directory(path, finishing)
        # deepest first: a directory that becomes read-only must not keep us from those below it
        steps += [finishing[path] for path in sorted(finishing, reverse=True)]
        self.found.steps = steps
        return self.found

    def _lstat(self, path: str) -> tuple[Stamp | None, bool]:
        status = self.tree.lstat(path)
        if status is None:
            return None, False
        return Stamp.of(status), status.st_nlink > 1

    def _conflict(self, path: str, kind: ConflictKind) -> None:
        self.blocked[path] = kind
        self.found.conflicts.append(Conflict(RelPath(path), kind))

    def _kind(self, expected: Expected, *, build: bool, now: Stamp | None) -> ConflictKind:
        if build:
            return ConflictKind.BUILD
        if expected is None and now is not None and now.ctime_ns < self.taken_ns:
            return ConflictKind.UNSENT  # it was here before the job, which never saw it
        return ConflictKind.SOURCE

    def _is_expected(self, path: str, expected: Expected, now: Stamp | None, *, loose: bool) -> bool:
        if expected is None or isinstance(expected, Stamp):
            return matches(now, expected, loose=loose)
        status = self.tree.lstat(path)
        return status is not None and is_unchanged(self.tree, expected, status, self.taken_ns)

    def _removal(self, removal: Removal) -> Step | None:
        path, build = removal.path, removal.build
        now, loose = self._lstat(path)
        if now is None:
            return None
        if removal.type == "d":
            if now.type != "d":
                self._conflict(path, self._kind(removal.expected, build=build, now=now))
                return None
            self._touch(path)
            self.leaving.add(path)
            return Step("rmdir", path, build)
        if not self._is_expected(path, removal.expected, now, loose=loose):
            self._conflict(path, self._kind(removal.expected, build=build, now=now))
            return None
        self._touch(path)
        self.leaving.add(path)
        return Step("remove", path, build, now, loose)

    def _placing(self, placing: Placing, finishing: dict[str, Step]) -> Step | None:
        entry, build = placing.entry, placing.build
        path = entry.path
        above = self._blocked_above(path)
        if above is not None:
            self._conflict(path, above)
            return None
        now, loose = self._lstat(path)
        if path in self.leaving:
            now, loose = None, False
        if entry.type == "d":
            return self._directory(placing, now, finishing)
        if self._is_expected(path, placing.expected, now, loose=loose):
            if placing.fetch or (entry.type == "l" and not _same_link(placing.expected, entry, self.tree)):
                self._touch(path, entry.mtime_ns)
                return _step("put", entry, build, now, loose=loose)
            return self._set(entry, build, now, loose=loose)
        if now is not None and self._is_same(entry, now):
            return self._set(entry, build, now, loose=loose)
        self._conflict(path, self._kind(placing.expected, build=build, now=now))
        return None

    def _set(self, entry: Entry, build: bool, now: Stamp | None, *, loose: bool) -> Step:
        """Mode and time of one name. What has further names here gets a file of its own: they are not meant."""
        own = loose and entry.type == "f"
        if own:
            self._touch(entry.path, entry.mtime_ns)
        return _step("own" if own else "set", entry, build, now, loose=loose)

    def _is_same(self, entry: Entry, now: Stamp) -> bool:
        """Somebody here made the very content that was to come."""
        if now.type != entry.type:
            return False
        if entry.type == "l":
            return self.tree.readlink(entry.path) == entry.content
        return now.size == entry.size and hash_beneath(self.tree, entry.path) == entry.content

    def _directory(self, placing: Placing, now: Stamp | None, finishing: dict[str, Step]) -> Step | None:
        entry, build = placing.entry, placing.build
        if now is not None and now.type != "d":
            self._conflict(entry.path, self._kind(placing.expected, build=build, now=now))
            return None
        expected = placing.expected
        if now is not None and expected is not None:
            # what was added to it here meanwhile must stay visible to whoever compares its time
            entry = entry._replace(
                mode=entry.mode if expected.mode == now.mode else now.mode,
                mtime_ns=entry.mtime_ns if expected.mtime_ns == now.mtime_ns else now.mtime_ns,
            )
        finishing[entry.path] = _step("finish", entry, build, None)
        if now is not None:
            return None
        self._touch(entry.path, entry.mtime_ns)
        return _step("mkdir", entry, build, None)

    def _blocked_above(self, path: str) -> ConflictKind | None:
        if not self.blocked:
            return None
        head = path.rpartition("/")[0]
        while head:
            if head in self.blocked:
                return self.blocked[head]
            head = head.rpartition("/")[0]
        return None

    def _touch(self, path: str, mtime_ns: int | None = None) -> None:
        """The directory of *path* gets another time by what we do in it, and has to get its own back."""
        head = path.rpartition("/")[0]
        self.parents[head] = None
        if mtime_ns is not None:
            self.named[head] = max(self.named.get(head, mtime_ns), mtime_ns)

    def _keep_directory(self, path: str, finishing: dict[str, Step]) -> None:
        now = self._lstat(path)[0] if path else Stamp.of(os.fstat(self.tree.fd))
        if now is None or now.type != "d" or path in self.leaving:
            return
        mtime_ns = now.mtime_ns
        if not path:
            # the worker's listing has no entry for the root itself; what was written in it dates it well enough
            mtime_ns = max(mtime_ns, self.named.get(path, mtime_ns))
        finishing[path] = Step("finish", path, mode=now.mode, mtime_ns=mtime_ns, type="d")


def _step(op: str, entry: Entry, build: bool, before: Stamp | None, *, loose: bool = False) -> Step:
    return Step(
        op,
        entry.path,
        build,
        before,
        loose,
        type=entry.type,
        mode=entry.mode,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        content=entry.content,
    )


def _same_link(expected: Expected, entry: Entry, tree: Beneath) -> bool:
    return expected is not None and tree.readlink(entry.path) == entry.content
