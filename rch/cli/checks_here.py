"""Checks of this machine: files, modes, programs, the inventory. None of them needs rchd or the network."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping

from rch.cli.check import Check, fail, ok, warn
from rch.cli.holders import environment_of
from rch.cli.terminal import size
from rch.client_paths import SOCKET_PATH_MAX
from rch.config.merged import Config, load_config
from rch.config.places import Places
from rch.config.switches import nearest_variable, unknown_variables
from rch.errors import ConfigError, Refused
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
    theirs = environment_of(rchd_pid).get("SSH_AUTH_SOCK", "") if rchd_pid else ""
    if theirs and not _answers(theirs):
        yield warn(
            "ssh-agent-of-rchd",
            f"the SSH agent that rchd was started with has gone ({theirs}); keys that only it holds are refused",
            "rch daemon restart",
        )


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except (OSError, ValueError):
            return False
    return True
