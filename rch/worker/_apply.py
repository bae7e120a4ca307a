"""Make a tree look as a push says: deletions and type changes first, contents by rename, directory times last."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Dict, Iterable, List, Tuple

from rch.worker import _clock
from rch.worker._change import Change, check_content
from rch.worker._index import Row, Rows, stamp_of
from rch.worker._scan import hash_file
from rch.worker._tree import Tree
from rch.worker.protocol import Entry
from rch.worker.refusal import Refusal

_TEMPORARY = ".rch-incoming"
"""Name of a file in the making, in the staging directory. Nothing unfinished ever lies in the tree."""


class Application:
    """One push onto one tree.

    rows:     the index, brought up to date by :meth:`run`.
    newest_job_ns: last moment at which a job of this root may have read the old content (worker's clock).
    bumped:   files that got the current time (lessons PM-05). kept: directories that still hold unlisted things.
    """

    def __init__(self, tree: Tree, staging: Tree, rows: Rows, change: Change, newest_job_ns: int) -> None:
        self.rows = rows
        self.bumped: List[str] = []
        self.kept: List[str] = []
        self._tree = tree
        self._staging = staging
        self._change = change
        self._leaders: Dict[int, str] = {}
        for entry in reversed(change.entries):
            if entry.group is not None:
                self._leaders[entry.group] = entry.path
        self._newest_job_ns = newest_job_ns
        self._now_ns = _clock.now_ns()

    def check(self) -> None:
        """Everything that can be refused, before anything is touched. Raises Refusal (mismatch, bad-request)."""
        for entry in self._change.entries:
            if entry.type != "f" or entry.path in self._change.bodies:
                continue
            if entry.path in self._change.staged:
                self._check_staged(entry)
                continue
            row = self.rows.get(entry.path)
            status = self._tree.stat(entry.path)
            if row is None or row.type != "f" or row.content != entry.content:
                if entry.group is not None and self._leaders[entry.group] != entry.path:
                    continue
                raise Refusal("mismatch", "no content came for %s" % ascii(entry.path)[:200])
            if status is None or stamp_of(status) != row.stamp:
                raise Refusal("mismatch", "%s is not what the index says" % ascii(entry.path)[:200])

    def run(self) -> None:
        """Apply. The caller has marked the root dirty: an exception leaves a tree that the next index tells truly."""
        self._delete()
        for entry in self._change.entries:
            if entry.type == "d":
                self._directory(entry)
        for entry in self._change.entries:
            if entry.type == "l":
                self._link(entry)
        times: Dict[int, Tuple[Entry, bool]] = {}
        for entry in self._change.entries:
            if entry.type == "f":
                self._file(entry, times)
        self._record_files()
        self._finish_directories()

    def _check_staged(self, entry: Entry) -> None:
        try:
            status = self._staging.stat(entry.path)
            if status is None or not stat.S_ISREG(status.st_mode):
                raise Refusal("mismatch", "%s is not in the staging directory" % ascii(entry.path)[:200])
            check_content(entry, status.st_size, hash_file(self._staging, entry.path))
        except OSError as error:
            raise Refusal("mismatch", "staged %s: %s" % (ascii(entry.path)[:200], error.strerror)) from error

    def _delete(self) -> None:
        for path in sorted(self._change.deletes, key=lambda p: -p.count("/")):
            if self._tree.remove_listed(path):
                self.rows.pop(path, None)
            else:
                self.kept.append(path)

    def _directory(self, entry: Entry) -> None:
        if self._tree.make_directory(entry.path):
            self._drop_below(entry.path)

    def _link(self, entry: Entry) -> None:
        directory = self._staging.directory("")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_TEMPORARY, dir_fd=directory)
        os.symlink(entry.content, _TEMPORARY, dir_fd=directory)
        os.utime(_TEMPORARY, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)
        self._tree.place(_TEMPORARY, directory, entry.path)
        self._drop_below(entry.path)

    def _file(self, entry: Entry, groups: Dict[int, Tuple[Entry, bool]]) -> None:
        if entry.group is not None and entry.group in groups:
            leader, bump = groups[entry.group]
            if (leader.content, leader.mode, leader.mtime_ns) != (entry.content, entry.mode, entry.mtime_ns):
                raise Refusal("bad-request", "linked files differ: %s" % ascii(entry.path)[:200])
            self._tree.link(leader.path, entry.path)
            self._drop_below(entry.path)
            self._remember(entry, self._now_ns)
            return
        row = self.rows.get(entry.path)
        same = row is not None and row.type == "f" and row.content == entry.content
        pushed_ns = row.pushed_ns if row is not None and same else self._now_ns
        # New to every job so far, yet dated before them: make and cargo would take it for old (lessons PM-05).
        bump = (
            entry.path not in self._change.exact
            and self._newest_job_ns > 0
            and (not same or pushed_ns > self._newest_job_ns)
            and entry.mtime_ns <= self._newest_job_ns
        )
        if entry.path in self._change.bodies:
            self._write(entry, bump)
        elif entry.path in self._change.staged:
            self._place_staged(entry, bump)
        else:
            self._retouch(entry, bump)
        if bump:
            self.bumped.append(entry.path)
        if entry.group is not None:
            groups[entry.group] = (entry, bump)
        self._drop_below(entry.path)
        self._remember(entry, pushed_ns)

    def _write(self, entry: Entry, bump: bool) -> None:
        self._write_temporary([self._change.bodies[entry.path]], entry, bump)
        self._tree.place(_TEMPORARY, self._staging.directory(""), entry.path)

    def _write_temporary(self, blocks: Iterable[bytes], entry: Entry, bump: bool) -> None:
        directory = self._staging.directory("")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_TEMPORARY, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_TEMPORARY, flags, 0o600, dir_fd=directory)
        with os.fdopen(descriptor, "wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fchmod(descriptor, entry.mode)
            os.utime(descriptor, ns=self._times(entry, bump))

    def _place_staged(self, entry: Entry, bump: bool) -> None:
        self._staging.set_mode(entry.path, entry.mode)
        above, _, name = entry.path.rpartition("/")
        directory = os.dup(self._staging.directory(above))
        try:
            os.utime(name, ns=self._times(entry, bump), dir_fd=directory, follow_symlinks=False)
            self._tree.place(name, directory, entry.path)
        finally:
            os.close(directory)

    def _retouch(self, entry: Entry, bump: bool) -> None:
        """Mode and time only. A file with other names is copied first: they are no business of this entry."""
        status = self._tree.stat(entry.path)
        assert status is not None  # check() saw it
        if status.st_nlink > 1:
            descriptor = self._tree.open_file(entry.path)
            with os.fdopen(descriptor, "rb") as file:
                self._write_temporary(iter(lambda: file.read(1 << 20), b""), entry, bump)
            self._tree.place(_TEMPORARY, self._staging.directory(""), entry.path)
            return
        self._tree.set_mode(entry.path, entry.mode)
        self._tree.set_time(entry.path, self._times(entry, bump)[0])

    def _times(self, entry: Entry, bump: bool) -> Tuple[int, int]:
        time_ns = self._now_ns - _clock.offset_ns() if bump else entry.mtime_ns
        return (time_ns, time_ns)

    def _remember(self, entry: Entry, pushed_ns: int) -> None:
        self.rows[entry.path] = Row(
            "f", entry.mode, entry.size, entry.mtime_ns, entry.content, (0, 0, 0, 0, 0), pushed_ns
        )

    def _drop_below(self, path: str) -> None:
        """Forget what lay below a path that is no directory any more, or a new one."""
        row = self.rows.pop(path, None)
        if row is not None and row.type == "d":
            for below in [p for p in self.rows if p.startswith(path + "/")]:
                del self.rows[below]

    def _record_files(self) -> None:
        """Bring the rows of what was pushed up to what lies there now, directories aside."""
        for entry in self._change.entries:
            if entry.type == "d":
                continue
            status = self._tree.stat(entry.path)
            if status is None:
                self.rows.pop(entry.path, None)
            elif entry.type == "f":
                self.rows[entry.path] = self.rows[entry.path]._replace(stamp=stamp_of(status))
            else:
                self.rows[entry.path] = Row("l", 0, 0, entry.mtime_ns, entry.content, stamp_of(status))

    def _finish_directories(self) -> None:
        """Times and modes of every directory that was pushed, worked in or loosened: last, and the deepest first.

        One that nobody pushed keeps the time and mode that were known of it.
        """
        declared = {e.path: (e.mode, e.mtime_ns) for e in self._change.entries if e.type == "d"}
        loosened = dict(self._tree.loosened)
        for path in sorted({*declared, *self._tree.touched, *loosened} - {""}, key=lambda p: -p.count("/")):
            status = self._tree.stat(path)
            if status is None or not stat.S_ISDIR(status.st_mode):
                continue  # removed or replaced since; whoever did that has told the rows
            row = self.rows.get(path)
            mode, mtime_ns = loosened.get(path, status.st_mode) & 0o777, status.st_mtime_ns
            if path in declared:
                mode, mtime_ns = declared[path]
            elif row is not None and row.type == "d":
                mode, mtime_ns = row.mode, row.mtime_ns
            self._tree.set_time(path, mtime_ns)
            self._tree.set_mode(path, mode)
            self._tree.loosened.pop(path, None)
            finished = self._tree.stat(path)
            assert finished is not None
            self.rows[path] = Row("d", mode, 0, mtime_ns, "", stamp_of(finished))
