"""Which paths of a root travel: git's word, the rules on top, and one walk that sees every directory once.

git says which files are tracked and which are untracked and not ignored; files that it does not name are sent for
no kind but those whose git-ignored files are inputs (lessons SP-10). The walk adds what git cannot name: directories
(empty ones too) with their modes and times, and stat data.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from rch.errors import NotOffloadable
from rch.paths import AbsPath, RelPath
from rch.project._git import Checkout, GitFailed, checkout_above, checkout_at, finished, run_git, started
from rch.project.beneath import Beneath
from rch.project.ignore import Patterns
from rch.project.never_send import is_never_entered, is_never_sent
from rch.project.settings import OBJECT_PATTERNS, ManifestRules

IGNORE_FILE = ".rchignore"
OWN_PREFIXES = (".rch-proof-", ".rch-spool-", ".rch-staging-")
"""Names of what a client or rchd puts into a root for a moment; they never travel."""


@dataclass
class Listing:
    """What one walk found; paths are relative to the root.

    files, links, directories: path -> lstat.
    tracked:    what git tracks below the root (empty outside a repository).
    held_back:  untracked never-send names.
    left_out:   tracked paths that ``.rchignore`` leaves out (shown, so not silent).
    checkouts:  directories below the root that are checkouts of their own (submodules, nested clones).
    checkout:   the one that the root lies in.
    taken_ns:   wall clock when the walk began.
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    links: dict[str, os.stat_result] = field(default_factory=dict)
    directories: dict[str, os.stat_result] = field(default_factory=dict)
    tracked: set[str] = field(default_factory=set)
    held_back: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    checkouts: list[RelPath] = field(default_factory=list)
    checkout: Checkout | None = None
    taken_ns: int = 0


def list_root(
    top: AbsPath,
    rules: ManifestRules,
    *,
    ignored_inputs: bool,
    build_dirs: Collection[str] = (),
    also: Collection[str] = (),
) -> Listing:
    """Walk *top* (resolved) once; raises NotOffloadable where git or a directory cannot be read.

    build_dirs: nothing untracked below them is listed.
    also:       paths listed whatever git ignores (kind's inputs, files that a worker returned earlier).
    """
    walk = _Walk(top, rules, ignored_inputs=ignored_inputs, build_dirs=build_dirs, also=also)
    walk.run()
    return walk.found


@dataclass
class _GitView:
    """What git says about one checkout, or a part of it, with paths relative to the root."""

    tracked: set[str]
    untracked: set[str]
    ignored_dirs: set[str]


def _git_view(checkout: Checkout, directory: str, prefix: str, *, tracked_only: bool) -> _GitView:
    """Ask git about *directory* (absolute, inside *checkout*); *prefix* ("" or "a/b/") goes before every path."""
    rules = ("-z", "--exclude-standard")
    asked: list[tuple[str, ...]] = [("ls-files", "-cz")]
    if not tracked_only:
        asked += [("ls-files", "-o", *rules), ("ls-files", "-oi", "--directory", *rules)]
    try:
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(started(checkout, words, cwd=directory)) for words in asked]
            said = [finished(process).decode("utf-8", "surrogateescape").split("\0") for process in running]
        tracked, untracked, ignored = [names[:-1] for names in said] if not tracked_only else (said[0][:-1], [], [])
        matched = _matched_dirs(checkout, directory, [row[:-1] for row in ignored if row.endswith("/")])
    except GitFailed as error:
        raise NotOffloadable(
            f"git cannot list {directory}: {error}", code="missing-input", hint=f"git -C {directory} ls-files"
        ) from error
    if prefix:
        tracked, untracked, matched = ([prefix + path for path in paths] for paths in (tracked, untracked, matched))
    return _GitView(set(tracked), set(untracked), set(matched))


def _matched_dirs(checkout: Checkout, directory: str, paths: list[str]) -> list[str]:
    """Directories that a pattern of git matches, at or below *paths* (relative to *directory*).

    git also folds a directory up whose files are all ignored one by one; that one exists here, and a job may want to
    write into it.
    """
    matched: list[str] = []
    while paths:
        given = b"".join(os.fsencode(path) + b"/\0" for path in paths)
        said = run_git(checkout, ("check-ignore", "-z", "--stdin"), cwd=directory, given=given, ok=(0, 1))
        hits = {os.fsdecode(row).rstrip("/") for row in said.split(b"\0") if row}
        matched += hits
        paths = [below for path in paths if path not in hits for below in _directories_in(directory, path)]
    return matched


