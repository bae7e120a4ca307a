"""A root on this worker: its tree, what we know of it (index, generation), and the four things one does with it.

A *generation* is a random word that names one known state of the tree. It is valid only while the root is ``clean``;
an interrupted push leaves the file ``dirty``, a job that ran leaves ``ran`` until somebody looks (``delta`` or
``index``), and after a reboot nothing is taken on trust.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from rch.worker import _clock, _index
from rch.worker._apply import Application
from rch.worker._change import Change
from rch.worker._scan import Scan, scan
from rch.worker._tree import Tree, purge
from rch.worker.cache import Cache, boot_id, read_json, write_json
from rch.worker.protocol import INLINE_LIMIT
from rch.worker.refusal import Refusal, refusal_of

CLEAN, RAN = "clean", "ran"

walks = 0
"""Walks over a tree that this process has made: 0 before a job, 1 after it (lessons AR-12). Tests read it."""


class Standing(NamedTuple):
    """generation: names the tree's known state, "" for a new root. dirty: ask for ``index`` before anything else."""

    generation: str
    dirty: bool


class Delta(NamedTuple):
    """``changed`` in the order of ctime; ``written`` are those with new content; ``scan_rows`` is the index now."""

    generation: str
    complete: bool
    entries: List[List[Any]]
    order: List[str]
    deletes: List[str]
    bodies: List[Tuple[str, bytes]]


