"""A job directory: the only truth about a job on this worker, readable by every ``serve`` at any time."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

from rch.worker import _clock
from rch.worker._locks import held_elsewhere, open_lock, try_lock
from rch.worker._sandbox import group_lines, passwd_lines, temporary_directories
from rch.worker.cache import boot_id, read_json, write_json
from rch.worker.refusal import Refusal
from rch.worker.spec import Spec

_STARTING_S = 30.0
"""A directory without a supervisor may be this old and still be on its way."""

_RESULT_ROOM = 4096
"""Bytes kept for ``rc`` from the start: a full disk must not cost the result too."""


class JobDir:
    """``<cache>/jobs/<id>``. Nothing here needs a lock: each file has one writer and changes by rename or append."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.log = os.path.join(path, "log")
        self._pid = os.path.join(path, "pid")
        self._rc = os.path.join(path, "rc")
        self._spec = os.path.join(path, "spec.json")
        self._delta = os.path.join(path, "delta.json")
        self._pid_fd: Optional[int] = None
        self._claimed: Dict[str, Any] = {}

    # -- made by serve ------------------------------------------------------------------------------------------

    def create(self, raw: Mapping[str, Any], spec: Spec, contents: Sequence[bytes], grant: Mapping[str, Any]) -> None:
        """Lay out a new job. Raises FileExistsError when there is one of that id (lessons EX-07)."""
        os.mkdir(self.path, 0o700)
        for name in ("home", "cargo", "tmp", "files", "etc"):
            os.mkdir(os.path.join(self.path, name), 0o700)
        for number, _ in enumerate(temporary_directories(spec)):
            path = os.path.join(self.path, "tmp", str(number))
            os.mkdir(path)
            os.chmod(path, 0o1777)  # as /tmp is; the directory above is 0700
        for number, data in enumerate(contents):
            _write(os.path.join(self.path, "files", str(number)), data, spec.files[number][1])
        _write(
            os.path.join(self.path, "etc", "passwd"),
            _text(passwd_lines(_read("/etc/passwd"), spec.user, spec.uid, spec.gid, spec.home or "/")),
        )
        _write(os.path.join(self.path, "etc", "group"), _text(group_lines(_read("/etc/group"), spec.group, spec.gid)))
        _write(os.path.join(self.path, "etc", "hostname"), _text(spec.hostname + "\n"))
        _write(os.path.join(self.path, "etc", "hosts"), _text(_hosts(_read("/etc/hosts"), spec.hostname)))
        write_json(self._spec, {**raw, "grant": dict(grant)})

    # -- kept by the supervisor ---------------------------------------------------------------------------------

    def claim(self, about: Mapping[str, Any]) -> int:
        """Become the one supervisor of this job: the lock on ``pid`` is what "alive" means. Raises Refusal."""
        descriptor = open_lock(self._pid)
        for _ in range(50):
            if try_lock(descriptor):
                break
            time.sleep(0.01)  # somebody may just be asking whether we live
        else:
            os.close(descriptor)
            raise Refusal("busy", "job %s has a supervisor" % self.name)
        if os.path.exists(self._rc):
            os.close(descriptor)
            raise Refusal("busy", "job %s has ended" % self.name)
        self._pid_fd, self._claimed = descriptor, dict(about)
        self._put_pid()
        with contextlib.suppress(OSError):
            room = os.open(self._rc + ".new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(room, 0, _RESULT_ROOM)
            os.close(room)
        return descriptor

    def note_start(self, started_ns: int) -> None:
        """The user's process exists since then."""
        self._claimed["started_ns"] = started_ns
        self._put_pid()

    def forget_secrets(self) -> None:
        """The environment is in the job now; on disk it would only be found by the wrong reader."""
        write_json(self._spec, {**self.spec(), "env": {}})

    def write_result(self, result: Mapping[str, Any]) -> None:
        """``rc``: into the room kept for it, fsynced, renamed (lessons OS-02)."""
        data = json.dumps(result).encode("ascii")[:_RESULT_ROOM]
        temporary = self._rc + ".new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, data, 0)
            os.ftruncate(descriptor, len(data))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, self._rc)

    # -- read by anyone -----------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return os.path.exists(self._spec)

    def spec(self) -> Dict[str, Any]:
        """spec.json; {} when it cannot be read."""
        found = read_json(self._spec)
        return found if isinstance(found, dict) else {}

    def cpus(self) -> List[int]:
        grant = self.spec().get("grant")
        found = grant.get("cpus") if isinstance(grant, dict) else None
        return [cpu for cpu in found if type(cpu) is int] if isinstance(found, list) else []

    def slots(self) -> List[int]:
        grant = self.spec().get("grant")
        found = grant.get("slots") if isinstance(grant, dict) else None
        return found if isinstance(found, list) else []

    def about(self) -> Dict[str, Any]:
        """pid, boot_id, started_ns of the supervisor; {} before it exists."""
        found = read_json(self._pid)
        return found if isinstance(found, dict) else {}

    def alive(self) -> bool:
        """A supervisor is at work. The lock tells, not the number: numbers come back after a reboot."""
        return held_elsewhere(self._pid)

    def result(self) -> Optional[Dict[str, Any]]:
        """``rc``, or what amounts to one when the supervisor is gone without; None while the job is on its way."""
        for _ in range(2):
            found = read_json(self._rc)
            if isinstance(found, dict):
                return found
            if self.alive() or self._starting():
                return None
        about = self.about()
        rebooted = bool(about) and about.get("boot_id") != boot_id()
        return {
            "code": None,
            "signal": None,
            "reason": "lost",
            "message": "the worker was restarted" if rebooted else "the supervisor is gone",
            "started_ns": about.get("started_ns", 0),
            "ended_ns": self._last_sign(),
            "user_ms": 0,
            "system_ms": 0,
            "max_rss": 0,
        }

    def state(self) -> str:
        """staging, running, done, failed, timeout, killed, oom or lost."""
        result = self.result()
        if result is None:
            return "running" if self.about() else "staging"
        reason = str(result.get("reason"))
        if reason in ("timeout", "killed", "oom", "lost"):
            return reason
        return "done" if result.get("code") == 0 else "failed"

    def kept_delta(self) -> Dict[str, Any]:
        found = read_json(self._delta)
        return found if isinstance(found, dict) else {}

    def keep_delta(self, delta: Mapping[str, Any]) -> None:
        write_json(self._delta, delta)

    # -- insides ------------------------------------------------------------------------------------------------

    def _starting(self) -> bool:
        if os.path.exists(self._pid):
            return False
        try:
            return time.time() - os.stat(self._spec).st_mtime < _STARTING_S
        except FileNotFoundError:
            return False

    def _last_sign(self) -> int:
        """When the job was last heard of, ns: its log's or its claim's time."""
        times = []
        for path in (self.log, self._pid):
            with contextlib.suppress(OSError):
                times.append(os.stat(path).st_mtime_ns)
        return max(times) + _clock.offset_ns() if times else 0

    def _put_pid(self) -> None:
        assert self._pid_fd is not None
        os.pwrite(self._pid_fd, json.dumps(self._claimed).encode("ascii").ljust(200), 0)


def _write(path: str, data: bytes, mode: int = 0o644) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(descriptor, mode)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _hosts(existing: str, hostname: str) -> str:
    """The worker's hosts with the caller's host name, which many test suites resolve."""
    return "%s\n127.0.1.1\t%s\n" % (existing.rstrip("\n"), hostname)
