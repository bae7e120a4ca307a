"""A workstation and its workers in one temporary directory: our transfer code against the worker's real root code.

Nothing is played but the wire: every request passes through the protocol's own JSON, rsync is a copy of the named
files. A *job* is a function that changes the worker's tree.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rch.errors import WorkerFault
from rch.execute.channel import Answer
from rch.execute.executor import Hello, Moved
from rch.fleet.model import Declared, Worker
from rch.paths import AbsPath, RelPath
from rch.project.builddirs import scan_build_dirs
from rch.project.model import Manifest, Root
from rch.project.statcache import stat_cache
from rch.transfer import (
    BuildDir,
    HeldIndex,
    Pushed,
    Returned,
    exists_here,
    plan_push,
    prepare_part,
    push,
    return_delta,
    shared_tree_paths,
)
from rch.transfer.snapshot import TICK_NS
from rch.worker import roots as worker_roots
from rch.worker._change import parse_change
from rch.worker.cache import Cache
from rch.worker.protocol import INLINE_LIMIT, Entry, hash_bytes, pack, unpack
from rch.worker.refusal import Refusal

KEY = "0123456789abcdef"


class SimWorker:
    """An Executor whose worker lives in a directory of this machine. ``faults[op]`` are raised first, in order."""

    def __init__(self, base: Path, name: str) -> None:
        self.name = name
        self.cache = Cache(str(base / name))
        self.cache.create()
        self.root = worker_roots.Root(self.cache, KEY)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.faults: dict[str, list[Exception]] = {}
        self.answers: dict[str, Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]] = {}
        self.kept: dict[str, dict[str, Any]] = {}
        self.sent_by_rsync: list[str] = []
        self.received_by_rsync: list[str] = []
        self.is_connected = True
        self.before_send: Callable[[], None] = lambda: None

    # -- Executor ----------------------------------------------------------------------------------------------

    @property
    def worker(self) -> Worker:
        return Worker(Declared(self.name, "127.0.0.1"))

    @property
    def cache_dir(self) -> str:
        return self.cache.path

    @property
    def connected(self) -> bool:
        return self.is_connected

    def connect(self) -> Hello:
        return Hello(1, "0", "0", "0", 2, sandbox_ok=True)

    def link_mbit_s(self) -> float | None:
        return None

    def clock_offset_ns(self) -> int:
        return 0

    def close(self) -> None:
        return

    def request(
        self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", *, timeout_s: float = 30.0
    ) -> Answer:
        sent, body = unpack(pack(dict(fields or {}), body))
        self.calls.append((op, sent))
        if self.faults.get(op):
            raise self.faults[op].pop(0)
        try:
            answer, out = getattr(self, f"_{op}")(sent, body)
        except Refusal as refusal:
            raise WorkerFault(str(refusal), host=self.name, operation=op, code=refusal.code) from refusal
        if op in self.answers:
            answer, out = self.answers[op](answer, out)
        return Answer(*unpack(pack(answer, out)))

    def send_files(self, source: AbsPath, paths: Sequence[str], target: str) -> Moved:
        if self.faults.get("send_files"):
            raise self.faults["send_files"].pop(0)
        self.before_send()
        self.sent_by_rsync += paths
        _copy_files(source, paths, target)
        return Moved(len(paths), 0, 0.0, 1)

    def receive_files(self, source: str, paths: Sequence[str], target: AbsPath, *, largest: int) -> Moved:
        if self.faults.get("receive_files"):
            raise self.faults["receive_files"].pop(0)
        self.received_by_rsync += paths
        _copy_files(source, paths, target)
        return Moved(len(paths), 0, 0.0, 1)

    # -- operations, as serve answers them ---------------------------------------------------------------------

    def _prepare(self, fields: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        (part,) = fields["roots"]
        if not self.root.exists():
            self.root.create()
        standing = self.root.standing()
        applied = False
        generation = standing.generation
        if not standing.dirty and part["base"] == standing.generation:
            change, _ = parse_change(part, body)
            generation, _ = self.root.sync(part["base"], change)
            applied = True
        return {"roots": {KEY: {"generation": generation, "dirty": standing.dirty, "applied": applied}}}, b""

    def _index(self, fields: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        generation, entries = self.root.index()
        return {"generation": generation, "dirty": False, "entries": entries}, b""

    def _sync(self, fields: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        change, _ = parse_change(fields, body)
        generation, _ = self.root.sync(fields["base"], change, reset=fields["reset"])
        return {"generation": generation}, b""

    def _delta(self, fields: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        found = self.root.delta(
            fields["job"],
            fields["since"],
            fields["inline"],
            self.kept.setdefault(fields["job"], {}),
            ended_ns=time.time_ns(),
        )
        answer = {
            "generation": found.generation,
            "complete": found.complete,
            "entries": found.entries,
            "order": found.order,
            "deletes": found.deletes,
            "bodies": [[path, len(data)] for path, data in found.bodies],
        }
        return answer, b"".join(data for _, data in found.bodies)

    def _get(self, fields: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        found = self.root.get(fields["paths"], INLINE_LIMIT)
        return {"bodies": [[path, len(data)] for path, data in found]}, b"".join(data for _, data in found)

    # -- for tests ---------------------------------------------------------------------------------------------

    @property
    def tree(self) -> Path:
        return Path(self.root.tree)

    def count(self, op: str) -> int:
        return sum(called == op for called, _ in self.calls)


def _copy_files(source: str, paths: Sequence[str], target: str) -> None:
    for path in paths:
        try:
            status = os.lstat(os.path.join(source, path))
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        copy = os.path.join(target, path)
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copyfile(os.path.join(source, path), copy)


Job = Callable[[Path], None]


@dataclass
class World:
    """``here`` is the project, ``target`` its build directory; names in ``ignored`` are what git would ignore."""

    base: Path
    build_dirs: tuple[str, ...] = ("target",)
    ignored: set[str] = field(default_factory=set)
    number: int = 0

    def __post_init__(self) -> None:
        self.here = self.base / "project"
        self.here.mkdir(exist_ok=True)
        self.state = AbsPath(str(self.base / "state"))
        self.workers: dict[str, SimWorker] = {}
        self.pushed: Pushed | None = None

    @property
    def root(self) -> Root:
        real = AbsPath(str(self.here))
        return Root(real, real, KEY, tuple(RelPath(d) for d in self.build_dirs))

    def worker(self, name: str = "w1") -> SimWorker:
        if name not in self.workers:
            self.workers[name] = SimWorker(self.base, name)
        return self.workers[name]

    def held(self, name: str = "w1") -> HeldIndex:
        return HeldIndex.load(self.state, KEY, name)

    def manifest(self) -> Manifest:
        taken = time.time_ns()
        also = shared_tree_paths(self.state, self.root)
        entries = snapshot(self.here, skip=self.build_dirs)
        kept = {p: e for p, e in entries.items() if p in also or not any(part in self.ignored for part in p.split("/"))}
        digest = hash_bytes(repr(sorted((p, e.type, e.mode, e.content) for p, e in kept.items())).encode())
        return Manifest(kept, digest, taken)

    def push(self, name: str = "w1", **options: Any) -> Pushed:
        worker, root, manifest, held = self.worker(name), self.root, self.manifest(), self.held(name)
        reset = bool(options.get("reset"))
        held = held.afresh() if reset else held
        here = exists_here(root)
        plan = plan_push(manifest, root, held, here)
        part, body = prepare_part(plan, manifest, root, room=-1 if reset else INLINE_LIMIT)
        self.number += 1
        answer = worker.request("prepare", {"job": self.job, "roots": [part]}, body).fields
        self.pushed = push(
            worker,
            self.job,
            root,
            manifest,
            held,
            plan,
            part=part,
            answer=answer["roots"][KEY],
            exists_here=here,
            pause=lambda _s: None,
            **options,
        )
        self.pushed.held.save(self.state)
        return self.pushed

    @property
    def job(self) -> str:
        return f"job-{self.number}"

    def work(self, job: Job, name: str = "w1") -> None:
        worker = self.worker(name)
        worker.root.job_started(self.job)
        job(worker.tree)

    def fetch(self, name: str = "w1", policy: BuildDir = BuildDir.FULL, **options: Any) -> Returned:
        assert self.pushed is not None
        arguments: dict[str, Any] = {
            "scan": lambda: scan_build_dirs(self.root, stat_cache(self.state, KEY, "build")),
            "pause": lambda _s: None,
            "machine": None,
            **options,
        }
        return return_delta(
            self.worker(name),
            self.job,
            self.root,
            self.pushed.manifest,
            self.pushed.held,
            state_dir=self.state,
            policy=policy,
            **arguments,
        )

    def run(self, job: Job, name: str = "w1", policy: BuildDir = BuildDir.FULL, **options: Any) -> Returned:
        """One command: push, job, return."""
        self.push(name)
        self.work(job, name)
        return self.fetch(name, policy, **options)

    def settle(self) -> None:
        """Let the kernel's file clock leave this moment: what was written so far is older than the next snapshot."""
        time.sleep(2 * TICK_NS / 1e9)

    def write(self, path: str, text: str = "", mode: int | None = None) -> Path:
        return write(self.here, path, text, mode)


