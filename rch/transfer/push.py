"""Manifest -> the same files there, and nothing else sent (lessons SP-02, SP-04, SP-11, SP-12)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rch.errors import TransferFault, Unreachable, WorkerFault
from rch.execute.executor import Executor
from rch.paths import AbsPath
from rch.project.beneath import Beneath
from rch.project.model import Manifest, Root
from rch.transfer._retry import with_retries
from rch.transfer.held import HeldIndex
from rch.transfer.model import Pushed, PushPlan
from rch.transfer.pushes import MB, plan_push
from rch.transfer.snapshot import changed_since
from rch.transfer.validate import checked_generation, parse_index
from rch.worker.protocol import INLINE_LIMIT, Entry, hash_bytes, hash_stream

ROUNDS = 3
"""How often a push that finds its sources changed, or the worker's tree unlike the record, starts over."""


def prepare_part(
    plan: PushPlan, manifest: Manifest, root: Root, *, room: int = INLINE_LIMIT
) -> tuple[dict[str, Any], bytes]:
    """This root's object in the request ``prepare`` and what it adds to the body.

    The plan goes along ("changes" is in the object) when its contents fit into *room* bytes and are still what the
    manifest says; else the object only asks for the lock, and :func:`push` brings the rest.
    """
    part: dict[str, Any] = {"key": root.key, "path": root.path, "base": plan.base}
    if plan.size_bytes > room:
        return part, b""
    try:
        bodies, body = _contents(plan.contents, manifest, root)
    except _Changed:
        return part, b""
    return {**part, **_fields(plan), "bodies": bodies}, body


def _fields(plan: PushPlan) -> dict[str, Any]:
    return {
        "changes": [e.as_json() for e in plan.changes] + [e._replace(group=None).as_json() for e in plan.metadata],
        "deletes": list(plan.deletes),
        "exact": list(plan.exact),
    }


class _Changed(Exception):
    """A source is not what the manifest says any more."""


def _contents(files: Iterable[Entry], manifest: Manifest, root: Root) -> tuple[list[list[Any]], bytes]:
    """``bodies`` and body of *files*, each proven to be what the manifest says. Raises _Changed."""
    rows: list[list[Any]] = []
    parts: list[bytes] = []
    with Beneath(root.real) as tree:
        for entry in files:
            source = manifest.sources.get(entry.path)
            try:
                if source is None:
                    with tree.open_file(entry.path) as fd:
                        data = _read(fd, entry.size)
                else:
                    with open(source, "rb") as stream:
                        data = stream.read(entry.size + 1)
            except OSError as error:
                raise _Changed from error
            if len(data) != entry.size or hash_bytes(data) != entry.content:
                raise _Changed
            rows.append([entry.path, entry.size])
            parts.append(data)
    return rows, b"".join(parts)


def _read(fd: int, size: int) -> bytes:
    parts = []
    left = size + 1  # one more shows that the file has grown
    while left and (block := os.read(fd, left)):
        parts.append(block)
        left -= len(block)
    return b"".join(parts)


@dataclass
class _Tally:
    """What a push has cost so far."""

    files: int = 0
    size_bytes: int = 0
    metadata: int = 0
    deletes: int = 0
    requests: int = 0
    processes: int = 0

    def count(self, plan: PushPlan) -> None:
        self.files += len(plan.contents)
        self.size_bytes += plan.size_bytes
        self.metadata += len(plan.metadata) + len(plan.changes) - len(plan.contents)
        self.deletes += len(plan.deletes)


