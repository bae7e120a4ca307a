"""What travels between the steps of a transfer: stamps, plans, the Delta, and what came of them. No I/O."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rch.paths import AbsPath, RelPath
from rch.project.model import Manifest
from rch.worker.protocol import Entry

if TYPE_CHECKING:
    from rch.transfer.held import HeldIndex

TYPE_OF_MODE = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}


class Stamp(NamedTuple):
    """What ``lstat`` said about one path here; equal stamps mean nobody touched it.

    type: ``f``, ``d``, ``l``, or ``?`` for sockets, devices and the like. mode: permission bits, 0 for links.
    """

    type: str
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        kind = TYPE_OF_MODE.get(stat.S_IFMT(status.st_mode), "?")
        mode = 0 if kind == "l" else stat.S_IMODE(status.st_mode) & 0o777
        size = status.st_size if kind == "f" else 0
        return cls(kind, mode, size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


class LocalBuild(Protocol):
    """The build directories as they lie here; ``rch.project.BuildState`` is one.

    ``self[path]`` is an Entry whose ``content`` is "" for a file that nobody has hashed yet.
    """

    def __getitem__(self, path: str, /) -> Entry: ...

    def __contains__(self, path: object, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def status(self, path: str) -> os.stat_result:
        """The lstat that the entry was made from. Raises KeyError."""
        ...

    def hash_of(self, path: str) -> str:
        """Hash the file now if it must be; "" when it is gone. Entry and status follow."""
        ...


class Placed(NamedTuple):
    """A path that was written here: what it is and what lstat said right afterwards."""

    entry: Entry
    status: os.stat_result


@dataclass(frozen=True)
class PushPlan:
    """What a worker's tree lacks to equal the manifest.

    base:     generation of the worker's tree that this was computed against; "" for a tree that is new or not known.
    changes:  entries whose type, content or set of hard links differs there. Hard-linked files come as whole sets, each
              with the first name leading: its content makes all of them.
    contents: the files among *changes* whose content has to travel.
    metadata: entries that differ in mode or time only.
    deletes:  paths to remove there, deepest first; a directory stands after everything in it.
    exact:    paths among *changes* whose time must not be bumped (PM-05), because a job made the version that lies
              there now: what is sent puts an older product back, it is no edit.
    """

    root_key: str
    base: str
    changes: tuple[Entry, ...] = ()
    contents: tuple[Entry, ...] = ()
    metadata: tuple[Entry, ...] = ()
    deletes: tuple[RelPath, ...] = ()
    exact: tuple[RelPath, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of content that have to travel."""
        return sum(e.size for e in self.contents)

    @property
    def empty(self) -> bool:
        return not (self.changes or self.metadata or self.deletes)


@dataclass(frozen=True)
class Delta:
    """A worker's validated answer to ``delta``: what differs there since generation ``since``.

    entries: in the order in which they were last written there (ctime).
    bodies:  contents that came along, path -> bytes, already checked against size and hash.
    complete: entries are the whole tree, not a difference.
    """

    generation: str
    complete: bool
    entries: tuple[Entry, ...] = ()
    deletes: tuple[RelPath, ...] = ()
    bodies: Mapping[str, bytes] = field(default_factory=dict)


class BuildDir(enum.StrEnum):
    """``artifacts.build_dir`` once "auto" is resolved (design.md 6.4)."""

    FULL = "full"
    OUTPUTS = "outputs"
    NONE = "none"


class ConflictKind(enum.StrEnum):
    """Why a path of the worker was not placed (lessons AR-03).

    SOURCE: it changed here since the snapshot; the local file stays, the exit code too.
    UNSENT: it exists here, was never sent (git-ignored), and the job made its own; the local file stays.
    BUILD:  a path of the build directory changed here while the job ran.
    """

    SOURCE = "source"
    UNSENT = "unsent"
    BUILD = "build"


