"""One root of one real worker, with the client's half of the bookkeeping, for tests of rch-wkr."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Any

from rch.testing.worker_process import Result, WorkerProcess, minimal_spec
from rch.worker._cgroup import job_group
from rch.worker.protocol import hash_bytes

NUMBERS = itertools.count()
OLD = 1_600_000_000_123_456_789
PATH = "/srv/project"


Item = tuple[list[Any], bytes | None]
"""An entry's row and, for a file, the content that goes with it (None: it does not travel)."""


def file_item(
    path: str, content: bytes = b"", mode: int = 0o644, mtime_ns: int = OLD, group: int | None = None
) -> Item:
    row = [path, "f", mode, len(content), mtime_ns, hash_bytes(content)]
    return (row if group is None else [*row, group]), content


def directory_item(path: str, mode: int = 0o755, mtime_ns: int = OLD) -> Item:
    return [path, "d", mode, 0, mtime_ns, ""], None


def link_item(path: str, target: str, mtime_ns: int = OLD) -> Item:
    return [path, "l", 0, 0, mtime_ns, target], None


def can_limit_memory() -> bool:
    """May this account make the cgroup that a limit of memory needs?"""
    group = job_group(f"probe-{os.getpid()}", 1 << 28)
    if group is not None:
        group.remove()
    return group is not None


def new_job() -> str:
    """A job id that no other test uses."""
    return f"j-{os.getpid():x}-{next(NUMBERS)}"


class WorkerRoot:
    """Requests about one root; ``generation`` is what the client believes to be there."""

    def __init__(self, worker: WorkerProcess, key: str | None = None) -> None:
        self.worker = worker
        self.key = key or os.urandom(16).hex()
        self.job = new_job()
        self.generation: str | None = None
        self.directory = os.path.join(worker.cache_dir, "roots", self.key)
        self.tree = os.path.join(self.directory, "tree")

    def hold(
        self,
        job: str | None = None,
        *,
        slots: int = 1,
        wait_s: float = 5.0,
        items: Iterable[Item] = (),
        deletes: Iterable[str] = (),
        spec: dict[str, Any] | None = None,
        spec_body: bytes = b"",
        **more: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """prepare for this root (and start, with *spec*); the answer, and the part of it about this root."""
        if job is not None:
            self.job = job
        root, body = push(items, deletes)
        root = {"key": self.key, "path": PATH, "base": self.generation, **root, **more}
        fields: dict[str, Any] = {"job": self.job, "slots": slots, "wait_s": wait_s, "roots": [root]}
        if spec is not None:
            fields["spec"] = spec
        answer = self.worker.request("prepare", fields, body + spec_body).fields
        found = answer["roots"][self.key]
        if found["applied"]:
            self.generation = found["generation"]
        return answer, found

    def sync(
        self,
        *items: Item,
        deletes: Iterable[str] = (),
        staged: Iterable[str] = (),
        **more: Any,
    ) -> dict[str, Any]:
        """Push against the generation that the client believes in, or ``base``."""
        part, body = push(items, deletes, staged)
        fields = {"job": self.job, "root": self.key, "base": self.generation, **part, **more}
        answer = self.worker.request("sync", fields, body).fields
        self.generation = answer["generation"]
        return answer

    def index(self) -> dict[str, list[Any]]:
        """Path -> row of everything there."""
        answer = self.worker.request("index", {"job": self.job, "root": self.key}).fields
        self.generation = answer["generation"]
        return {row[0]: row for row in answer["entries"]}

    def delta(self, *, inline: int = 1 << 20, **more: Any) -> DeltaAnswer:
        """What changed since the generation that the client believes in, or ``since``."""
        fields = {"job": self.job, "root": self.key, "since": self.generation, "inline": inline, **more}
        message = self.worker.request("delta", fields)
        found = DeltaAnswer(message.fields, message.body)
        self.generation = found.generation
        return found

    def release(self, **more: Any) -> None:
        """Give the root back, as the end of a job does."""
        self.worker.request("release", {"job": self.job, **more})

    def run(self, script: str, **spec: Any) -> Result:
        """A shell script here as a job of its own, to its end; the job before lets go first."""
        self.release()
        _, found = self.hold(new_job())
        if not found["applied"]:
            self.index()  # nobody has read what the job before left
        full = minimal_spec(["sh", "-c", script], roots=[{"key": self.key, "path": PATH, "mode": "rw"}], cwd=PATH)
        full.update(spec)
        self.worker.request("start", {"job": self.job, "spec": full})
        return self.worker.follow(self.job)

    def path(self, *parts: str) -> str:
        """A path of the tree on the worker's disk."""
        return os.path.join(self.tree, *parts)


class DeltaAnswer:
    """The answer to ``delta`` with the body cut up; checks what every such answer promises."""

    def __init__(self, fields: dict[str, Any], body: bytes) -> None:
        self.generation: str = fields["generation"]
        self.complete: bool = fields["complete"]
        self.order: list[str] = fields["order"]
        self.deletes: list[str] = fields["deletes"]
        self.entries: dict[str, list[Any]] = {row[0]: row for row in fields["entries"]}
        self.bodies: dict[str, bytes] = {}
        for path, size in fields["bodies"]:
            self.bodies[path], body = body[:size], body[size:]
        assert body == b""
        assert [row[0] for row in fields["entries"]] == self.order


def push(
    items: Iterable[Item], deletes: Iterable[str] = (), staged: Iterable[str] = ()
) -> tuple[dict[str, Any], bytes]:
    """Items as the fields of a push, and its body."""
    rows: list[list[Any]] = []
    bodies: list[list[Any]] = []
    body = b""
    for row, content in items:
        rows.append(row)
        if row[1] == "f" and content is not None and row[0] not in staged:
            bodies.append([row[0], len(content)])
            body += content
    return {"changes": rows, "deletes": list(deletes), "bodies": bodies, "staged": list(staged)}, body
