"""Checks of this machine: files, modes, programs, the inventory, rchd. None of them needs rchd or the network."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from rch import __version__
from rch.cli.api import Api, NotRunning
from rch.cli.check import Check, fail, ok, warn
from rch.cli.lifecycle import lock_holder
from rch.cli.terminal import duration, size
from rch.client_paths import SOCKET_PATH_MAX
from rch.config.merged import Config, load_config
from rch.config.places import Places
from rch.config.switches import DAEMON_NAMES, nearest_variable, unknown_variables
from rch.errors import ConfigError, RchError, Refused
from rch.fleet.model import Registry
from rch.paths import AbsPath

DISK_WARN = 5_000_000_000
DISK_FAIL = 500_000_000
"""Bytes free below which products of a larger build may not fit, or nothing is safe any more."""

PROGRAMS = (
    ("ssh", "fail", "carries the files", "openssh-client"),
    ("rsync", "fail", "carries the files", "rsync"),
    ("git", "warn", "lists the files of a project", "git"),
    ("zstd", "warn", "unpacks kept logs by hand", "zstd"),
)


def check_config(cwd: str, env: Mapping[str, str]) -> tuple[list[Check], Config | None]:
    """Configuration files, RCH_ variables, trust; and the configuration if it loads."""
    found: list[Check] = []
    for name in unknown_variables(env):
        close = nearest_variable(name)
        meant = f"; did you mean {close}?" if close else ""
        found.append(warn("environment", f"{name} means nothing to rch{meant}", f"unset {name}"))
    try:
        config = load_config(cwd, env)
    except ConfigError as error:
        name = "environment" if error.code == "bad-environment" else "config"
        return [*found, fail(name, error.message, error.hint or "rch config validate")], None
    files = ", ".join(file.path for file in config.files)
    found.append(ok("config", f"valid: {files}" if files else "no file, defaults"))
    if config.untrusted:
        keys = ", ".join(config.untrusted)
        found.append(warn("trust", f"{config.project_file} is not trusted, {keys} have no effect", "rch config trust"))
    if not config.enabled:
        found.append(warn("enabled", "rch is switched off; everything runs here", "rch config show --changed"))
    elif config.local_only:
        found.append(warn("enabled", "local_only is set; everything runs here", "rch config show --changed"))
    return found, config


def check_state(where: Places) -> Iterator[Check]:
    """State and run directory: owner, modes, room."""
    for name, path in (("state-dir", where.state), ("run-dir", where.run)):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            yield ok(name, f"{path} does not exist yet; the first start makes it")
            continue
        except OSError as error:
            yield fail(name, f"{path}: {error.strerror}", f"ls -ld {shlex.quote(path)}")
            continue
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.getuid():
            yield fail(
                name, f"{path} belongs to uid {found.st_uid}, not to you", "export RCH_STATE_DIR=/another/directory"
            )
        elif mode & 0o077:
            yield fail(
                name,
                f"{path} has mode {mode:04o}, others may look in",
                f"chmod 700 {shlex.quote(path)}",
                functools.partial(os.chmod, path, 0o700),
            )
        else:
            yield ok(name, f"{path}, mode {mode:04o}")
    if os.path.isdir(where.state):
        free = shutil.disk_usage(where.state).free
        text = f"{size(free)} free in {where.state}"
        if free < DISK_FAIL:
            yield fail("disk-here", text, f"df -h {shlex.quote(where.state)}")
        elif free < DISK_WARN:
            yield warn("disk-here", text, f"df -h {shlex.quote(where.state)}")
        else:
            yield ok("disk-here", text)


def check_socket_path(path: str) -> Check:
    """A path that no socket address can hold."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_MAX:
        return fail(
            "socket-path",
            f"{path} has {length} bytes, a socket's path may have {SOCKET_PATH_MAX}",
            "export RCH_STATE_DIR=/a/shorter/path",
        )
    return ok("socket-path", f"{path}, {length} of {SOCKET_PATH_MAX} bytes")


def check_programs(path: str | None) -> Iterator[Check]:
    """Programs that rch starts on this machine."""
    for program, status, why, package in PROGRAMS:
        at = shutil.which(program, path=path)
        name = f"program:{program}"
        if at:
            yield ok(name, at)
        else:
            make = fail if status == "fail" else warn
            yield make(name, f"{program} is not installed; it {why}", f"sudo apt-get install {package}")


