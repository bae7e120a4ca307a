"""Checks of rchd: whether it runs and which one, what stands in its way, what it says of workers and projects."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from rch import __version__
from rch.cli.api import Api, NotRunning
from rch.cli.check import Check, fail, ok, warn
from rch.cli.holders import environment_of, holder_of_port, holder_of_socket, shown
from rch.cli.lifecycle import lock_holder, start_rchd
from rch.cli.terminal import duration
from rch.config.merged import Config
from rch.config.switches import DAEMON_NAMES
from rch.errors import RchError
from rch.paths import AbsPath

_OTHER_PORT = "rch config set --user metrics.prometheus_port 0"


def check_rchd(config: Config, way: Api, env: Mapping[str, str]) -> tuple[list[Check], dict[str, Any] | None]:
    """Whether rchd runs, which one, and whether it is the one that this shell means; its status document."""
    state = config.places.state
    try:
        status: dict[str, Any] = way.get("status", timeout_s=10.0)
    except NotRunning:
        holder = lock_holder(state)
        if holder:
            text = f"rchd (pid {holder}) holds {state} but does not listen on {config.socket_path}"
            return [fail("rchd", text, f"kill {holder}; rch daemon start")], None
        if os.path.lexists(config.socket_path) and not _is_socket(config.socket_path):
            text = f"{config.socket_path} is no socket; rchd cannot listen there"
            return [fail("rchd", text, f"mv {shlex.quote(config.socket_path)} somewhere else; rch daemon start")], None
        return [warn("rchd", "rchd is not running", "rch daemon start", lambda: start_rchd(config, way))], None
    except RchError as error:
        holder = holder_of_socket(config.socket_path)
        if holder and holder != lock_holder(state):
            text = f"{error.message}; {config.socket_path} is held by {shown(holder)}, which is not rchd"
            return [fail("rchd", text, f"kill {holder}; rch daemon start")], None
        return [fail("rchd", error.message, error.hint or "rch daemon restart")], None
    found = []
    version = str(status.get("version", "unknown"))
    pid = status.get("pid")
    if version != __version__:
        found.append(fail("rchd", f"rchd is version {version}, this command {__version__}", "rch daemon restart"))
    else:
        found.append(ok("rchd", f"version {version}, pid {pid}, up {duration(status.get('uptime_seconds'))}"))
    if status.get("registry_error"):
        found.append(fail("rchd-registry", str(status["registry_error"]), "rch inventory show"))
    theirs = environment_of(pid) if isinstance(pid, int) else {}
    if theirs:
        for name in DAEMON_NAMES:
            if theirs.get(name, "") != env.get(name, ""):
                text = f"rchd was started with {name}={theirs.get(name, '')!r}, here it is {env.get(name, '')!r}"
                found.append(warn("rchd-environment", text, "rch daemon restart"))
    return found, status


def check_port(port: int, rchd_pid: int | None) -> Iterator[Check]:
    """Who holds the port of the metrics, where there is to be one (coverage D-15)."""
    held, holder = holder_of_port(port) if port else (False, None)
    if held and (holder is None or holder != rchd_pid):
        text = f"port {port} (metrics.prometheus_port) is held by {shown(holder)}"
        yield fail("port", text, f"kill {holder}, or {_OTHER_PORT}" if holder else _OTHER_PORT)
    elif port:
        yield ok("port", f"{port}, held by rchd" if held else f"{port} is free")


def check_capacity(status: Mapping[str, Any]) -> Iterator[Check]:
    """Whether any worker could take a job now; every one that could not with its one reason (coverage D-15)."""
    workers = status.get("workers") or []
    reasons = []
    for worker in workers:
        state = str(worker.get("state", "unknown"))
        used, total = worker.get("slots_used") or 0, worker.get("slots_total") or 0
        if state not in ("healthy", "degraded", "unknown"):
            why = worker.get("reason")
            reasons.append(f"{worker.get('name')} is {state}{f' ({why})' if why else ''}")
        elif total and used >= total:
            reasons.append(f"{worker.get('name')} has no free slot ({used}/{total})")
    if workers and len(reasons) == len(workers):
        switched = all(worker.get("state") in ("draining", "disabled") for worker in workers)
        remedy = "rch workers enable --all" if switched else "rch queue, or one more: rch init NAME=USER@HOST"
        yield warn("capacity", f"no worker can take a job now: {'; '.join(reasons)}", remedy)
    elif workers:
        yield ok("capacity", f"{len(workers) - len(reasons)} of {len(workers)} workers can take a job")


def check_unportable(state: AbsPath, way: Api) -> Iterator[Check]:
    """Projects that stay here because a build was red there and green here."""
    path = os.path.join(state, "rch.db")
    if not os.path.exists(path):
        return
    query = "SELECT project, class, reason FROM unportable ORDER BY 1, 2"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2.0)) as store:
            rows = store.execute(query).fetchall()
    except sqlite3.Error as error:
        yield warn("store", f"{path}: {error}", "rch daemon restart")
        return
    for project, worker_class, why in rows:
        text = f"{project} stays here instead of {worker_class}: {why}"
        remedy = "add the missing package to the worker, then rch workers probe; or try again: rch doctor --fix"
        yield warn("unportable", text, remedy, functools.partial(way.post, "unportable", "forget"))


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False