def _directories_in(top: str, path: str) -> list[str]:
    try:
        with os.scandir(os.path.join(top, path)) as entries:
            return [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


class _Mode(enum.Enum):
    """Which files of a directory count."""

    ALL = 1  # all that no rule drops: no repository here, or ignored files are inputs
    GIT = 2  # what git names
    ONLY = 3  # an excluded directory: what is tracked or asked for by name, and the way to it
    FORCED = 4  # `force_include` named a directory at or above this one


class _Walk:
    def __init__(
        self,
        top: AbsPath,
        rules: ManifestRules,
        *,
        ignored_inputs: bool,
        build_dirs: Collection[str],
        also: Collection[str],
    ) -> None:
        self.found = Listing()
        self._top = top
        self._everything = ignored_inputs
        self._build_dirs = frozenset(build_dirs)
        self._named = frozenset(also) | frozenset(path for path in rules.required if not path.endswith("/"))
        self._whole = frozenset(path[:-1] for path in rules.required if path.endswith("/"))
        self._on_the_way = _parents(self._named) | _parents(self._whole)
        self._above_tracked: set[str] = set()
        lines = [p for p in rules.exclude if not (ignored_inputs and p in OBJECT_PATTERNS)]
        self._patterns = Patterns([*lines, *rules.exclude_extra])
        self._force = Patterns(rules.force_include)
        self._untracked: set[str] = set()
        self._ignored_dirs: set[str] = set()
        self._passed_by = False  # a directory was entered that is listed only if something in it is
        self._own_rules: list[tuple[str, Patterns]] = []  # (prefix, .rchignore there), outer ones first

    def run(self) -> None:
        self.found.taken_ns = time.time_ns()
        checkout = checkout_above(self._top)
        mode = _Mode.ALL
        if checkout is not None:
            self.found.checkout = checkout
            if not _is_ignored(checkout, self._top):  # else: unpacked in an ignored directory, its rules are not ours
                self._merge(_git_view(checkout, self._top, "", tracked_only=self._everything))
                mode = _Mode.ALL if self._everything else _Mode.GIT
        stack = [("", mode)]
        with opened(self._top) as tree:
            while stack:
                self._visit(tree, *stack.pop(), stack)
        self._add_parents()
        self.found.held_back.sort()
        self.found.left_out.sort()
        self.found.checkouts.sort()

    def _merge(self, view: _GitView) -> None:
        self.found.tracked |= view.tracked
        self._untracked |= view.untracked
        self._ignored_dirs |= view.ignored_dirs
        self._above_tracked |= _parents(view.tracked)

    def _visit(self, tree: Beneath, directory: str, mode: _Mode, stack: list[tuple[str, _Mode]]) -> None:
        """Sort the names of *directory* ("" = the root) and put the directories to go on with on *stack*."""
        prefix = directory + "/" if directory else ""
        where = os.path.join(self._top, directory) if directory else self._top
        try:
            handle = tree.directory(directory)
        except PermissionError as error:
            raise unreadable(where) from error
        except OSError:
            return  # removed or replaced since its parent was read
        names = os.listdir(handle)
        if ".git" in names:
            names.remove(".git")
            changed = self._enter_checkout(directory, mode) if directory else mode
            if changed is None:
                return
            mode = changed
        if IGNORE_FILE in names:
            self._read_rules(handle, where, prefix)
        in_rch = directory == ".rch" or directory.endswith("/.rch")
        # 50,000 times for 50,000 files: a call saved here is 5 ms each
        lstat, tracked, files = os.stat, self.found.tracked, self.found.files
        usual = not self._own_rules and not in_rch
        for name in names:
            try:
                status = lstat(name, dir_fd=handle, follow_symlinks=False)
            except FileNotFoundError:
                continue
            path = prefix + name
            kind = status.st_mode & 0o170000
            if kind == stat.S_IFREG and usual and path in tracked:
                files[path] = status
            elif kind == stat.S_IFDIR:
                if not in_rch:
                    below = self._directory_mode(path, name, mode)
                    if below is not None:
                        stack.append((path, below))
                        if below is not _Mode.ONLY or path in self._on_the_way or path in self._above_tracked:
                            self.found.directories[path] = status
                        else:
                            self._passed_by = True
            elif kind == stat.S_IFREG:
                if self._travels(path, name, mode) and not (in_rch and not name.endswith(".toml")):
                    files[path] = status
            elif kind == stat.S_IFLNK and self._travels(path, name, mode):
                self.found.links[path] = status
            # sockets, FIFOs and devices are no inputs and cannot be sent

    def _directory_mode(self, path: str, name: str, mode: _Mode) -> _Mode | None:
        """How to go on below the directory *path*; None = not at all."""
        if mode is _Mode.FORCED or (self._force and self._force.verdict(path, is_dir=True)):
            return _Mode.FORCED
        has_tracked = path in self._above_tracked
        if self._own_rules and self._own_verdict(path, is_dir=True):
            if has_tracked:
                self.found.left_out.append(path + "/")
            return _Mode.ONLY if path in self._on_the_way or self._force else None
        secret = is_never_entered(name)
        excluded = (
            mode is _Mode.ONLY
            or secret
            or path in self._build_dirs
            or (mode is _Mode.GIT and path in self._ignored_dirs)
            or (not has_tracked and self._own_verdict(path, is_dir=True) is None
                and self._patterns.verdict(path, is_dir=True) is True)
        )  # fmt: skip
        if not excluded:
            return mode
        if path in self._whole and path not in self._build_dirs:
            return _Mode.ALL
        if secret and not has_tracked and mode is not _Mode.ONLY:
            self.found.held_back.append(path + "/")
        if has_tracked or path in self._on_the_way or self._force:
            return _Mode.ONLY
        return None

    def _travels(self, path: str, name: str, mode: _Mode) -> bool:
        """Decide about one file or link."""
        if path in self.found.tracked:
            if self._own_rules and path not in self._named and self._own_verdict(path, is_dir=False):
                self.found.left_out.append(path)
                return False
            return True
        if path in self._named or (self._force and self._force.verdict(path, is_dir=False)):
            return True
        if mode is _Mode.ONLY or (mode is _Mode.GIT and path not in self._untracked) or name.startswith(OWN_PREFIXES):
            return False
        if mode is not _Mode.FORCED:
            own = self._own_verdict(path, is_dir=False)
            if own or (own is None and self._patterns.verdict(path, is_dir=False)):
                return False
        if is_never_sent(name):
            self.found.held_back.append(path)
            return False
        return True

    def _own_verdict(self, path: str, *, is_dir: bool) -> bool | None:
        """What the ``.rchignore`` files say, the nearest first."""
        for prefix, patterns in reversed(self._own_rules):
            if path.startswith(prefix):
                verdict = patterns.verdict(path[len(prefix) :], is_dir=is_dir)
                if verdict is not None:
                    return verdict
        return None

    def _read_rules(self, handle: int, where: str, prefix: str) -> None:
        try:
            fd = os.open(IGNORE_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=handle)
            with open(fd, "rb") as stream:
                lines = stream.read(1 << 20).decode("utf-8", "surrogateescape").split("\n")
        except OSError as error:
            raise unreadable(os.path.join(where, IGNORE_FILE)) from error
        self._own_rules.append((prefix, Patterns(lines)))

    def _enter_checkout(self, directory: str, mode: _Mode) -> _Mode | None:
        """*directory* holds a ``.git`` of its own: a submodule, a nested clone, or a linked worktree of the root's."""
        where = os.path.join(self._top, directory)
        checkout = checkout_at(where)
        if checkout is None:
            return _Mode.ALL if mode is _Mode.GIT and directory + "/" in self._untracked else mode
        if self.found.checkout is not None and os.path.realpath(checkout.common_dir) == os.path.realpath(
            self.found.checkout.common_dir
        ):
            return None  # a linked worktree of the same repository: another copy of this project, no input of it
        self.found.tracked.discard(directory)
        self.found.checkouts.append(RelPath(directory))
        if mode is not _Mode.ONLY:
            self._merge(_git_view(checkout, where, directory + "/", tracked_only=self._everything))
        return _Mode.GIT if mode is _Mode.ALL and not self._everything else mode

    def _add_parents(self) -> None:
        """Directories that only became part of the listing through what was found below them."""
        if not self._passed_by:
            return
        for path in _parents({*self.found.files, *self.found.links}) - self.found.directories.keys():
            with contextlib.suppress(FileNotFoundError):
                self.found.directories[path] = os.lstat(os.path.join(self._top, path))


def _is_ignored(checkout: Checkout, top: str) -> bool:
    """True if *top*, a directory inside *checkout*, is ignored there and holds nothing tracked."""
    if checkout.top == top:
        return False
    inside = os.path.relpath(top, checkout.top) + "/"
    try:
        run_git(checkout, ("check-ignore", "-q", "--", inside))
        return not run_git(checkout, ("ls-files", "-z", "--", inside))
    except GitFailed:
        return False


def _parents(paths: Collection[str]) -> set[str]:
    """Every directory above one of *paths*."""
    found: set[str] = set()
    for direct in {path.rpartition("/")[0] for path in paths}:
        parent = direct
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def opened(top: str) -> Beneath:
    """The directory *top* (resolved). Raises NotOffloadable ``missing-input``."""
    try:
        return Beneath(top)
    except OSError as error:
        raise unreadable(top) from error


def unreadable(path: str) -> NotOffloadable:
    """The error for an input that this user cannot read: the tool here would meet the same, so it may say so."""
    return NotOffloadable(f"{path} cannot be read", code="missing-input", hint=f"ls -ld {path}")
