"""What one worker holds of one root, as last known: the base of every push and every return (lessons AR-10, AR-12)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from rch.paths import AbsPath, RelPath
from rch.project.model import Root
from rch.transfer._files import make_private_dir, write_atomically
from rch.transfer.model import Delta, PushPlan
from rch.worker.protocol import Entry, path_bytes, path_text

FORMAT = 1
MAGIC = b"rch-held "
SHARED, THEIRS = 1, 2


def root_state(state_dir: AbsPath, root_key: str) -> AbsPath:
    """``<state>/roots/<key>``."""
    return AbsPath(os.path.join(state_dir, "roots", root_key))


@dataclass(frozen=True)
class HeldIndex:
    """The tree of one root on one worker. Immutable: every step answers a new one, saved when it has become true.

    generation: the worker's name for this state; None when nothing is known (a new or distrusted worker).
    entries: path -> Entry. The order is the order in which the paths were last written there, oldest first.
    ordered: False when that order is a guess (after ``index``); the next ``delta`` then asks for everything.
    shared:  paths that both sides have held: pushed from here, or returned and placed here. Only these are deleted
             on one side because they are gone on the other; all else in a build directory is the worker's own.
    theirs:  paths whose version there was written by a job and never came here (a failed return, a conflict).
    trusted: False after ``index`` when nothing had been known before: then nobody can say which side made what.
    owed:    shared paths (and what they were) that a job deleted there while the build directory did not return;
             still to be deleted here if they are unchanged.
    """

    root_key: str
    worker: str
    generation: str | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    theirs: frozenset[str] = frozenset()
    owed: Mapping[str, Entry] = field(default_factory=dict)
    ordered: bool = True
    trusted: bool = True
    _stored_at: str = field(default="", init=False, repr=False, compare=False)

    @classmethod
    def load(cls, state_dir: AbsPath, root_key: str, worker: str) -> HeldIndex:
        """The index as last saved; an empty one without generation when there is none, or none that can be trusted."""
        path = _index_path(state_dir, root_key, worker)
        try:
            identity, found = _recent.get(path, (None, None))
            if found is not None and identity == _identity(path):
                return found
            found = cls.load_from(path, root_key, worker)
            _keep_recent(path, found)
            return found
        except (OSError, ValueError, KeyError, TypeError):
            return cls(root_key, worker)

    @classmethod
    def load_from(cls, path: str, root_key: str, worker: str) -> HeldIndex:
        """The index that :meth:`save_as` wrote. Raises OSError, ValueError, KeyError, TypeError."""
        with open(path, "rb") as stream:
            found = _decode(stream.read(), root_key, worker)
        object.__setattr__(found, "_stored_at", path)
        return found

    def save(self, state_dir: AbsPath) -> None:
        """Write it atomically, mode 0600; nothing is written when it lies there already. Raises OSError."""
        if self._stored_at == _index_path(state_dir, self.root_key, self.worker):
            return
        make_private_dir(root_state(state_dir, self.root_key))
        path = _index_path(state_dir, self.root_key, self.worker)
        self.save_as(path)
        _keep_recent(path, self)

    def save_as(self, path: str) -> None:
        """Write it to *path* instead. Raises OSError."""
        write_atomically(path, _encode(self))
        object.__setattr__(self, "_stored_at", path)

    def keep_as(self, path: str) -> None:
        """As :meth:`save_as`, by one more name of the file in which it was just saved, if it was. Raises OSError."""
        identity, saved = _recent.get(self._stored_at, (None, None))
        if saved is self:
            with contextlib.suppress(OSError):
                os.link(self._stored_at, path)
                if _identity(path) == identity:
                    return
                os.unlink(path)  # replaced meanwhile
        self.save_as(path)

    def forget(self, state_dir: AbsPath) -> None:
        """Remove what was saved: the worker's tree was given up."""
        try:
            os.unlink(_index_path(state_dir, self.root_key, self.worker))
        except FileNotFoundError:
            return

    def afresh(self) -> HeldIndex:
        """Nothing known of the worker's tree: its build directory starts cold. What is owed here is still owed."""
        return HeldIndex(self.root_key, self.worker, owed=self.owed)

    @property
    def since(self) -> str | None:
        """The generation to ask a Delta against: None asks for everything, with its true order."""
        return self.generation if self.ordered else None

    def pushed(self, plan: PushPlan, generation: str, sent: Collection[str]) -> HeldIndex:
        """After the worker confirmed *plan*; *sent* are all paths of the manifest (shared from now on)."""
        if plan.empty and generation == self.generation and self.trusted and self.shared.issuperset(sent):
            return self
        gone = frozenset(plan.deletes)
        entries = (
            {path: entry for path, entry in self.entries.items() if path not in gone} if gone else dict(self.entries)
        )
        for entry in plan.metadata:
            # a linked file whose time or mode differs is among the changes, with its whole set
            entries[entry.path] = entry._replace(group=None)
        _merge(entries, plan.changes)
        sent = frozenset(sent)
        return replace(
            self,
            generation=generation,
            entries=entries,
            shared=(self.shared - gone) | sent,
            theirs=self.theirs - gone - sent,
            trusted=True,
        )

    def adopted(self, generation: str, entries: Iterable[Entry], exists_here: Callable[[str], bool]) -> HeldIndex:
        """After ``index``: the worker's tree is not the one we knew (a crash, a lost answer, another rchd).

        What a job changed there since is ``theirs``, what one deleted is owed here; what exists on both sides is
        shared. The write order is unknown, times stand in for it.
        """
        now = {e.path: e for e in sorted(entries, key=lambda e: e.mtime_ns)}
        known = self.generation is not None
        # in a tree that is still the one we knew only jobs delete; a new tree is simply empty
        gone = {p: self.entries[p] for p in self.shared if p not in now and p in self.entries} if generation else {}
        return replace(
            self,
            generation=generation or None,
            entries=now,
            shared=frozenset(p for p in now if p in self.shared or exists_here(p)) if known else frozenset(),
            theirs=frozenset(p for p, e in now.items() if p in self.theirs or not _same(self.entries.get(p), e)),
            owed={**{p: e for p, e in self.owed.items() if p not in now}, **gone},
            ordered=False,
            trusted=known or not now,
        )

    def apply_delta(self, delta: Delta) -> HeldIndex:
        """The worker's complete tree after the job. What is shared is settled by the placement, not here."""
        if delta.complete:
            return replace(self, generation=delta.generation, entries={e.path: e for e in delta.entries}, ordered=True)
        gone = frozenset(delta.deletes)
        entries = (
            {path: entry for path, entry in self.entries.items() if path not in gone} if gone else dict(self.entries)
        )
        _merge(entries, delta.entries)
        return replace(self, generation=delta.generation, entries=entries)


