"""Project, Order, worker's facts -> the job's spec, as docs/architecture.md describes it. Pure."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Mapping
from typing import Any

from rch.execute.caching import caching
from rch.fleet.toolchains import binds, search_path
from rch.intercept.decision import Kind
from rch.order import Order
from rch.project.model import Project

FETCH_TIMEOUT_S = 1800.0
"""A cold registry over a slow link; a killed fetch resumes where it stopped (lessons TE-04)."""


def job_spec(
    project: Project,
    order: Order,
    kind: Kind,
    facts: Mapping[str, Any],
    *,
    job_id: str,
    client: str,
    timeout_s: float | None,
    network: str,
    stdin: bool = True,
    memory_bytes: int | None = None,
) -> tuple[dict[str, Any], bytes]:
    """The spec and the body that carries its small files."""
    user = _name(lambda: pwd.getpwuid(order.uid).pw_name, f"u{order.uid}")
    group = _name(lambda: grp.getgrgid(order.gid).gr_name, f"g{order.gid}")
    mounted = []
    env = dict(project.env)
    for tool in project.tools:
        known = env.get("PATH", "").split(":")
        env["PATH"] = ":".join(dict.fromkeys([*known, *search_path(facts, tool.tool.value, tool.identity)]))
        table = binds(facts, tool.tool.value, tool.identity)
        # What the facts do not map lies at the same path on the worker (a distribution's own compiler).
        mounted += [{"source": table[p], "path": p, "mode": "ro"} for p in sorted(table)]
    cache = caching(kind, order.words, env, facts, network)
    mounted += [{"source": source, "path": path, "mode": mode} for source, path, mode in cache.binds]
    env |= cache.env
    if cache.first:
        env["PATH"] = ":".join((*cache.first, env["PATH"]))
    files = [{"path": f.path, "mode": f.mode, "size": len(f.content)} for f in project.extra_files]
    home = project.env.get("HOME") or order.env.get("HOME") or "/"
    temporary = {"/tmp", "/var/tmp", *(v for k in ("TMPDIR", "TMP", "TEMP") if (v := project.env.get(k, "")))}
    spec: dict[str, Any] = {
        "id": job_id,
        "argv": list(order.run),
        "cwd": project.cwd,
        "env": env,
        "roots": [{"key": r.key, "path": p, "mode": "rw"} for r in project.roots for p in (r.path, *r.aliases)],
        "binds": mounted,
        "files": files,
        "uid": order.uid,
        "gid": order.gid,
        "user": user,
        "group": group,
        "hostname": socket.gethostname(),
        "umask": order.umask,
        "home": home,
        "tmpdirs": sorted(t for t in temporary if os.path.isabs(t) and t != "/"),
        "network": network,
        "fds": {
            "0": _stdin(order) if stdin else "null",
            "1": "tty" if order.fds["1"] == "tty" else "pipe",
            "2": "tty" if order.fds["2"] == "tty" else ("same" if order.same_out else "pipe"),
        },
        "rows": order.rows,
        "cols": order.cols,
        "timeout_s": timeout_s,
        "memory_bytes": memory_bytes,
        "cargo_home": project.cargo_home,
        "module_cache": project.module_cache,
        "fetch": [
            {"argv": list(argv), "timeout_s": FETCH_TIMEOUT_S, "stamp": project.fetch_stamp} for argv in project.fetch
        ],
        "sandbox": "required",
        "kind": kind.name,
        "client": client,
    }
    return spec, b"".join(f.content for f in project.extra_files)


def _stdin(order: Order) -> str:
    """A pipe, file or socket is forwarded with its end; a terminal only with -i, else the job has /dev/null."""
    kind = order.fds["0"]
    if kind == "tty":
        return "tty" if order.options.interactive else "null"
    return "pipe" if kind in ("pipe", "file") else "null"


def _name(look_up: Any, default: str) -> str:
    try:
        return str(look_up())
    except KeyError:
        return default
