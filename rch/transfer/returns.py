"""What has to happen here so that the files are those of the last command (lessons AR-02, AR-03, AR-10). Pure."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence

from rch.paths import RelPath
from rch.project.model import Manifest, Root
from rch.transfer.held import HeldIndex
from rch.transfer.model import (
    BuildDir,
    Conflict,
    ConflictKind,
    Delta,
    Expected,
    LocalBuild,
    Placing,
    Removal,
    ReturnPlan,
    Stamp,
)
from rch.transfer.scope import Classes, return_scope
from rch.worker.protocol import Entry


class NothingHere:
    """The LocalBuild of a root without build directories, or of a policy that does not look at them."""

    def __getitem__(self, path: str) -> Entry:
        raise KeyError(path)

    def __contains__(self, path: object) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def status(self, path: str) -> os.stat_result:
        raise KeyError(path)

    def hash_of(self, path: str) -> str:
        raise KeyError(path)


def plan_return(
    delta: Delta,
    held: HeldIndex,
    manifest: Manifest,
    root: Root,
    local_build: LocalBuild,
    policy: BuildDir,
    *,
    unsent: Mapping[str, tuple[Entry, Stamp]] | None = None,
    changed_here: Collection[str] = (),
    extra_patterns: Sequence[str] = (),
) -> ReturnPlan:
    """Compare the worker's complete state (*held* as pushed, then *delta*) with what lies here.

    local_build: the build directories here; files whose content matters have been hashed (:func:`unhashed`).
    unsent:      tree paths that the manifest does not hold and that exist here, hashed where it matters.
    changed_here: sources that are not what the manifest says any more; times are then capped at the snapshot's.
    """
    return _Planner(
        delta, held, manifest, root, local_build, policy, unsent or {}, frozenset(changed_here), extra_patterns
    ).plan()


def unhashed(delta: Delta, held: HeldIndex, manifest: Manifest, root: Root, local: LocalBuild) -> list[str]:
    """Build paths here whose hash decides whether the worker's file has to come: equal size, unknown content."""
    classes = Classes(root, manifest)
    wanted = []
    for path, entry in held.apply_delta(delta).entries.items():
        if entry.type == "f" and path in local and classes.is_build(path):
            here = local[path]
            if here.type == "f" and not here.content and here.size == entry.size:
                wanted.append(path)
    return wanted


def new_tree_paths(delta: Delta, manifest: Manifest, root: Root) -> list[Entry]:
    """Tree entries of the worker that were not sent: made by a job, to be looked for here before they are placed."""
    classes = Classes(root, manifest)
    # the push made the tree equal to the manifest, so only what the Delta lists can be new
    return [
        entry
        for entry in delta.entries
        if entry.path not in manifest.entries
        and not classes.is_build(entry.path)
        and not classes.is_protected(entry.path)
    ]


def one_time_per_file(entries: Mapping[str, Entry]) -> Mapping[str, Entry]:
    """*entries* with equal times on all names of a hard-linked file.

    A source that was bumped (PM-05) is listed with its pusher's time, another name that a job gave it with the real
    one. One file has one time here: the older, so that no bump comes back.
    """
    oldest: dict[int, int] = {}
    mixed: set[int] = set()
    for entry in entries.values():
        if entry.group is not None:
            known = oldest.setdefault(entry.group, entry.mtime_ns)
            if known != entry.mtime_ns:
                mixed.add(entry.group)
                oldest[entry.group] = min(known, entry.mtime_ns)
    if not mixed:
        return entries
    return {
        path: entry._replace(mtime_ns=oldest[entry.group]) if entry.group in mixed else entry
        for path, entry in entries.items()
    }


