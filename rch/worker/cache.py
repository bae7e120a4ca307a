"""The cache directory of a worker: where things lie, and the only place where names become paths."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from typing import Any, List, Optional, Tuple

from rch.worker.refusal import Refusal

_JOB = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_KEY = re.compile(r"[0-9a-f]{8,128}")
_CACHES = {"cargo": ("registry", "git"), "go": ("mod",)}
"""Directories of each shared cache that jobs see."""

_OFFERED = {"cargo": ("", ("registry", "git")), "go": ("mod/", ("cache",))}
"""Where a path of the workstation's own cache (CARGO_HOME, GOMODCACHE) lies in ours, and what it may begin with."""


class Cache:
    """``--cache DIR``; everything below it is ours, 0700 (docs/architecture.md, "Where things lie")."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def create(self) -> None:
        """Make what is missing. Raises OSError."""
        for name in ("", "slots", "roots", "jobs", "caches", "toolchains", "trash"):
            os.makedirs(os.path.join(self.path, name), mode=0o700, exist_ok=True)
        os.chmod(self.path, 0o700)

    @property
    def jobs(self) -> str:
        return os.path.join(self.path, "jobs")

    @property
    def roots(self) -> str:
        return os.path.join(self.path, "roots")

    @property
    def slots(self) -> str:
        return os.path.join(self.path, "slots")

    @property
    def trash(self) -> str:
        return os.path.join(self.path, "trash")

    def job(self, name: Any) -> str:
        """The directory of job *name*, which need not exist."""
        return os.path.join(self.jobs, job_name(name))

    def root(self, key: Any) -> str:
        """The directory of root *key*, which need not exist."""
        return os.path.join(self.roots, root_key(key))

    def shared(self, name: Any) -> str:
        """A cache that jobs share (``cargo``)."""
        if name not in _CACHES:
            raise Refusal("bad-request", "no cache is called %r" % (str(name)[:60],))
        return os.path.join(self.path, "caches", str(name))

    def shared_names(self, name: str) -> Tuple[str, Tuple[str, ...]]:
        """What goes before a path of the workstation's cache in ours, and the first components that it may have."""
        return _OFFERED[name]

    def shared_parts(self, name: str) -> List[str]:
        """The directories of a shared cache, made when missing, in the order of the table."""
        made = []
        for part in _CACHES[name]:
            path = os.path.join(self.shared(name), part)
            os.makedirs(path, mode=0o700, exist_ok=True)
            made.append(path)
        return made


def job_name(name: Any) -> str:
    """*name* if it may be the name of a job directory, else Refusal."""
    if not isinstance(name, str) or not _JOB.fullmatch(name):
        raise Refusal("bad-request", "not a job id: %r" % (str(name)[:100],))
    return name


def root_key(key: Any) -> str:
    """*key* if it may be the name of a root directory, else Refusal."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise Refusal("bad-request", "not a root key: %r" % (str(key)[:140],))
    return key


def write_json(path: str, value: Any, *, durable: bool = False) -> None:
    """Write atomically: whoever reads sees the old or the new whole (lessons OS-02).

    durable: also survive a power cut. Most state need not: after a reboot no root is trusted without a look.
    """
    temporary = "%s.%d.tmp" % (path, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii"))
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: str) -> Any:
    """What *path* holds, or None when there is none or it does not parse."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read().decode("ascii"))
    except (OSError, ValueError):
        return None


def boot_id() -> str:
    """The kernel's id of this boot; "" where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def archive() -> Optional[str]:
    """The zipapp this runs from, or None in a source tree."""
    spec = sys.modules[__name__].__spec__
    path = getattr(spec.loader, "archive", None) if spec is not None else None
    return os.path.realpath(path) if isinstance(path, str) else None


def own_command() -> List[str]:
    """The argv that starts this very program again, arguments to follow."""
    packed = archive()
    if packed is not None:
        return [sys.executable, "-I", "-S", packed]
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from rch.worker.__main__ import main; main()"
    return [sys.executable, "-I", "-S", "-c", start, source]


def own_build() -> str:
    """sha256 of the zipapp; "source" in a source tree."""
    packed = archive()
    if packed is None:
        return "source"
    with open(packed, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