class Root:
    """One root directory of the cache. All methods but :meth:`standing` need the root's lock."""

    def __init__(self, cache: Cache, key: str) -> None:
        self.directory = cache.root(key)
        self.key = key
        self.tree = os.path.join(self.directory, "tree")
        self.staging = os.path.join(self.directory, "staging")
        self.lock = os.path.join(self.directory, "lock")
        self._trash = os.path.join(self.directory, "trash")
        self._index = os.path.join(self.directory, "index")
        self._dirty = os.path.join(self.directory, "dirty")
        self._meta_path = os.path.join(self.directory, "meta.json")

    def create(self) -> None:
        """Make the directories of a new root."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        for path, mode in ((self.tree, 0o755), (self.staging, 0o700), (self._trash, 0o700)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, mode)

    def exists(self) -> bool:
        return os.path.isdir(self.tree)

    def standing(self) -> Standing:
        """What is known without looking at the tree."""
        meta = self.meta()
        generation = str(meta.get("generation") or "")
        if not generation:
            return Standing("", os.path.exists(self._dirty) or self._holds_something())
        trusted = meta.get("state", CLEAN) == CLEAN and meta.get("boot_id") == boot_id()
        return Standing(generation, os.path.exists(self._dirty) or not trusted)

    def meta(self) -> Dict[str, Any]:
        """path, generation, state, boot_id, last_job, last_job_ns, used_ns; {} for a new root."""
        found = read_json(self._meta_path)
        return found if isinstance(found, dict) else {}

    def use(self, path: Optional[str]) -> None:
        """Note who uses this root and when, for people and for the collector."""
        meta = self.meta()
        if path is not None:
            meta["path"] = path
        self._write_meta(meta)

    # -- a push -------------------------------------------------------------------------------------------------

    def sync(self, base: str, change: Change, *, reset: bool = False) -> Tuple[str, List[str]]:
        """Apply *change* against generation *base*; returns (new generation, directories that had to stay).

        reset: start from an empty tree instead (``--no-cache``). Raises Refusal: dirty, stale, mismatch, disk-full.
        """
        if not reset:
            self._expect(base)
            if change.empty and base:
                return base, []
        rows = {} if reset else dict(self._load())
        try:
            if reset:
                self._mark_dirty()
                self._empty_tree()
            with Tree(self.tree, self._trash) as tree, Tree(self.staging, self._trash) as staging:
                newest = 0 if reset else int(self.meta().get("last_job_ns") or 0)
                application = Application(tree, staging, rows, change, newest)
                application.check()
                self._mark_dirty()
                application.run()
            if change.staged:
                self._clear_staging()
            generation = self._settle(application.rows)
        except OSError as error:
            raise refusal_of(error, "cannot apply the push") from error
        purge(self._trash)
        return generation, application.kept

    def job_started(self, job: str) -> None:
        """From here on a job may write: the index no longer says what the tree holds."""
        meta = self.meta()
        meta.update(state=RAN, last_job=job, last_job_ns=_clock.now_ns())
        self._write_meta(meta)

    # -- looking ------------------------------------------------------------------------------------------------

    def index(self) -> Tuple[str, List[List[Any]]]:
        """(generation, every entry of the tree), after one walk when the index cannot be trusted."""
        rows = self._current()
        linked = _index.links(rows)
        return self.standing().generation, _index.entries(rows, sorted(rows), linked)

    def delta(
        self, job: str, since: Optional[str], inline: int, kept: Dict[str, Any], *, ended_ns: Optional[int]
    ) -> Delta:
        """What is new or changed since generation *since*, in the order it was written; see docs/architecture.md.

        kept: the job's ``delta.json``; an answer that was lost is given again from there, a new one is put there.
        ended_ns: when the job ended; None when it never started. Raises Refusal("stale") when another job came since.
        """
        standing = self.standing()
        last = self.meta().get("last_job")
        if ended_ns is not None and last != job:
            raise Refusal("stale", "job %s has used this root since %s" % (last, job))
        if not standing.dirty:
            before = kept.get(self.key)
            if isinstance(before, dict) and before.get("generation") == standing.generation:
                known = since is not None and before.get("since") == since
                return self._answer(
                    standing.generation, not known, before["changed"], before["written"], before["gone"], inline
                )
            return self._answer(standing.generation, since != standing.generation, [], [], [], inline)
        found, known_base = self._scan()
        same = known_base if found.untouched else None
        generation = self._settle(found.rows, ended_ns=ended_ns, same=same)
        kept[self.key] = {
            "since": known_base,
            "generation": generation,
            "changed": found.changed,
            "written": found.written,
            "gone": found.gone,
        }
        complete = since is None or since != known_base
        return self._answer(generation, complete, found.changed, found.written, found.gone, inline, found.rows)

    def get(self, paths: List[str], limit: int) -> List[Tuple[str, bytes]]:
        """Contents of regular files while they fit into *limit* bytes together; others are left out."""
        found = []
        with Tree(self.tree, self._trash) as tree:
            for path in paths:
                data = _content(tree, path, limit)
                if data is not None:
                    limit -= len(data)
                    found.append((path, data))
        return found

    # -- insides ------------------------------------------------------------------------------------------------

    def _answer(
        self,
        generation: str,
        complete: bool,
        changed: List[str],
        written: List[str],
        gone: List[str],
        inline: int,
        rows: Optional[_index.Rows] = None,
    ) -> Delta:
        """*rows*: those of *generation*, where the caller has them."""
        if not complete and not changed:
            return Delta(generation, complete, [], [], gone, [])
        rows = self._load() if rows is None else rows
        if complete:
            order = sorted(rows, key=lambda path: (rows[path].ctime_ns, path))
            gone = []
        else:
            order = [path for path in changed if path in rows]
        entries = _index.entries(rows, order, _index.links(rows))
        wanted = set(written)
        files = [path for path in order if path in wanted and rows[path].type == "f"]
        bodies = self.get(files, min(inline, INLINE_LIMIT * 16)) if inline > 0 else []
        return Delta(generation, complete, entries, order, gone, bodies)

    def _expect(self, base: str) -> None:
        """Refusal unless the tree is known to be at generation *base*."""
        standing = self.standing()
        if standing.dirty:
            raise Refusal("dirty", "the tree is not known since an interrupted push or an unread job; ask for index")
        if base != standing.generation:
            raise Refusal("stale", "the tree is at generation %r, not %r" % (standing.generation, base))

    def _load(self) -> _index.Rows:
        generation = self.standing().generation
        if not generation:
            return {}
        found = _index.load(self._index)
        if found is None or found[0] != generation:
            raise Refusal("dirty", "the index of this root is damaged; ask for index")
        return found[1]

    def _current(self) -> _index.Rows:
        """Rows that tell the truth now, after one walk when they are not known to."""
        if not self.standing().dirty:
            found = _index.load(self._index)
            generation = self.standing().generation
            if not generation:
                return {}
            if found is not None and found[0] == generation:
                return found[1]
        scanned, _ = self._scan()
        self._settle(scanned.rows, ended_ns=_clock.now_ns() if self.meta().get("state") == RAN else None)
        return scanned.rows

    def _scan(self) -> Tuple[Scan, Optional[str]]:
        """The walk, and the generation that it is a difference to, if that is known."""
        global walks  # noqa: PLW0603  one counter for the process, see above
        walks += 1
        loaded = _index.load(self._index)
        old = loaded[1] if loaded is not None else {}
        interrupted = os.path.exists(self._dirty)
        generation = self.standing().generation
        base = generation if loaded is not None and loaded[0] == generation and not interrupted else None
        with Tree(self.tree, self._trash) as tree:
            # Content of an interrupted push must still count as new to the next job: its time may lie before the last.
            pushed = _clock.now_ns() if interrupted else 0
            return scan(tree, old, pushed_ns=pushed, shift_ns=_clock.offset_ns()), base

    def _settle(self, rows: _index.Rows, *, ended_ns: Optional[int] = None, same: Optional[str] = None) -> str:
        """Write the index under a new generation: from here on the tree is known. Index first, name second.

        same: the generation whose index holds exactly these rows already; it stays.
        """
        generation = same or secrets.token_hex(8)
        if not same:
            _index.save(self._index, generation, rows)
        meta = self.meta()
        meta.update(generation=generation, state=CLEAN, boot_id=boot_id())
        if ended_ns is not None:
            # A product may be as young as the job's end, not only as its start: the later moment is the safe one.
            meta["last_job_ns"] = max(ended_ns, int(meta.get("last_job_ns") or 0))
        self._write_meta(meta)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._dirty)
        return generation

    def _holds_something(self) -> bool:
        """True when the tree is not empty or not there to look at as a directory."""
        try:
            with os.scandir(self.tree) as listing:
                return next(listing, None) is not None
        except FileNotFoundError:
            return False

    def _write_meta(self, meta: Dict[str, Any]) -> None:
        meta["used_ns"] = _clock.now_ns()
        write_json(self._meta_path, meta)

    def _mark_dirty(self) -> None:
        with open(self._dirty, "wb"):
            pass  # no fsync: after a power cut the boot id alone makes the root dirty

    def _empty_tree(self) -> None:
        self._to_trash(self.tree, 0o755)

    def _clear_staging(self) -> None:
        self._to_trash(self.staging, 0o700)

    def _to_trash(self, path: str, mode: int) -> None:
        os.rename(path, os.path.join(self._trash, secrets.token_hex(8)))
        os.mkdir(path, mode)


def _content(tree: Tree, path: str, limit: int) -> Optional[bytes]:
    """The bytes of a regular file of at most *limit* bytes, else None."""
    try:
        descriptor = tree.open_file(path)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > limit:
            return None
        data = file.read(limit + 1)
    return data if len(data) <= limit else None
