"""The mock's worker: roots, slots, jobs and logs in memory, answering the operations of the control channel."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rch.execute.mock.shell import Died, OutOfMemory, Process
from rch.execute.mock.tree import MockTree
from rch.worker import protocol
from rch.worker.protocol import Entry, entry_from_json, hash_bytes


class Refusal(Exception):
    """An operation that is answered with an error."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


@dataclass
class MockJob:
    """One job: what it holds and what it has said."""

    id: str
    roots: list[tuple[str, str]] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    spec: dict[str, Any] | None = None
    log: bytearray = field(default_factory=bytearray)
    rc: dict[str, Any] | None = None
    started_ns: int = 0
    stdin: bytearray = field(default_factory=bytearray)
    stdin_ended: bool = False
    killed: threading.Event = field(default_factory=threading.Event)
    why_killed: str = "killed"
    before: dict[str, dict[str, Entry]] = field(default_factory=dict)


class MockWorker:
    """All state of one simulated worker; survives reconnects of its executor.

    slots: CPUs offered. now_ns: its clock; tests inject an offset here. seed: makes generations deterministic.
    programs: name -> script of the mock's shell, for what it can run beside the shell's own. lacks: names of programs
    that it says are not there.
    """

    def __init__(
        self,
        *,
        slots: int = 2,
        seed: int = 0,
        now_ns: Callable[[], int] = time.time_ns,
        programs: Mapping[str, str] | None = None,
    ) -> None:
        self._programs = dict(programs or {})
        self.slots_total = slots
        self.now_ns = now_ns
        self.boot_id = f"mock-{seed}"
        self.executions = 0
        self.lacks: set[str] = set()
        self.caches: dict[str, dict[str, bytes]] = {"cargo": {}, "go": {}}
        self.files: dict[str, bytes] = {}
        self._seed = seed
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._trees: dict[str, MockTree] = {}
        self._locks: dict[str, str] = {}
        self._busy: dict[int, str] = {}
        self._jobs: dict[str, MockJob] = {}

    def answer(self, op: str, fields: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """One operation; raises Refusal."""
        handler = getattr(self, f"_do_{op}", None)
        if handler is None:
            raise Refusal("bad-request", f"no operation {op}")
        answered: tuple[dict[str, Any], bytes] = handler(fields, body)
        return answered

    def forget_connection(self) -> None:
        """The connection ended: what no running job holds is free again, as when ``serve`` exits."""
        with self._changed:
            for job in self._jobs.values():
                if job.spec is None or job.rc is not None:
                    self._free(job)
            self._changed.notify_all()

    # -- about the worker ---------------------------------------------------------------------------------------

    def _do_hello(self, _: Mapping[str, Any], __: bytes) -> tuple[dict[str, Any], bytes]:
        return {
            "protocol": protocol.PROTOCOL,
            "version": "mock",
            "build": "mock",
            "python": "3",
            "boot_id": self.boot_id,
            "time_ns": self.now_ns(),
            "slots_total": self.slots_total,
            "compression": "none",
            "sandbox": {"ok": True, "why": ""},
        }, b""

    def _do_ping(self, _: Mapping[str, Any], __: bytes) -> tuple[dict[str, Any], bytes]:
        return {"time_ns": self.now_ns()}, b""

    def _do_health(self, _: Mapping[str, Any], __: bytes) -> tuple[dict[str, Any], bytes]:
        return {
            "time_ns": self.now_ns(),
            "load1": 0.0,
            "mem_total": 1 << 33,
            "mem_available": 1 << 33,
            "disk_free": 1 << 40,
            "disk_total": 1 << 40,
            "slots_total": self.slots_total,
            "slots_used": len(self._busy),
            "jobs": sum(j.rc is None and j.spec is not None for j in self._jobs.values()),
        }, b""

    def _do_gc(self, _: Mapping[str, Any], __: bytes) -> tuple[dict[str, Any], bytes]:
        return {"removed": [], "bytes": 0}, b""

    def _do_programs(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        rows = fields["programs"]
        return {"missing": [n for n, row in enumerate(rows) if {p.rpartition("/")[2] for p in row} & self.lacks]}, b""

    def _do_facts(self, _: Mapping[str, Any], __: bytes) -> tuple[dict[str, Any], bytes]:
        return {"facts": {"cores": self.slots_total, "machine": "mock", "os": {"id": "mock", "version_id": "1"}}}, b""

    # -- trees --------------------------------------------------------------------------------------------------

    def _do_prepare(self, fields: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        job = self._jobs.setdefault(str(fields["job"]), MockJob(str(fields["job"])))
        wanted = [(str(r["key"]), str(r["path"])) for r in fields.get("roots", [])]
        count = min(int(fields.get("slots", 0)), self.slots_total)
        started = time.monotonic()
        with self._changed:
            limit = float(fields.get("wait_s", 0))
            if not self._changed.wait_for(lambda: self._available(job, wanted, count), limit):
                raise Refusal("busy", "no free slots or roots")
            for key, _path in wanted:
                self._locks[key] = job.id
            job.roots = wanted
            if len(job.slots) < count and job.rc is None:
                free = [i for i in range(self.slots_total) if i not in self._busy]
                job.slots += free[: count - len(job.slots)]
                self._busy.update(dict.fromkeys(job.slots, job.id))
            rows = {}
            all_applied = True
            for part in fields.get("roots", []):
                tree = self._trees.setdefault(str(part["key"]), MockTree())
                base = part.get("base")
                apply = (base or "") == tree.generation and not tree.dirty
                if "changes" in part or not tree.generation:
                    body = self._take_bodies(tree, part, body, apply=apply)
                all_applied = all_applied and apply
                rows[part["key"]] = {"generation": tree.generation, "dirty": tree.dirty, "applied": apply}
        answer: dict[str, Any] = {"slots": list(job.slots), "roots": rows, "waited_s": time.monotonic() - started}
        if "spec" in fields and all_applied:
            self._start(job, fields["spec"])
            answer["started"] = True
        return answer, b""

    def _available(self, job: MockJob, wanted: list[tuple[str, str]], count: int) -> bool:
        if any(self._locks.get(key, job.id) != job.id for key, _ in wanted):
            return False
        return job.rc is not None or self.slots_total - len(self._busy) >= count - len(job.slots)

    def _do_index(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        tree = self._tree(fields)
        rows = [e.as_json() for e in tree.entries.values()]
        return {"generation": tree.generation, "dirty": tree.dirty, "entries": rows}, b""

    def _do_sync(self, fields: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        tree = self._tree(fields)
        if fields.get("reset"):
            self._trees[str(fields["root"])] = tree = MockTree()
        elif (fields.get("base") or "") != tree.generation:
            raise Refusal("stale", "another generation lies here")
        with self._changed:
            self._take_bodies(tree, fields, body, apply=True)
        return {"generation": tree.generation}, b""

    def _take_bodies(self, tree: MockTree, part: Mapping[str, Any], body: bytes, *, apply: bool) -> bytes:
        contents: dict[str, bytes] = {}
        position = 0
        for path, size in part.get("bodies", []):
            contents[path] = body[position : position + size]
            position += size
        if not apply:
            return body[position:]
        tree.dirty = True
        for path in part.get("deletes", []):
            tree.remove(protocol.check_relpath(path))
        prefix = f"/mock/roots/{part.get('root', '')}/staging/"
        for row in part.get("changes", []):
            entry = entry_from_json(row)
            content = contents.get(entry.path)
            if content is None and entry.type == "f":
                content = self.files.get(prefix + entry.path, tree.contents.get(entry.path))
            content = content or b""
            if entry.type == "f" and (len(content), hash_bytes(content)) != (entry.size, entry.content):
                raise Refusal("mismatch", entry.path)
            tree.put(entry, content)
        tree.dirty = False
        tree.generation = self._new_generation()
        tree.indexed = dict(tree.entries)
        return body[position:]

    def _new_generation(self) -> str:
        return f"g{self._seed}-{next(self._numbers)}"

    def _tree(self, fields: Mapping[str, Any]) -> MockTree:
        key = str(fields.get("root"))
        if self._locks.get(key) != fields.get("job"):
            raise Refusal("no-such-root", "the job does not hold it")
        return self._trees[key]

    # -- jobs ---------------------------------------------------------------------------------------------------

    def _do_start(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        job = self._job(fields)
        self._start(job, fields["spec"])
        return {"pid": 1, "started_ns": job.started_ns}, b""

    def _start(self, job: MockJob, spec: Mapping[str, Any]) -> None:
        if job.spec is not None:  # the same key twice is one execution (lessons EX-07)
            return
        job.spec = dict(spec)
        job.started_ns = self.now_ns()
        for key, _path in job.roots:
            job.before[key] = dict(self._trees[key].entries)
        self.executions += 1
        threading.Thread(target=self._execute, args=(job,), daemon=True).start()
        limit = spec.get("timeout_s")
        if limit:
            timer = threading.Timer(float(limit), self._kill, (job, "timeout"))
            timer.daemon = True
            timer.start()

    def _execute(self, job: MockJob) -> None:
        spec = job.spec or {}
        environment = {**spec.get("env", {}), "RCH_ON_WORKER": "1", "RCH_JOB": job.id}
        trees = [(path, self._trees[key]) for key, path in job.roots]
        process = Process(
            environment,
            str(spec.get("cwd", "/")),
            trees,
            lambda stream, data: self._say(job, stream, data),
            lambda: self._all_stdin(job),
            job.killed,
            self.now_ns,
            self._programs,
        )
        code: int | None = None
        number: int | None = None
        reason = "exited"
        try:
            code = process.run(spec["argv"])
        except OutOfMemory as died:
            number, reason = died.number, "oom"
        except Died as died:
            number = died.number
            reason = job.why_killed if job.killed.is_set() else "exited"
        with self._changed:
            ended = self.now_ns()
            job.rc = {"code": code, "signal": number, "reason": reason, "message": "", "started_ns": job.started_ns}
            job.rc |= {"ended_ns": ended, "user_ms": 0, "system_ms": 0, "max_rss": 0}
            for slot in job.slots:
                self._busy.pop(slot, None)
            self._changed.notify_all()

    def _say(self, job: MockJob, stream: int, data: bytes) -> None:
        if (job.spec or {}).get("fds", {}).get("2") == "same":
            stream = 1
        with self._changed:
            for start in range(0, len(data), protocol.LOG_PAYLOAD_MAX):
                job.log += protocol.log_frame(stream, data[start : start + protocol.LOG_PAYLOAD_MAX], self.now_ns())
            self._changed.notify_all()

    def _all_stdin(self, job: MockJob) -> bytes:
        if (job.spec or {}).get("fds", {}).get("0") != "pipe":
            return b""
        with self._changed:
            self._changed.wait_for(lambda: job.stdin_ended or job.killed.is_set())
        if job.killed.is_set():
            raise Died(signal.SIGTERM)
        return bytes(job.stdin)

    def _kill(self, job: MockJob, why: str) -> None:
        with self._changed:
            if job.rc is None:
                job.why_killed = why
                job.killed.set()
            self._changed.notify_all()

    def _do_read(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        job = self._job(fields)
        offset = int(fields.get("offset", 0))
        with self._changed:
            if offset > len(job.log):
                raise Refusal("bad-request", "offset behind the end")
            wait_s = float(fields.get("wait_s", 0))
            self._changed.wait_for(lambda: len(job.log) > offset or job.rc is not None, wait_s)
            data = bytes(job.log[offset:])
            end = 0
            for _stream, _time, payload in protocol.log_frames(data):
                size = protocol.LOG_HEADER.size + len(payload)
                if end and end + size > int(fields.get("max", protocol.LOG_PAYLOAD_MAX)):
                    break
                end += size
            ended = job.rc is not None and offset + end == len(job.log)
            answer = {"next": offset + end, "state": self._state(job), "ended": ended}
            if ended:
                answer["rc"] = job.rc
            return answer, data[:end]

    def _do_stdin(self, fields: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        job = self._job(fields)
        with self._changed:
            job.stdin += body
            job.stdin_ended = job.stdin_ended or bool(fields.get("eof"))
            self._changed.notify_all()
        return {"accepted": len(body)}, b""

    def _do_signal(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        self._kill(self._job(fields), "killed")
        return {}, b""

    def _do_resize(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        self._job(fields)
        return {}, b""

    def _do_status(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        job = self._job(fields)
        return {
            "state": self._state(job),
            "pid": 1,
            "started_ns": job.started_ns,
            "ended_ns": (job.rc or {}).get("ended_ns"),
            "rc": job.rc,
            "log_size": len(job.log),
        }, b""

    def _state(self, job: MockJob) -> str:
        if job.rc is None:
            return "running" if job.spec is not None else "staging"
        reason = str(job.rc["reason"])
        return reason if reason != "exited" else ("done" if job.rc["code"] == 0 else "failed")

    def _do_jobs(self, _: Mapping[str, Any], __: bytes) -> tuple[dict[str, Any], bytes]:
        rows = [
            {"id": j.id, "state": self._state(j), "started_ns": j.started_ns, "command": (j.spec or {}).get("argv", [])}
            for j in self._jobs.values()
        ]
        return {"jobs": rows}, b""

    # -- products -----------------------------------------------------------------------------------------------

    def _do_delta(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        job = self._job(fields)
        if job.spec is not None and job.rc is None:
            raise Refusal("busy", "the job has not ended")
        tree = self._tree(fields)
        complete = fields.get("since") != tree.generation or not tree.generation
        known = {} if complete else tree.indexed
        changed = [e for e in tree.in_write_order() if known.get(e.path) != e]
        deletes = [] if complete else sorted(p for p in known if p not in tree.entries)
        rest = int(fields.get("inline", 0))
        bodies: list[list[Any]] = []
        body = b""
        for entry in changed:
            content = tree.contents.get(entry.path, b"")
            if entry.type == "f" and len(content) <= rest:
                bodies.append([entry.path, len(content)])
                body += content
                rest -= len(content)
        if changed or deletes or not tree.generation:
            tree.generation = self._new_generation()
            tree.indexed = dict(tree.entries)
        return {
            "generation": tree.generation,
            "complete": complete,
            "entries": [e.as_json() for e in changed],
            "order": [e.path for e in changed],
            "deletes": deletes,
            "bodies": bodies,
        }, body

    def _do_get(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        tree = self._tree(fields)
        bodies: list[list[Any]] = []
        body = b""
        for path in fields.get("paths", []):
            try:
                content = tree.contents.get(protocol.check_relpath(path))
            except protocol.ProtocolError as error:
                raise Refusal("bad-request", str(error)) from error
            if content is not None and len(body) + len(content) <= protocol.INLINE_LIMIT:
                bodies.append([path, len(content)])
                body += content
        return {"bodies": bodies}, body

    def _do_release(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        with self._changed:
            job = self._jobs.get(str(fields.get("job")))
            if job is not None:
                if job.spec is None or job.rc is not None:
                    self._free(job)
                if fields.get("collect") and (job.rc is not None or job.spec is None):
                    del self._jobs[job.id]
            self._changed.notify_all()
        return {}, b""

    def _free(self, job: MockJob) -> None:
        self._locks = {k: j for k, j in self._locks.items() if j != job.id}
        self._busy = {s: j for s, j in self._busy.items() if j != job.id}

    def _do_cache_missing(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        cache = self.caches[str(fields["cache"])]
        return {"missing": [p for p in fields["paths"] if p not in cache]}, b""

    def _do_cache_adopt(self, fields: Mapping[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        cache = self.caches[str(fields["cache"])]
        prefix = f"{fields['staging']}/"
        adopted = [p for p in fields["paths"] if prefix + p in self.files]
        cache.update({p: self.files.pop(prefix + p) for p in adopted})
        return {"adopted": adopted}, b""

    def _job(self, fields: Mapping[str, Any]) -> MockJob:
        job = self._jobs.get(str(fields.get("job")))
        if job is None:
            raise Refusal("no-such-job", f"no job {fields.get('job')}")
        return job

    def content(self, root: str, path: str) -> bytes:
        """For the executor's bulk reads and for tests."""
        return self._trees[root].contents[path]