class _Planner:
    def __init__(
        self,
        delta: Delta,
        held: HeldIndex,
        manifest: Manifest,
        root: Root,
        local: LocalBuild,
        policy: BuildDir,
        unsent: Mapping[str, tuple[Entry, Stamp]],
        changed_here: frozenset[str],
        extra_patterns: Sequence[str],
    ) -> None:
        self.before = held
        self.there = one_time_per_file(held.apply_delta(delta).entries)
        self.sent = manifest.entries
        self.local = local
        self.unsent = unsent
        self.changed = changed_here
        self.classes = Classes(root, manifest)
        self.returns = return_scope(self.there, root, self.classes, policy, extra_patterns)
        self.root = root
        self.cap = manifest.taken_ns if changed_here else None
        self.placings: dict[str, Placing] = {}
        self.removals: dict[str, Removal] = {}
        self.conflicts: dict[str, Conflict] = {}

    def plan(self) -> ReturnPlan:
        for path, entry in self.there.items():
            if self.sent.get(path) == entry:
                continue
            build = self.classes.is_build(path)
            if self.returns(path) if build else not self.classes.is_protected(path):
                self._place(path, entry, build=build)
        self._complete_groups()
        self._remove()
        self._drop_blocked()
        ordered = [p for p in self.placings.values() if p.entry.type != "d"]
        # parents before children; directories get their times when everything in them is done
        directories = sorted((p for p in self.placings.values() if p.entry.type == "d"), key=lambda p: p.entry.path)
        return ReturnPlan(
            root_key=self.root.key,
            placings=(*directories, *ordered),
            removals=tuple(sorted(self.removals.values(), key=lambda r: r.path, reverse=True)),
            conflicts=tuple(self.conflicts.values()),
            cap_ns=self.cap,
        )

    def _in_scope(self, path: str) -> bool:
        if self.classes.is_protected(path):
            return False
        return not self.classes.is_build(path) or self.returns(path)

    def _here(self, path: str, *, build: bool) -> Entry | None:
        """What lies here as far as we know."""
        if build and path not in self.local:
            return None
        if build:
            return self.local[path]
        found = self.sent.get(path)
        return found if found is not None or path not in self.unsent else self.unsent[path][0]

    def _expected(self, path: str, *, build: bool) -> Expected:
        """What placement has to find there."""
        if build:
            return Stamp.of(self.local.status(path))
        sent = self.sent.get(path)
        return sent if sent is not None else self.unsent[path][1]

    def _capped(self, entry: Entry) -> Entry:
        if self.cap is None or entry.mtime_ns <= self.cap:
            return entry
        return entry._replace(mtime_ns=self.cap)

    def _place(self, path: str, entry: Entry, *, build: bool) -> None:
        here = self._here(path, build=build)
        if here is not None and here[:6] == entry[:6]:
            return
        wanted = self._capped(entry)
        if here is None:
            if path in self.changed:
                self._conflict(path, ConflictKind.SOURCE)
            else:
                self.placings[path] = Placing(wanted, None, build, entry.type == "f")
        elif here.type != entry.type:
            if not self._may_replace(path, build=build):
                return
            expected = self._expected(path, build=build)
            if "d" in (here.type, entry.type):  # a rename replaces all but directories
                self.removals[path] = Removal(RelPath(path), here.type, expected, build)
                expected = None
            self.placings[path] = Placing(wanted, expected, build, entry.type == "f")
        elif (here.content, here.size) != (entry.content, entry.size):
            if self._may_replace(path, build=build):
                expected = self._expected(path, build=build)
                self.placings[path] = Placing(wanted, expected, build, entry.type == "f")
        elif here.mode != entry.mode or here.mtime_ns not in (entry.mtime_ns, wanted.mtime_ns):
            if path in self.changed and entry.type != "d":
                self._conflict(path, ConflictKind.SOURCE)
            else:
                self.placings[path] = Placing(wanted, self._expected(path, build=build), build, fetch=False)

    def _may_replace(self, path: str, *, build: bool) -> bool:
        if build:
            return True
        if path in self.changed:
            self._conflict(path, ConflictKind.SOURCE)
            return False
        if path not in self.sent:
            self._conflict(path, ConflictKind.UNSENT)
            return False
        return True

    def _conflict(self, path: str, kind: ConflictKind) -> None:
        self.conflicts[path] = Conflict(RelPath(path), kind)

    def _complete_groups(self) -> None:
        """One name of a hard-linked file that changes brings the others along: they are one file here too.

        The content need not come for that; it is taken from here when it is here (:func:`rch.transfer.staging.fetch`).
        """
        needed = {p.entry.group for p in self.placings.values() if p.entry.group is not None}
        if not needed:
            return
        for path, entry in self.there.items():
            if entry.group not in needed or path in self.conflicts or not self._in_scope(path):
                continue
            placing = self.placings.get(path)
            if placing is not None and placing.fetch:
                continue
            build = self.classes.is_build(path)
            if path in self.changed or (path not in self.local if build else path not in self.sent):
                continue
            expected = self._expected(path, build=build)
            self.placings[path] = Placing(self._capped(entry), expected, build, fetch=True)
        order = {path: number for number, path in enumerate(self.there)}
        self.placings = dict(sorted(self.placings.items(), key=lambda item: order[item[0]]))

    def _remove(self) -> None:
        gone: dict[str, Entry | None] = dict.fromkeys(p for p in self.sent if p not in self.there)
        for path in self.before.shared:
            if path in self.before.entries and path not in self.there and self.classes.is_build(path):
                gone[path] = None
        for path, was in self.before.owed.items():
            if path not in self.there:
                gone.setdefault(path, was)
        # where the job put something else in place of a directory, nothing of that directory is left there
        replaced = {p for p, r in self.removals.items() if r.type == "d"}
        if replaced:
            for path in self.local:
                if self.classes.is_build(path) and any(path.startswith(top + "/") for top in replaced):
                    gone.setdefault(path, None)
        for path, earlier in gone.items():
            if path in self.removals or not self._in_scope(path):
                continue
            build = self.classes.is_build(path)
            here = self._here(path, build=build)
            if here is None:
                continue
            if earlier is not None and (here.type, here.size, here.mtime_ns) != earlier[1:2] + earlier[3:5]:
                continue  # made anew here since the job that deleted it
            if path in self.changed:
                self._conflict(path, ConflictKind.SOURCE)
            else:
                expected = self._expected(path, build=build)
                self.removals[path] = Removal(RelPath(path), here.type, expected, build)

    def _drop_blocked(self) -> None:
        """What stays here in the way of a path keeps that path from being placed: the same conflict."""
        if not self.conflicts:
            return
        for path in list(self.placings):
            head = path.rpartition("/")[0]
            while head:
                above = self.conflicts.get(head)
                if above is not None and head in self.there:
                    del self.placings[path]
                    self._conflict(path, above.kind)
                    break
                head = head.rpartition("/")[0]


