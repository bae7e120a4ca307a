"""An Order: one command as the caller handed it over, checked. The first noun of the story in rch/offload.py."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rch.errors import UsageError
from rch.paths import AbsPath, Argv

FD_KINDS = frozenset({"tty", "pipe", "file", "null", "closed"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Options:
    """What the flags of ``rch exec`` say."""

    worker: str = ""
    tag: str = ""
    mode: str = ""
    require_remote: bool = False
    dry_run: bool = False
    no_cache: bool = False
    verbose: bool = False
    quiet: bool = False
    interactive: bool = False

    @property
    def must_be_remote(self) -> bool:
        """Local execution is no answer: remote is required, or a place was named (design.md 6.1)."""
        return self.require_remote or bool(self.worker) or self.mode == "remote"


@dataclass(frozen=True)
class Order:
    """One command and the caller's circumstances.

    fds:      "0", "1", "2" -> tty, pipe, file, null or closed.
    same_out: file descriptors 1 and 2 are the same open file (``2>&1``).
    env:      the caller's whole environment; what a job gets of it is decided later.
    words:    the build's own words, wrappers and assignments looked through; set by the decision.
    run:      what the job runs: argv, or for `cargo run` the build of it; set by the decision.
    received: when it arrived, seconds since the epoch.
    confined: the caller is in a sandbox, or came through the spool and may be: nothing is started or read for it on the
              word of its environment alone (lessons SE-08).
    offline:  it has no network, or came through the spool and may have none: its job gets none.
    """

    argv: Argv
    cwd: AbsPath
    env: Mapping[str, str]
    fds: Mapping[str, str]
    same_out: bool
    rows: int
    cols: int
    umask: int
    uid: int
    gid: int
    pid: int
    options: Options = field(default_factory=Options)
    attach_job: str = ""
    attach_offset: int = 0
    confined: bool = False
    offline: bool = False
    words: Argv = field(default_factory=Argv)
    run: Argv = field(default_factory=Argv)
    version: str = ""
    received: float = field(default_factory=time.time)


def parse_order(data: Mapping[str, Any], *, confined: bool = False, offline: bool = False) -> Order:
    """Check a request of the thin client. Raises UsageError naming the field that is off."""

    def whole(key: str, default: int = 0, top: int = 1 << 31) -> int:
        value = data.get(key, default)
        if type(value) is not int or not 0 <= value <= top:
            raise UsageError(f"request: {key} must be a whole number from 0 to {top}", what=key)
        return value

    def text(where: Mapping[str, Any], key: str) -> str:
        value = where.get(key) or ""
        if not isinstance(value, str) or "\0" in value:
            raise UsageError(f"request: {key} must be text", what=key)
        return value

    argv = data.get("argv")
    if not isinstance(argv, list) or not all(isinstance(w, str) and "\0" not in w for w in argv):
        raise UsageError("request: argv must be a list of words", what="argv")
    env = data.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in env.items()):
        raise UsageError("request: env must map names to text", what="env")
    fds = data.get("fds", {})
    kinds = {n: fds.get(n, "null") for n in ("0", "1", "2")} if isinstance(fds, dict) else {}
    if not kinds or not all(kind in FD_KINDS for kind in kinds.values()):
        raise UsageError(f"request: fds must name one of {', '.join(sorted(FD_KINDS))} each", what="fds")
    attach = data.get("attach") or {}
    options = data.get("options") or {}
    if not isinstance(attach, dict) or not isinstance(options, dict):
        raise UsageError("request: attach and options must be objects", what="options")
    cwd = text(data, "cwd")
    if not attach and (not argv or not cwd.startswith("/")):
        raise UsageError("request: a command and an absolute cwd are needed", what="cwd")
    flags = ("require_remote", "dry_run", "no_cache", "verbose", "quiet", "interactive")
    offset = attach.get("offset", 0)
    if type(offset) is not int or offset < 0:
        raise UsageError("request: attach.offset must be a position in the log", what="attach")
    return Order(
        argv=Argv(*argv),
        cwd=AbsPath(cwd),
        env=env,
        fds=kinds,
        same_out=bool(fds.get("same")),
        rows=whole("rows", 24, 10_000),
        cols=whole("cols", 80, 10_000),
        umask=whole("umask", 0o022, 0o777),
        uid=whole("uid", 0, (1 << 32) - 2),
        gid=whole("gid", 0, (1 << 32) - 2),
        pid=whole("pid"),
        options=Options(
            worker=text(options, "worker"),
            tag=text(options, "tag"),
            mode=text(options, "mode"),
            **{f: options.get(f) is True for f in flags},
        ),
        attach_job=text(attach, "job"),
        attach_offset=offset,
        confined=confined,
        offline=offline,
        version=text(data, "version"),
    )