def check_inventory(state: AbsPath, env: Mapping[str, str]) -> tuple[list[Check], Registry | None]:
    """The inventory, its compiled snapshot, and the registry that it gives."""
    from rch.fleet.inventory import find_inventory
    from rch.fleet.registry import compile_registry, is_stale, read_registry

    try:
        source = find_inventory(environ=env)
    except ConfigError as error:
        return [fail("inventory", error.message, error.hint or "rch init")], None
    found: list[Check] = []
    try:
        stale = is_stale(state, source)
        # Nothing is written here: looking must not hide what rchd still uses.
        registry = compile_registry(state, source, write=False) if stale else read_registry(state)
    except ConfigError as error:
        return [
            fail("inventory", error.message, error.hint or f"ansible-inventory -i {shlex.quote(source)} --list")
        ], None
    if stale and os.path.exists(os.path.join(state, "registry.json")):
        found.append(
            warn(
                "registry",
                "the compiled registry is older than the inventory",
                "rch inventory show",
                lambda: compile_registry(state, source),
            )
        )
    if not registry.workers:
        known = _hosts_known(env)
        tail = f"; ~/.ssh/config and aliases know {', '.join(known)}" if known else ""
        found.append(
            warn("inventory", f"{source} has no workers{tail}", "rch init" if known else "rch init NAME=USER@HOST")
        )
    else:
        found.append(ok("inventory", f"{source}: {', '.join(registry.workers)}"))
    return found, registry


def _hosts_known(env: Mapping[str, str]) -> list[str]:
    """Machines that could be asked to become workers, where the user wants to hear of them; nothing is contacted."""
    from rch.fleet.discover import discover

    try:
        wanted = load_config("/", env).value("workers.discovery_enabled")
    except ConfigError:
        return []
    return [one.name for one in discover(os.path.expanduser("~"))] if wanted else []


def check_keys(registry: Registry) -> Iterator[Check]:
    """Identity files: there, and nobody else's to read (coverage A-15)."""
    from rch.execute.ssh_settings import check_identity

    for worker in registry.workers.values():
        key = worker.declared.ssh_key
        if worker.declared.executor != "ssh" or key is None:
            continue
        name = f"worker:{worker.name}:key"
        try:
            check_identity(worker.name, key)
        except Refused as error:
            fixable = os.path.exists(key)
            yield fail(name, error.message, error.hint, functools.partial(os.chmod, key, 0o600) if fixable else None)
        else:
            yield ok(name, f"{worker.name}: {key}")


def check_agent(env: Mapping[str, str], rchd_pid: int | None) -> Iterator[Check]:
    """The SSH agent's socket, as this shell and as rchd know it (lessons DS-10)."""
    own = env.get("SSH_AUTH_SOCK", "")
    if own and not _answers(own):
        yield warn("ssh-agent", f"SSH_AUTH_SOCK names {own}, where no agent listens", 'eval "$(ssh-agent)" && ssh-add')
    elif own:
        yield ok("ssh-agent", own)
    theirs = _environment_of(rchd_pid).get("SSH_AUTH_SOCK", "") if rchd_pid else ""
    if theirs and not _answers(theirs):
        yield warn(
            "ssh-agent-of-rchd",
            f"the SSH agent that rchd was started with has gone ({theirs}); keys that only it holds are refused",
            "rch daemon restart",
        )


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
        from rch.cli.lifecycle import start_rchd

        if os.path.lexists(config.socket_path) and not _is_socket(config.socket_path):
            text = f"{config.socket_path} is no socket; rchd cannot listen there"
            return [fail("rchd", text, f"mv {shlex.quote(config.socket_path)} somewhere else; rch daemon start")], None
        return [warn("rchd", "rchd is not running", "rch daemon start", lambda: start_rchd(config, way))], None
    except RchError as error:
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
    theirs = _environment_of(pid) if isinstance(pid, int) else {}
    if theirs:
        for name in DAEMON_NAMES:
            if theirs.get(name, "") != env.get(name, ""):
                text = f"rchd was started with {name}={theirs.get(name, '')!r}, here it is {env.get(name, '')!r}"
                found.append(warn("rchd-environment", text, "rch daemon restart"))
    return found, status


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
    import contextlib
    import sqlite3

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


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except (OSError, ValueError):
            return False
    return True


def _environment_of(pid: int | None) -> dict[str, str]:
    """The environment that a process of ours was started with; nothing where that cannot be read."""
    if not pid:
        return {}
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            data = stream.read(1024 * 1024)
    except OSError:
        return {}
    pairs = (part.partition(b"=") for part in data.split(b"\0") if b"=" in part)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
