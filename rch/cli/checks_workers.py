"""Checks of the workers: what a probe over both planes finds, against what this machine has."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rch.cli.check import Check, fail, ok, warn
from rch.cli.probe import one_plane_only
from rch.cli.terminal import size
from rch.config.places import Places
from rch.errors import RchError
from rch.fleet.model import Registry, Worker

CLOCK_FAIL_MS = 1000.0
"""Kinds that return files are refused above it (design.md section 5)."""

CLOCK_WARN_MS = 250.0
DISK_WARN = 5_000_000_000
DISK_FAIL = 1_000_000_000
SETUP = "rch fleet apply --limit {name}"

Probe = Callable[[Worker], Mapping[str, Any]]
"""Answers what ``POST /v1/workers/NAME/probe`` answers; raises RchError."""


def probe_all(registry: Registry, probe: Probe) -> dict[str, Mapping[str, Any]]:
    """The probe of every worker, four at a time; a probe that fails is an answer with ``ok: false``."""
    from concurrent.futures import ThreadPoolExecutor

    def one(worker: Worker) -> tuple[str, Mapping[str, Any]]:
        try:
            return worker.name, probe(worker)
        except Exception as error:  # noqa: BLE001 - a doctor that dies of what it finds is no help
            if not isinstance(error, RchError):
                text = f"the probe itself failed: {type(error).__name__}: {error}"
                return worker.name, {"name": worker.name, "ok": False, "control": {"ok": False, "error": text}}
            why = {"ok": False, "error": error.message, "hint": error.hint, "class": error.label}
            return worker.name, {"name": worker.name, "ok": False, "control": why}

    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(pool.map(one, registry.workers.values()))


def check_worker(worker: Worker, answer: Mapping[str, Any], ours: Mapping[str, str]) -> Iterator[Check]:
    """Everything that one probe tells. *ours*: tool name -> identity here, of the tools that this machine has."""
    name = worker.name
    prefix = f"worker:{name}"
    setup = SETUP.format(name=name)
    control = _mapping(answer.get("control"))
    if not control.get("ok"):
        text = str(control.get("error") or "no answer")
        stage = _stage(control, text)
        told = _named(name, text) + (_login(worker, "control") if stage == "key" else "")
        yield fail(f"{prefix}:{stage}", told, _key_remedy(name, control) if stage == "key" else _hint(control, setup))
        return
    yield ok(f"{prefix}:control", f"{name}: reachable, rch-wkr {answer.get('version', 'unknown')}")
    bulk = _mapping(answer.get("bulk"))
    if bulk and not bulk.get("ok"):
        text = str(bulk.get("error") or "no answer")
        both = one_plane_only(answer)
        stage = _stage(bulk, text, "bulk")
        told = _named(name, both[0] if both else text) + (_login(worker, "bulk") if stage == "key" else "")
        yield fail(f"{prefix}:{stage}", told, _key_remedy(name, bulk) if stage == "key" else _hint(bulk, setup))
    elif bulk:
        yield ok(f"{prefix}:bulk", f"{name}: rsync over ssh works")
    sandbox = _mapping(answer.get("sandbox"))
    if not sandbox.get("ok"):
        text = f"{name}: no sandbox ({sandbox.get('why') or 'unknown'}); nothing that returns files runs there"
        yield fail(f"{prefix}:sandbox", text, setup)
    else:
        yield ok(f"{prefix}:sandbox", f"{name}: bubblewrap works")
    yield from _clock(name, prefix, answer.get("clock_offset_ms"))
    yield from _disk(name, prefix, _mapping(answer.get("health")))
    yield from _tools(worker, prefix, _mapping(answer.get("facts")), ours)


def _login(worker: Worker, plane: str) -> str:
    """As whom, with which key and whose help the *plane* tried to log in (coverage D-15)."""
    declared = worker.declared
    key = declared.ssh_key
    if key is None:
        identity = "ssh's own choice of key"
    else:
        try:
            identity = f"key {key}, mode {stat.S_IMODE(os.stat(key).st_mode):04o}"
        except OSError as error:
            identity = f"key {key}, {error.strerror}"
    agent = "an agent" if os.environ.get("SSH_AUTH_SOCK") else "no agent"
    return f" (account {declared.user}, {identity}, {agent}; {plane} plane)"


def _key_remedy(name: str, plane: Mapping[str, Any]) -> str:
    """What lets the key in: the playbook puts it there, unless the inventory names another or an agent holds it."""
    return str(plane.get("hint") or f"rch fleet apply --limit {name}, or set rch_ssh_key, or: ssh-add")


def _hint(plane: Mapping[str, Any], setup: str) -> str:
    return str(plane.get("hint") or setup)


def _clock(name: str, prefix: str, offset: Any) -> Iterator[Check]:
    if not isinstance(offset, (int, float)):
        return
    text = f"{name}: its clock is {abs(offset):.0f} ms {'ahead' if offset > 0 else 'behind'}"
    remedy = f"ssh {name} timedatectl, and here timedatectl: switch time synchronisation on"
    if abs(offset) > CLOCK_FAIL_MS:
        yield fail(f"{prefix}:clock", f"{text}; nothing that returns files runs there", remedy)
    elif abs(offset) > CLOCK_WARN_MS:
        yield warn(f"{prefix}:clock", text, remedy)
    else:
        yield ok(f"{prefix}:clock", text)


def _disk(name: str, prefix: str, health: Mapping[str, Any]) -> Iterator[Check]:
    free = health.get("disk_free")
    if not isinstance(free, (int, float)):
        return
    text = f"{name}: {size(free)} free for its cache"
    remedy = f"rch fleet gc --limit {name}"
    if free < DISK_FAIL:
        yield fail(f"{prefix}:disk", text, remedy)
    elif free < DISK_WARN:
        yield warn(f"{prefix}:disk", text, remedy)
    else:
        yield ok(f"{prefix}:disk", text)


def _tools(worker: Worker, prefix: str, facts: Mapping[str, Any], ours: Mapping[str, str]) -> Iterator[Check]:
    from rch.fleet.toolchains import identities, shown

    facts = {**worker.observed.facts, **facts}
    theirs = identities(facts)
    for tool, identity in ours.items():
        mine = identity.splitlines()[0][:80]
        there = shown(facts).get(tool, "none")
        if identity in theirs.get(tool, frozenset()):
            yield ok(f"{prefix}:toolchain:{tool}", f"{worker.name}: {mine}, identical")
        else:
            text = f"{worker.name}: {tool} differs (here {mine}, there {there[:80]}); such builds run here"
            yield warn(f"{prefix}:toolchain:{tool}", text, f"rch workers sync {worker.name}")


def tools_here(env: Mapping[str, str], cwd: str) -> dict[str, str]:
    """Tool name -> identity of the toolchains that this machine has."""
    from rch.project import identify_tools

    found = {}
    for tool in ("rust", "c", "go", "node"):
        try:
            (identity,) = identify_tools((tool,), cwd, env)
        except (RchError, OSError):
            continue  # not installed here: nothing to compare
        found[tool] = identity.identity
    return found


def probe_here(where: Places) -> Probe:
    """A probe that needs no rchd: the same code, in this process, on connections of its own."""

    def probe(worker: Worker) -> Mapping[str, Any]:
        from rch.daemon.places import client_id, make_directories
        from rch.daemon.pool import Member
        from rch.daemon.probe import executor_for
        from rch.daemon.probe import probe as over_both_planes

        make_directories(where)
        client = client_id(where)
        member = Member(worker, executor_for(worker, where.run, where, client))
        return over_both_planes(member, where, client)

    return probe


def _stage(plane: Mapping[str, Any], text: str, default: str = "control") -> str:
    """Which of the known failures it is; stable words for programs."""
    lowered = text.lower()
    if "host key" in lowered:
        return "host-key"
    if "key was refused" in lowered or "permission denied" in lowered:
        return "key"
    if "rsync" in lowered and plane.get("class") == "ToolMissing":
        return "rsync"
    if "rch-wkr" in lowered or plane.get("class") == "VersionMismatch":
        return "rch-wkr"
    if plane.get("class") == "Unreachable" and default == "control":
        return "unreachable"
    return default


def _named(name: str, text: str) -> str:
    return text if text.startswith(f"{name}:") else f"{name}: {text}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