def settle(
    before: HeldIndex,
    delta: Delta,
    conflicts: Collection[Conflict],
    manifest: Manifest,
    root: Root,
    policy: BuildDir,
    extra_patterns: Sequence[str] = (),
) -> HeldIndex:
    """The record once the plan lies here: who holds what, and what is still owed. Pure.

    *before* itself when nothing of it has changed: then nobody has to write it again.
    """
    after = before.apply_delta(delta)
    classes = Classes(root, manifest)
    returns = return_scope(after.entries, root, classes, policy, extra_patterns)
    everything = policy is BuildDir.FULL
    shared = set(before.shared)
    for path in after.entries:
        if not classes.is_build(path) or everything or returns(path):
            shared.add(path)
    owed = {p: e for p, e in before.owed.items() if p not in after.entries and not (everything or returns(p))}
    for path in before.shared:
        if path in after.entries:
            continue
        shared.discard(path)
        if path in before.entries and classes.is_build(path) and not (everything or returns(path)):
            owed[path] = before.entries[path]
    kept_here = frozenset(c.path for c in conflicts)
    settled = HeldIndex(
        root_key=after.root_key,
        worker=after.worker,
        generation=after.generation,
        entries=after.entries,
        shared=frozenset(shared & after.entries.keys()),
        theirs=frozenset(p for p in kept_here if p in after.entries),
        owed=owed,
        ordered=after.ordered,
        trusted=after.trusted,
    )
    return before if settled == before else settled
