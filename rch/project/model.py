"""The nouns of the project side: Root, Manifest, Project."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from rch.paths import AbsPath, Argv, RelPath
from rch.worker.protocol import Entry


@dataclass(frozen=True)
class Root:
    """One directory that a job sees at the same path.

    path:  as the caller sees it (links not resolved); the job sees exactly this path.
    real:  the resolved path; identity (key, lock, journal) uses this one.
    key:   BLAKE2b-128 hex of (client id, uid, real path); names the tree on every worker (lessons SP-09).
    build_dirs: build directories below this root, relative; their files are pushed by nobody, come back by policy.
    aliases: further paths at which the job sees the same tree, writable: where the caller typed a path through links
             (lessons PM-02), the other one of the two.
    """

    path: AbsPath
    real: AbsPath
    key: str
    build_dirs: tuple[RelPath, ...] = ()
    aliases: tuple[AbsPath, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a root looks like at one moment: every path that would be sent.

    entries: path -> Entry (type, mode, size, mtime_ns, hash); directories included.
    digest:  BLAKE2b-256 hex over path, type, mode, content of all entries, never times: affinity and dedup key.
    taken_ns: wall clock when the scan began; a file changed later is an edit during the job.
    held_back: untracked never-send names that were left out (counted, shown, lessons SP-01).
    left_out: tracked paths that ``.rchignore`` leaves out; directories end in "/".
    sources:  path -> file elsewhere that holds the content (the made-up ``.git`` of transfer.git = "head").
              Nothing below such a ``.git`` ever returns: the real one here is never touched.
    identity: (device, inode) of the directory that was read.
    """

    entries: Mapping[str, Entry]
    digest: str
    taken_ns: int
    held_back: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    sources: Mapping[str, AbsPath] = field(default_factory=dict)
    identity: tuple[int, int] | None = None


@dataclass(frozen=True)
class ExtraFile:
    """A small file outside the roots that the job needs at the same path, read-only (config, toolchain files)."""

    path: AbsPath
    content: bytes
    mode: int = 0o644


class Tool(enum.StrEnum):
    """A toolchain whose identity must be equal here and there before products may return."""

    RUST = "rust"
    C = "c"
    GO = "go"
    NODE = "node"


@dataclass(frozen=True)
class ToolIdentity:
    """Identity of one toolchain on one machine.

    identity: a string compared for equality: for Rust the whole of ``rustc -vV``, for C the compiler's version line,
              target, and the digest of the packages that own headers and libraries (lessons TE-01, TE-05).
    shown:    short form for messages ("rustc 1.95.0 (59807616e)").
    binds:    caller path -> what must be found there in the job (toolchain directories outside /usr).
    """

    tool: Tool
    identity: str
    shown: str
    binds: tuple[AbsPath, ...] = ()


@dataclass(frozen=True)
class Project:
    """One or more roots, the cwd inside one of them, and what the command needs besides.

    fetch: commands of the kind's fetch step (``cargo fetch``), run before the job with the caches writable.
    fetch_stamp: digest of all that decides what the fetch step brings; "" when that is not known here.
    env:   the environment the job gets (the kind's rule applied), complete, PATH and HOME included.
    cache_files: CARGO_HOME-relative registry/git files that this command needs and this machine has.
    module_cache, module_files: the same for GOMODCACHE.
    """

    roots: tuple[Root, ...]
    cwd: AbsPath
    name: str
    id: str
    manifests: Mapping[str, Manifest]  # by root key
    tools: tuple[ToolIdentity, ...] = ()
    extra_files: tuple[ExtraFile, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    fetch: tuple[Argv, ...] = ()
    cargo_home: AbsPath | None = None
    cache_files: tuple[RelPath, ...] = ()
    fetch_stamp: str = ""
    module_cache: AbsPath | None = None
    module_files: tuple[RelPath, ...] = ()

    @property
    def digest(self) -> str:
        """One digest over all roots."""
        from rch.worker.protocol import hash_bytes

        lines = (f"{root.path}\0{self.manifests[root.key].digest}" for root in self.roots)
        return hash_bytes("\0".join(lines).encode("utf-8", "surrogateescape"))