@dataclass(frozen=True)
class Conflict:
    path: RelPath
    kind: ConflictKind


Expected = Stamp | Entry | None
"""State of a path here before placement: the stamp of a scan, the manifest's entry, or None for "nothing there"."""


@dataclass(frozen=True)
class Placing:
    """One path that must look like *entry* here. ``entry.mtime_ns`` is what will be set (capped if it must be).

    fetch: the content has to come (files only); else only mode and time are set.
    """

    entry: Entry
    expected: Expected
    build: bool
    fetch: bool


@dataclass(frozen=True)
class Removal:
    """One path that must be gone here; a directory goes only when it is empty by then."""

    path: RelPath
    type: str
    expected: Expected
    build: bool


@dataclass(frozen=True)
class ReturnPlan:
    """Everything that makes this machine equal to the worker, in the order in which it has to happen.

    removals:  deepest first, before any placing.
    placings:  files, links and new directories in the worker's write order; directories that exist come last.
    conflicts: known before anything is placed.
    cap_ns:    no returned time is newer than this, because sources changed here (PM-04); None: times are exact.
    """

    root_key: str
    placings: tuple[Placing, ...] = ()
    removals: tuple[Removal, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    cap_ns: int | None = None

    @property
    def size_bytes(self) -> int:
        """Content to be fetched, hard-linked files counted once."""
        return sum(entry.size for entry in self.to_fetch)

    @property
    def to_fetch(self) -> tuple[Entry, ...]:
        """Files whose content is needed, one for each hard-linked group."""
        seen: set[int] = set()
        wanted = []
        for placing in self.placings:
            if not placing.fetch:
                continue
            group = placing.entry.group
            if group is not None:
                if group in seen:
                    continue
                seen.add(group)
            wanted.append(placing.entry)
        return tuple(wanted)

    @property
    def empty(self) -> bool:
        return not (self.placings or self.removals)


@dataclass(frozen=True)
class Placement:
    """What :func:`place` did. ``placed`` has the stamp of every path it wrote, for stat caches."""

    placed: Mapping[str, Placed] = field(default_factory=dict)
    removed: tuple[RelPath, ...] = ()
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True)
class Pushed:
    """The worker's tree is ``manifest`` (the one given, or a newer one when files changed while they were sent).

    held: the index of the worker's tree after the push; give it to :func:`return_delta`.
    files, size_bytes: contents that travelled. deletes: paths removed there. inline: no rsync was started.
    requests: round trips made by :func:`push`, the prepare not counted. processes: rsync processes.
    unstable: sources kept changing here while they were sent (SP-04); the job may not be shared.
    """

    manifest: Manifest
    held: HeldIndex
    files: int = 0
    size_bytes: int = 0
    metadata: int = 0
    deletes: int = 0
    requests: int = 0
    processes: int = 0
    unstable: bool = False


@dataclass(frozen=True)
class Returned:
    """What came back and lies here, verified.

    files, size_bytes: contents that were fetched (0 after a job that had nothing to do).
    repair_locally: the command has to run here now, because a build directory (or a file that was never sent)
                    changed meanwhile; nothing stale may stand behind an exit 0 (AR-03).
    capped: times were capped at the snapshot's (PM-04).
    """

    files: int = 0
    size_bytes: int = 0
    metadata: int = 0
    deletes: int = 0
    requests: int = 0
    processes: int = 0
    conflicts: tuple[Conflict, ...] = ()
    capped: bool = False
    placement: Placement = field(default_factory=Placement)

    @property
    def repair_locally(self) -> bool:
        return any(c.kind is not ConflictKind.SOURCE for c in self.conflicts)


@dataclass(frozen=True)
class RolledForward:
    """An interrupted placement that was found at start.

    complete: all of it lies there now, but for the source conflicts in ``placement``; else the rest was dropped.
    """

    root: AbsPath
    job: str
    complete: bool
    why: str = ""
    placement: Placement = field(default_factory=Placement)