def push(
    executor: Executor,
    job: str,
    root: Root,
    manifest: Manifest,
    held: HeldIndex,
    plan: PushPlan,
    *,
    part: Mapping[str, Any],
    answer: Mapping[str, Any],
    exists_here: Callable[[str], bool],
    looked: bool = False,
    reset: bool = False,
    rescan: Callable[[], Manifest] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Pushed:
    """Make the worker's tree the manifest, after ``prepare`` took its lock.

    part, answer: what :func:`prepare_part` gave, and the worker's answer for this root (generation, dirty, applied).
    looked:  the caller asked :func:`changed_since` after :func:`prepare_part` had read the contents, and nothing had
             changed: what the worker applied of that request is one state of this tree (SP-04).
    reset:   begin with an empty tree there: every file goes over, its hash is checked there, nothing of an earlier job
             stays (``--no-cache``, coverage A-12). *held* is then :meth:`HeldIndex.afresh`.
    rescan:  takes a new manifest; without it a source that changed while it was sent makes the job unstable (SP-04).
    Raises TransferFault, Unreachable, DiskFull, WorkerFault, HostileAnswer; then the worker's tree is marked dirty
    or unchanged, and the next push repairs it.
    """
    tally = _Tally()
    host = executor.worker.name
    sender = _Sender(executor, job, root, pause, tally)
    generation = str(answer.get("generation") or "") and checked_generation(answer, host)
    if answer.get("applied") is True and "changes" in part:
        tally.count(plan)
        held = held.pushed(plan, generation, manifest.entries)
        pending = False
    else:
        if not reset and (answer.get("dirty") or generation != (held.generation or "")):
            held = sender.learn(held, exists_here)
            plan = plan_push(manifest, root, held, exists_here)
        pending = True

    looked = looked and not pending
    unstable = False
    for attempt in range(ROUNDS):
        last = attempt == ROUNDS - 1
        if pending:
            try:
                held = sender.sync(plan, manifest, held, reset=reset)
                pending = reset = False
            except _Changed:
                if last or rescan is None:
                    manifest, held = sender.sync_frozen(plan, manifest, held, exists_here, reset=reset)
                    unstable = True
                    break
            except _Unknown:
                if last:
                    raise
                held = sender.learn(held, exists_here)
                plan = plan_push(manifest, root, held, exists_here)
                continue
        if not pending and (looked or not changed_since(manifest, root)):
            break
        if not pending and (rescan is None or last):
            unstable = True
            break
        assert rescan is not None
        manifest = rescan()
        plan = plan_push(manifest, root, held, exists_here)
        pending = pending or not plan.empty
    return Pushed(manifest, held, unstable=unstable, **vars(tally))


def _frozen(plan: PushPlan, manifest: Manifest, root: Root, directory: str) -> Manifest:
    """*manifest* with every file that *plan* sends as it is now, its content kept in *directory*."""
    entries, sources = dict(manifest.entries), dict(manifest.sources)
    with Beneath(root.real) as tree:
        for number, entry in enumerate(plan.contents):
            path = entry.path
            if path in manifest.sources:
                continue
            copy = os.path.join(directory, str(number))
            try:
                with tree.open_file(path) as fd, open(fd, "rb", closefd=False) as reader, open(copy, "xb") as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
                    status = os.fstat(fd)
            except OSError:
                del entries[path]  # gone meanwhile, or no file any more
                continue
            with open(copy, "rb", buffering=0) as stream:
                size, content = os.fstat(stream.fileno()).st_size, hash_stream(stream)
            mode = status.st_mode & 0o777
            entries[path] = Entry(path, "f", mode, size, status.st_mtime_ns, content)
            sources[path] = AbsPath(copy)
    return replace(manifest, entries=entries, sources=sources)


class _Unknown(WorkerFault):
    """The worker's tree is not what the record says."""


class _Sender:
    """The acting half of a push."""

    def __init__(
        self,
        executor: Executor,
        job: str,
        root: Root,
        pause: Callable[[float], None],
        tally: _Tally,
    ) -> None:
        self._executor = executor
        self._job = job
        self._root = root
        self._pause = pause
        self._tally = tally
        self._host = executor.worker.name

    def learn(self, held: HeldIndex, exists_here: Callable[[str], bool]) -> HeldIndex:
        """Ask the worker what its tree looks like."""
        answer = self._request("index", {}, timeout_s=120.0)
        generation, _dirty, entries = parse_index(answer, self._host)
        return held.adopted(generation, entries, exists_here)

    def sync(self, plan: PushPlan, manifest: Manifest, held: HeldIndex, *, reset: bool = False) -> HeldIndex:
        """Send and apply *plan*. Raises _Changed, _Unknown."""
        fields = _fields(plan)
        if plan.size_bytes <= INLINE_LIMIT:
            bodies, body = _contents(plan.contents, manifest, self._root)
            staged: list[str] = []
        else:
            bodies, body, staged = [], b"", [e.path for e in plan.contents]
            self._stage(plan.contents, manifest)
        # the worker hashes what came by rsync before it moves it: 20 MB/s is a slow disk
        timeout_s = 120.0 + plan.size_bytes / (20 * MB) + len(plan.changes) / 500
        request = {"base": plan.base, **fields, "bodies": bodies, "staged": staged, "reset": reset}
        try:
            answer = self._request("sync", request, body, timeout_s=timeout_s)
        except WorkerFault as error:
            if error.code in ("stale", "dirty"):
                raise _Unknown(
                    error.message, host=self._host, operation="sync", code=error.code, hint=error.hint
                ) from error
            if error.code == "mismatch":
                raise _Changed from error
            raise
        self._tally.count(plan)
        return held.pushed(plan, checked_generation(answer, self._host), manifest.entries)

    def sync_frozen(
        self,
        plan: PushPlan,
        manifest: Manifest,
        held: HeldIndex,
        exists_here: Callable[[str], bool],
        *,
        reset: bool,
    ) -> tuple[Manifest, HeldIndex]:
        """Send files that never hold still (a log that somebody writes) as copies, each in one state it has had."""
        with tempfile.TemporaryDirectory(prefix="rch-push-") as directory:
            frozen = _frozen(plan, manifest, self._root, directory)
            try:
                held = self.sync(plan_push(frozen, self._root, held, exists_here), frozen, held, reset=reset)
            except _Changed:
                raise TransferFault(
                    f"{self._root.path}: files changed while they were sent to {self._host}",
                    host=self._host,
                    direction="push",
                    hint="run the command again when nothing writes there",
                ) from None
        return replace(frozen, sources=manifest.sources), held

    def _request(self, op: str, fields: dict[str, Any], body: bytes = b"", *, timeout_s: float) -> dict[str, Any]:
        self._tally.requests += 1
        fields = {"job": self._job, "root": self._root.key, **fields}
        return self._executor.request(op, fields, body, timeout_s=timeout_s).fields

    def _stage(self, files: Sequence[Entry], manifest: Manifest) -> None:
        target = f"{self._executor.cache_dir}/roots/{self._root.key}/staging"
        elsewhere = {e.path: manifest.sources[e.path] for e in files if e.path in manifest.sources}
        ours = [e for e in files if e.path not in elsewhere]
        self._send(AbsPath(self._root.real), ours, target)
        if elsewhere:
            with tempfile.TemporaryDirectory(prefix="rch-push-") as assembled:
                for path, source in elsewhere.items():
                    copy = os.path.join(assembled, path)
                    os.makedirs(os.path.dirname(copy), exist_ok=True)
                    with contextlib.suppress(FileNotFoundError):  # the worker will miss it and say so
                        shutil.copyfile(source, copy)
                self._send(AbsPath(assembled), [e for e in files if e.path in elsewhere], target)

    def _send(self, source: AbsPath, files: Sequence[Entry], target: str) -> None:
        """One stream (docs/adr/0009), tried again where it broke off."""
        paths = [entry.path for entry in files]
        if paths:
            moved = with_retries(
                lambda: self._executor.send_files(source, paths, target), (TransferFault, Unreachable), self._pause
            )
            self._tally.processes += moved.processes