_RECENT = 2
_RECENT_ENTRIES = 200_000
"""Entries of a kept index at most: 50,000 are some 20 MB."""

_recent: dict[str, tuple[tuple[int, int, int], HeldIndex]] = {}
"""The indexes last loaded or saved, by path, with the identity of the file: files are replaced, never changed."""


def _identity(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _keep_recent(path: str, index: HeldIndex) -> None:
    _recent.pop(path, None)
    if len(index.entries) <= _RECENT_ENTRIES:
        with contextlib.suppress(OSError):
            _recent[path] = (_identity(path), index)
    for old in list(_recent)[:-_RECENT]:
        _recent.pop(old, None)


def _merge(entries: dict[str, Entry], newer: Iterable[Entry]) -> None:
    """Put *newer* last. Hard-linked sets are numbered per list, so those of the new list move out of the way."""
    offset = 1 + max((e.group for e in entries.values() if e.group is not None), default=-1)
    for entry in newer:
        entries.pop(entry.path, None)
        entries[entry.path] = entry if entry.group is None else entry._replace(group=entry.group + offset)


def _same(known: Entry | None, now: Entry) -> bool:
    return known is not None and (known.type, known.size, known.content) == (now.type, now.size, now.content)


def _index_path(state_dir: AbsPath, root_key: str, worker: str) -> AbsPath:
    return AbsPath(os.path.join(root_state(state_dir, root_key), f"held-{quote(worker, safe='')}"))


# The file: MAGIC, one JSON line (counts, generation), then columns, then a BLAKE2b-256 of all before it. Columns load
# about ten times faster than JSON rows and take a third of the room; 50,000 entries are 5 MB and some 50 ms.


def _encode(held: HeldIndex) -> bytes:
    rows = list(held.entries.values())
    owed = list(held.owed.values())
    every = rows + owed
    flags = bytes(
        (SHARED if e.path in held.shared else 0) | (THEIRS if e.path in held.theirs else 0) for e in rows
    ) + bytes(len(owed))
    hashes = b"".join(bytes.fromhex(e.content) for e in every if e.type == "f")
    texts = path_bytes("\0".join([e.path for e in every] + [e.content for e in every if e.type == "l"]))
    head = {
        "format": FORMAT,
        "root": held.root_key,
        "worker": held.worker,
        "generation": held.generation,
        "ordered": held.ordered,
        "rows": len(rows),
        "owed": len(owed),
        "hashes": len(hashes),
    }
    parts = [
        MAGIC + json.dumps(head, separators=(",", ":")).encode("ascii") + b"\n",
        "".join(e.type for e in every).encode("ascii"),
        flags,
        array("H", (e.mode for e in every)).tobytes(),
        array("q", (e.size for e in every)).tobytes(),
        array("q", (e.mtime_ns for e in every)).tobytes(),
        array("q", (-1 if e.group is None else e.group for e in every)).tobytes(),
        hashes,
        texts,
    ]
    body = b"".join(parts)
    return body + hashlib.blake2b(body, digest_size=32).digest()


def _decode(data: bytes, root_key: str, worker: str) -> HeldIndex:
    """Undo :func:`_encode`. Raises ValueError, KeyError or TypeError on anything else than our own intact file."""
    body, digest = data[:-32], data[-32:]
    if not body.startswith(MAGIC) or hashlib.blake2b(body, digest_size=32).digest() != digest:
        raise ValueError("not an intact index")
    line_end = body.index(b"\n")
    head = json.loads(body[len(MAGIC) : line_end])
    if (head["format"], head["root"], head["worker"]) != (FORMAT, root_key, worker):
        raise ValueError("an index of another root, worker or format")
    count, at = head["rows"] + head["owed"], line_end + 1

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return body[at - size : at]

    def numbers(code: str, width: int) -> array[int]:
        column: array[int] = array(code)
        column.frombytes(take(count * width))
        return column

    types = take(count).decode("ascii")
    flags = take(count)
    modes, sizes, times, groups = numbers("H", 2), numbers("q", 8), numbers("q", 8), numbers("q", 8)
    hashes = take(head["hashes"]).hex()
    texts = path_text(body[at:]).split("\0") if count else []
    paths, targets = texts[:count], iter(texts[count:])
    starts = iter(range(0, len(hashes), 64))
    contents = []
    for kind in types:
        if kind == "f":
            start = next(starts)
            contents.append(hashes[start : start + 64])
        else:
            contents.append(next(targets) if kind == "l" else "")
    every = list(map(Entry, paths, types, modes, sizes, times, contents, (None if g < 0 else g for g in groups)))
    rows = every[: head["rows"]]
    return HeldIndex(
        root_key,
        worker,
        head["generation"],
        {e.path: e for e in rows},
        frozenset(e.path for e, flag in zip(rows, flags, strict=False) if flag & SHARED),
        frozenset(e.path for e, flag in zip(rows, flags, strict=False) if flag & THEIRS),
        {e.path: e for e in every[head["rows"] :]},
        head["ordered"],
    )


# Tree paths that a job made and git ignores here: no scan lists them, yet they lie here and on a worker. They are per
# root, not per worker: a job on the next worker has to see them too.


def shared_tree_paths(state_dir: AbsPath, root: Root) -> frozenset[RelPath]:
    """Paths outside the build directories that came back from a job or that a job made beside an unsent file here.

    Give them to the manifest as ``also``; those that are gone here are simply not in it.
    """
    return _returned_paths(state_dir, root.key)


def remember_tree_paths(state_dir: AbsPath, root_key: str, real: str, paths: Collection[str]) -> None:
    """Add *paths* to :func:`shared_tree_paths`; those that are gone below *real* leave it. Raises OSError."""
    if not paths:
        return
    after = _returned_paths(state_dir, root_key) | {RelPath(p) for p in paths}
    kept = sorted(p for p in after if os.path.lexists(os.path.join(real, p)))
    make_private_dir(root_state(state_dir, root_key))
    write_atomically(os.path.join(root_state(state_dir, root_key), "returned"), path_bytes("\0".join(kept)))


def _returned_paths(state_dir: AbsPath, root_key: str) -> frozenset[RelPath]:
    try:
        with open(os.path.join(root_state(state_dir, root_key), "returned"), "rb") as stream:
            return frozenset(RelPath(p) for p in path_text(stream.read()).split("\0") if p)
    except OSError:
        return frozenset()