def write(base: Path, path: str, text: str = "", mode: int | None = None) -> Path:
    """Write a file below *base* anew (another inode, as compilers do), parents included."""
    target = base / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        target.unlink()
    target.write_text(text)
    if mode is not None:
        target.chmod(mode)
    return target


def snapshot(base: Path, skip: Sequence[str] = ()) -> dict[str, Entry]:
    """path -> Entry of everything below *base*, hard-linked sets numbered."""
    found: dict[str, Entry] = {}
    inodes: dict[int, list[str]] = {}
    for directory, names, files in os.walk(base):
        relative = os.path.relpath(directory, base)
        prefix = "" if relative == "." else relative + "/"
        names[:] = [n for n in names if prefix + n not in skip]
        for name in (*names, *files):
            path = prefix + name
            if path in skip:
                continue
            full = os.path.join(directory, name)
            status = os.lstat(full)
            if stat.S_ISLNK(status.st_mode):
                found[path] = Entry(path, "l", 0, 0, status.st_mtime_ns, os.readlink(full))
            elif stat.S_ISDIR(status.st_mode):
                found[path] = Entry(path, "d", status.st_mode & 0o777, 0, status.st_mtime_ns, "")
            elif stat.S_ISREG(status.st_mode):
                content = hash_bytes(Path(full).read_bytes())
                found[path] = Entry(path, "f", status.st_mode & 0o777, status.st_size, status.st_mtime_ns, content)
                if status.st_nlink > 1:
                    inodes.setdefault(status.st_ino, []).append(path)
    for number, paths in enumerate(sorted(p for p in inodes.values() if len(p) > 1)):
        for path in paths:
            found[path] = found[path]._replace(group=number)
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def make_world() -> Callable[..., World]:
    return World


@pytest.fixture
def put() -> Callable[..., Path]:
    """:func:`write`, for jobs."""
    return write


@pytest.fixture
def look() -> Callable[..., dict[str, Entry]]:
    """:func:`snapshot`."""
    return snapshot
