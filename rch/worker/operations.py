"""The table of operations (docs/architecture.md, "Control channel"): what each request does, and what it may not."""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from rch.worker import _clock, collect, facts, shared
from rch.worker._change import Change, parse_change, split_bodies
from rch.worker._channel import ServerChannel, zstd_program
from rch.worker._control import ask
from rch.worker._holds import Hold, Holds
from rch.worker._jobdir import JobDir
from rch.worker._log import log_size, read_log
from rch.worker._start import Nursery, start_supervisor
from rch.worker._version import VERSION
from rch.worker.cache import Cache, boot_id, job_name, own_build, root_key
from rch.worker.probe import sandbox_ability
from rch.worker.protocol import INLINE_LIMIT, LOG_PAYLOAD_MAX, PROTOCOL, Message
from rch.worker.refusal import Refusal, refusal_of
from rch.worker.roots import Root
from rch.worker.slots import Slots, free
from rch.worker.spec import Spec, parse_spec

MAX_WAIT_S = 60.0
"""The longest that one request waits; whoever wants more asks again."""

_SIGNALS = frozenset({"INT", "TERM", "KILL", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT", "TSTP", "cancel"})

_Answer = Tuple[Dict[str, Any], bytes]


class Operations:
    """Everything one ``serve`` process can be asked."""

    def __init__(
        self,
        cache: Cache,
        slots_total: Optional[int],
        channel: ServerChannel,
        nursery: Nursery,
        *,
        confined: bool = False,
    ) -> None:
        self.cache = cache
        self._confined = confined
        self.slots = Slots(cache.slots, slots_total)
        self._channel = channel
        self._nursery = nursery
        self._holds = Holds(cache, self.slots)
        self._table: Dict[str, Callable[[Mapping[str, Any], bytes], Any]] = {
            name[4:]: getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    def answer(self, message: Message) -> _Answer:
        """The answer to one request; raises Refusal, OSError."""
        operation = self._table.get(str(message.fields.get("op")))
        if operation is None:
            raise Refusal("bad-request", "no operation is called %r" % (str(message.fields.get("op"))[:60],))
        found = operation(message.fields, message.body)
        return found if isinstance(found, tuple) else (found, b"")

    def leave(self) -> None:
        """Give back what is held here. (The end of the process would do it too.)"""
        self._holds.leave()

    # -- the worker ---------------------------------------------------------------------------------------------

    def _do_hello(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        if fields.get("protocol") != PROTOCOL:
            raise Refusal(
                "bad-request", "protocol %s asked for, this rch-wkr speaks %d" % (fields.get("protocol"), PROTOCOL)
            )
        wanted = fields.get("compression")
        zstd = zstd_program() is not None and ("zstd" in wanted if isinstance(wanted, list) else wanted == "zstd")
        self._channel.compress = zstd
        ok, why = sandbox_ability()
        return {
            "protocol": PROTOCOL,
            "version": VERSION,
            "build": own_build(),
            "python": platform.python_version(),
            "boot_id": boot_id(),
            "time_ns": _clock.now_ns(),
            "slots_total": self.slots.total,
            "compression": "zstd" if zstd else "none",
            "sandbox": {"ok": ok, "why": why},
            "max_wait_s": MAX_WAIT_S,
            "uid": os.getuid(),
            "cache": self.cache.path,
        }

    def _do_ping(self, _: Mapping[str, Any], __: bytes) -> Dict[str, Any]:
        return {"time_ns": _clock.now_ns()}

    def _do_health(self, _: Mapping[str, Any], __: bytes) -> Dict[str, Any]:
        return facts.health(self.cache, self.slots)

    def _do_facts(self, _: Mapping[str, Any], __: bytes) -> Dict[str, Any]:
        return {"facts": facts.facts(self.cache, self.slots)}

    def _do_programs(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        rows = fields.get("programs")
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise Refusal("bad-request", "programs is a list of lists of paths")
        return {"missing": [n for n, row in enumerate(rows) if not any(facts.is_program(path) for path in row)]}

    def _do_bench(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        from rch.worker import bench

        return bench.bench(
            self.cache,
            self.slots,
            facts.machine(),
            keep=fields.get("keep") is True,
            max_age_s=_number(fields, "max_age_s", 0.0, 0, 10**9),
        )

    def _do_gc(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        return collect.collect(
            self.cache,
            max_age_s=_number(fields, "max_age_s", 86400.0, 0, 10**9),
            keep=int(_number(fields, "keep", 5, 0, 10**6)),
            dry_run=fields.get("dry_run") is True,
            job_age_s=_number(fields, "job_age_s", 86400.0, 0, 10**9) if "job_age_s" in fields else None,
        )

    def _do_cache_missing(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        paths, offered = _strings(fields, "paths"), fields.get("versions")
        versions = [_version(item) for item in offered] if isinstance(offered, list) else []
        return {"missing": shared.missing(self.cache, fields.get("cache"), paths, versions)}

    def _do_cache_adopt(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        paths = _strings(fields, "paths")
        return {"adopted": shared.adopt(self.cache, fields.get("cache"), fields.get("staging"), paths)}

    # -- before the job -----------------------------------------------------------------------------------------

    def _do_prepare(self, fields: Mapping[str, Any], body: bytes) -> Dict[str, Any]:
        began = time.monotonic()
        job = job_name(fields.get("job"))
        deadline = began + min(_number(fields, "wait_s", 0.0, 0, 10**6), MAX_WAIT_S)
        wanted = fields.get("roots") or []
        if not isinstance(wanted, list) or not all(isinstance(item, dict) for item in wanted):
            raise Refusal("bad-request", "roots is a list of objects")
        count = int(_number(fields, "slots", 1, 0, 4096))
        changes: Dict[str, Change] = {}
        for item in wanted:
            changes[root_key(item.get("key"))], body = parse_change(item, body)
        raw_spec = fields.get("spec")
        directory = JobDir(self.cache.job(job))
        hold = self._holds.of(job)
        with hold.lock:
            started = directory.exists()
            if not started:
                spec = None if raw_spec is None else parse_spec(raw_spec, self.cache)
                self._holds.take_roots(hold, list(changes), deadline)
                self._holds.still_wanted(job, hold)
                self._holds.take_slots(job, hold, count, deadline)
                self._holds.still_wanted(job, hold)
            answers = {}
            for item in wanted:
                root = Root(self.cache, item["key"])
                answers[root.key] = self._offer(root, item, changes[root.key], started=started)
            answer: Dict[str, Any] = {
                "slots": hold.granted if hold.granted is not None else directory.slots(),
                "roots": answers,
                "waited_s": round(time.monotonic() - began, 6),
            }
            if started:
                answer["started"] = True
            elif raw_spec is not None and all(found["applied"] for found in answers.values()):
                assert spec is not None
                self._start(directory, hold, raw_spec, spec, body)
                answer["started"] = True
            return answer

    def _offer(self, root: Root, item: Mapping[str, Any], change: Change, *, started: bool) -> Dict[str, Any]:
        """Apply one root's change when it fits what lies here; else say what lies here."""
        base = item.get("base")
        standing = root.standing()
        kept: List[str] = []
        applied = False
        if not started:
            root.use(item.get("path") if isinstance(item.get("path"), str) else None)
            if not standing.dirty and (base or "") == standing.generation and not change.staged:
                _, kept = root.sync(standing.generation, change)
                applied = True
                standing = root.standing()
        answer: Dict[str, Any] = {"generation": standing.generation, "dirty": standing.dirty, "applied": applied}
        if kept:
            answer["kept"] = kept
        return answer

    def _do_index(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        root = self._locked_root(fields)
        with self._holds.of(fields["job"]).lock:
            generation, entries = root.index()
        return {"generation": generation, "dirty": root.standing().dirty, "entries": entries}

    def _do_sync(self, fields: Mapping[str, Any], body: bytes) -> Dict[str, Any]:
        root = self._locked_root(fields)
        change, _ = parse_change(fields, body)
        with self._holds.of(fields["job"]).lock:
            generation, kept = root.sync(str(fields.get("base") or ""), change, reset=fields.get("reset") is True)
        return {"generation": generation, "kept": kept} if kept else {"generation": generation}

    def _do_start(self, fields: Mapping[str, Any], body: bytes) -> Dict[str, Any]:
        job = job_name(fields.get("job"))
        directory = JobDir(self.cache.job(job))
        hold = self._holds.of(job)
        with hold.lock:
            if not directory.exists():
                spec = parse_spec(fields.get("spec"), self.cache)
                if hold.granted is None:
                    raise Refusal("bad-request", "job %s holds nothing here: prepare comes first" % job)
                self._start(directory, hold, fields["spec"], spec, body)
        about = directory.about()
        return {"pid": about.get("pid", 0), "started_ns": about.get("started_ns", 0)}

    def _start(self, directory: JobDir, hold: Hold, raw: Mapping[str, Any], spec: Spec, body: bytes) -> None:
        """From held locks to a supervisor that has them. Everything of *spec* was checked."""
        if self._confined and not spec.sandboxed:
            raise Refusal("bad-request", "this rch-wkr was started with --confined: a job needs a sandbox")
        for place in spec.roots:
            if place.key not in hold.roots:
                raise Refusal("bad-request", "root %s is not held by job %s" % (place.key, directory.name))
            if Root(self.cache, place.key).standing().dirty:
                raise Refusal("dirty", "root %s has an unfinished push" % place.key)
        sizes = raw.get("bodies")
        table = sizes if isinstance(sizes, list) else [[path, size] for path, _, size in spec.files]
        contents, _ = split_bodies(table, body)
        missing = [path for path, _, size in spec.files if len(contents.get(path, b"")) != size]
        if missing:
            raise Refusal("bad-request", "no content came for %s" % ascii(missing[0])[:200])
        if spec.sandboxed:
            ok, why = sandbox_ability()
            if not ok:
                raise Refusal("no-sandbox", why)
        slots = sorted(hold.slots)
        grant = {"slots": slots, "cpus": sorted({self.slots.cpu(slot) for slot in slots})}
        try:
            directory.create(raw, spec, [contents[path] for path, _, _ in spec.files], grant)
            for place in spec.roots:
                if place.writable:
                    Root(self.cache, place.key).job_started(directory.name)
        except OSError as error:
            collect.remove_job(self.cache, directory.path)  # half a job would be taken for a lost one
            raise refusal_of(error, "cannot lay out job %s" % directory.name) from error
        start_supervisor(directory, list(hold.slots.values()), list(hold.roots.values()), self._nursery)
        free(hold.slots)  # the supervisor has them now: they end with it, not with us

    def _locked_root(self, fields: Mapping[str, Any]) -> Root:
        return self._holds.root(job_name(fields.get("job")), root_key(fields.get("root")))

    # -- the job ------------------------------------------------------------------------------------------------

    def _do_read(self, fields: Mapping[str, Any], _: bytes) -> _Answer:
        directory = self._job(fields)
        offset = int(_number(fields, "offset", 0, 0, 2**62))
        limit = int(_number(fields, "max", LOG_PAYLOAD_MAX, 1, LOG_PAYLOAD_MAX))
        deadline = time.monotonic() + min(_number(fields, "wait_s", 0.0, 0, 10**6), MAX_WAIT_S)
        while True:
            result = directory.result()  # before the log: what is read after the end is all there will be
            data, following = read_log(directory.log, offset, limit)
            whole = following >= log_size(directory.log)
            if result is not None and not data and not whole and result.get("reason") != "lost":
                raise Refusal("bad-request", "offset %d is no frame boundary" % offset)
            if result is not None and (whole or not data):  # a lost supervisor may leave half a frame behind
                return {"next": following, "state": directory.state(), "ended": True, "rc": result}, data
            remaining = deadline - time.monotonic()
            if data or remaining <= 0:
                return {"next": following, "state": directory.state(), "ended": False}, data
            told = ask(directory.path, {"op": "watch", "offset": offset}, timeout_s=remaining)
            if told is None and directory.result() is None:
                time.sleep(min(0.01, max(0.0, remaining)))  # its supervisor is just coming up, or just going

    def _do_stdin(self, fields: Mapping[str, Any], body: bytes) -> Dict[str, Any]:
        directory = self._job(fields)
        if len(body) > INLINE_LIMIT:
            raise Refusal("too-large", "stdin comes in pieces of at most %d bytes" % INLINE_LIMIT)
        answer = ask(directory.path, {"op": "stdin", "eof": fields.get("eof") is True}, body)
        if answer is None:
            return {"accepted": len(body)}  # nobody reads any more: as into a closed pipe
        return {"accepted": answer.get("accepted", 0), "total": answer.get("total", 0)}

    def _do_signal(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        directory = self._job(fields)
        name = fields.get("signal")
        if name not in _SIGNALS:
            raise Refusal("bad-request", "signal is one of %s" % ", ".join(sorted(_SIGNALS)))
        ask(directory.path, {"op": "signal", "signal": name})
        return {}

    def _do_resize(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        directory = self._job(fields)
        rows, cols = (int(_number(fields, name, 0, 0, 65535)) for name in ("rows", "cols"))
        ask(directory.path, {"op": "resize", "rows": rows, "cols": cols})
        return {}

    def _do_status(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        directory = self._job(fields)
        result = directory.result()
        about = directory.about()
        return {
            "state": directory.state(),
            "pid": about.get("pid"),
            "started_ns": result.get("started_ns") if result is not None else about.get("started_ns"),
            "ended_ns": None if result is None else result.get("ended_ns"),
            "rc": result,
            "log_size": log_size(directory.log),
        }

    def _do_jobs(self, _: Mapping[str, Any], __: bytes) -> Dict[str, Any]:
        return {"jobs": facts.jobs(self.cache)}

    def _do_delta(self, fields: Mapping[str, Any], _: bytes) -> _Answer:
        job = job_name(fields.get("job"))
        directory = JobDir(self.cache.job(job))
        ended_ns: Optional[int] = None
        if directory.exists():
            result = directory.result()
            if result is None:
                raise Refusal("busy", "job %s has not ended" % job)
            ended_ns = int(result.get("ended_ns") or 0)
        root = self._locked_root(fields)
        since = fields.get("since")
        if since is not None and not isinstance(since, str):
            raise Refusal("bad-request", "since is a generation or null")
        kept = directory.kept_delta()
        before = dict(kept)
        inline = int(_number(fields, "inline", INLINE_LIMIT, 0, 2**31))
        with self._holds.of(job).lock:
            found = root.delta(job, since, inline, kept, ended_ns=ended_ns)
            if kept != before and directory.exists():
                directory.keep_delta(kept)
        answer = {
            "generation": found.generation,
            "complete": found.complete,
            "entries": found.entries,
            "order": found.order,
            "deletes": found.deletes,
            "bodies": [[path, len(data)] for path, data in found.bodies],
        }
        return answer, b"".join(data for _, data in found.bodies)

    def _do_get(self, fields: Mapping[str, Any], _: bytes) -> _Answer:
        root = self._locked_root(fields)
        bodies = root.get(_strings(fields, "paths"), INLINE_LIMIT)
        return {"bodies": [[path, len(data)] for path, data in bodies]}, b"".join(data for _, data in bodies)

    def _do_release(self, fields: Mapping[str, Any], _: bytes) -> Dict[str, Any]:
        job = job_name(fields.get("job"))
        directory = JobDir(self.cache.job(job))
        ended = not directory.exists() or directory.result() is not None
        if fields.get("collect") is True and not ended:
            raise Refusal("busy", "job %s has not ended" % job)
        self._holds.drop(job)
        if fields.get("collect") is True:
            collect.remove_job(self.cache, directory.path)
        return {}

    def _job(self, fields: Mapping[str, Any]) -> JobDir:
        job = job_name(fields.get("job"))
        directory = JobDir(self.cache.job(job))
        if not directory.exists():
            raise Refusal("no-such-job", "there is no job %s" % job)
        return directory


def _number(fields: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not low <= value <= high:
        raise Refusal("bad-request", "%s is a number from %g to %g" % (name, low, high))
    number: float = value
    return number


def _version(value: Any) -> shared.Version:
    if not isinstance(value, list) or len(value) != 2 or any(type(number) is not int for number in value):
        raise Refusal("bad-request", "a version is [size, mtime_ns]")
    return value[0], value[1]


def _strings(fields: Mapping[str, Any], name: str) -> List[str]:
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal("bad-request", "%s is a list of strings" % name)
    return value
