"""Which toolchains a command would use here, compared for equality with what a worker has.

Rust is found as rustup finds it (its order: ``+name``, RUSTUP_TOOLCHAIN, then from the working directory up an override
or a toolchain file, then the default), and the compiler itself is asked, never the proxy: a repository's toolchain file
may name any program (see :mod:`rch.project.programs`). Answers are kept under the stat data of the program.
"""

from __future__ import annotations

import os
import platform
import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rch.errors import NotOffloadable
from rch.paths import AbsPath
from rch.project.model import Tool, ToolIdentity
from rch.project.places import is_system
from rch.project.programs import ask, check_trusted, find_program, is_own, path_directories

_Key = tuple[object, ...]
_Check = Callable[[str], None]
"""Raises for a program that must not be started."""

_answers: dict[_Key, ToolIdentity] = {}
_lock = threading.Lock()
_KEPT = 256


def identify_tools(
    tools: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    *,
    toolchain: str = "",
    writable: Sequence[str] = (),
    confined: bool = False,
) -> tuple[ToolIdentity, ...]:
    """The identity of each of *tools* ("rust", "c", "go", "node") for a command started in *cwd* (real).

    toolchain: the name behind ``+`` in argv. writable: what the caller may write; nothing from there is started.
    confined: nor anything else that is not this process's own, see :func:`rch.project.programs.is_own`.
    Raises NotOffloadable: ``capability-missing`` if the tool is not installed here, ``toolchain-mismatch`` if nothing
    certain can be said about it. A warm call starts no process.
    """

    def check(program: str) -> None:
        check_trusted(program, writable, confined=confined)

    found = []
    for name in tools:
        tool = Tool(name)
        if tool is Tool.RUST:
            found.append(_rust(cwd, env, toolchain, check))
        elif tool is Tool.C:
            found.append(_c(env, check, confined=confined))
        elif tool is Tool.GO:
            found.append(_go(env, check))
        else:
            found.append(_node(env, check))
    return tuple(found)


def _kept(key: _Key, make: Callable[[], ToolIdentity]) -> ToolIdentity:
    with _lock:
        known = _answers.get(key)
    if known is None:
        known = make()
        with _lock:
            if len(_answers) >= _KEPT:
                _answers.clear()
            _answers[key] = known
    return known


def _stat_key(path: str) -> tuple[object, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return (path, None)
    return (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _missing(program: str) -> NotOffloadable:
    return NotOffloadable(f"{program} is not installed here", code="capability-missing", hint="run the command here")


# Rust


def _rust(cwd: str, env: Mapping[str, str], toolchain: str, check: _Check) -> ToolIdentity:
    named = env.get("RUSTC", "")
    program = find_program(named if "/" in named else (named or "rustc"), env)
    if program is None:
        raise _missing(named or "rustc")
    binds: tuple[AbsPath, ...]
    if _is_proxy(program):
        home = rustup_home(env)
        directory = rustup_toolchain(cwd, env, toolchain)
        compiler = os.path.join(directory, "bin", "rustc")
        settings = os.path.join(home, "settings.toml")
        binds = _outside_system(os.path.dirname(program), settings, directory, os.path.realpath(directory))
    else:
        compiler = program
        binds = _outside_system(os.path.dirname(os.path.dirname(os.path.realpath(program))))
    check(compiler)

    def make() -> ToolIdentity:
        said = ask([compiler, "-vV"]).strip()
        return ToolIdentity(Tool.RUST, said, said.split("\n", 1)[0], binds)

    return _kept(("rust", binds, _stat_key(os.path.realpath(compiler))), make)


def _is_proxy(program: str) -> bool:
    if os.path.basename(os.path.realpath(program)) in ("rustup", "rustup-init"):
        return True
    sibling = os.path.join(os.path.dirname(program), "rustup")  # older versions make hard links, or copies
    try:
        return os.path.samefile(program, sibling) or os.path.getsize(program) == os.path.getsize(sibling)
    except OSError:
        return False


def rustup_home(env: Mapping[str, str]) -> AbsPath:
    """RUSTUP_HOME of the caller."""
    return AbsPath(env.get("RUSTUP_HOME") or os.path.join(env.get("HOME", "/"), ".rustup"))


def rustup_toolchain(cwd: str, env: Mapping[str, str], given: str = "") -> AbsPath:
    """The directory of the toolchain that rustup would use in *cwd* (real).

    Raises NotOffloadable ``toolchain-mismatch`` for one that is not installed, or that a file names by path.
    """
    home = rustup_home(env)
    settings = _toml(os.path.join(home, "settings.toml"))
    name = given or env.get("RUSTUP_TOOLCHAIN", "") or _from_directories(cwd, settings)
    if not name:
        default = settings.get("default_toolchain")
        name = default if isinstance(default, str) else ""
    if not name:
        raise NotOffloadable(
            "rustup has no default toolchain here", code="toolchain-mismatch", hint="rustup default stable"
        )
    if "/" in name:
        raise NotOffloadable(
            f"the toolchain {name} is named by its path, so no worker can be asked for it", code="toolchain-mismatch"
        )
    host = settings.get("default_host_triple")
    triple = host if isinstance(host, str) else f"{platform.machine()}-unknown-linux-gnu"
    for candidate in (name, f"{name}-{triple}"):
        directory = os.path.join(home, "toolchains", candidate)
        if os.path.isdir(directory):
            return AbsPath(directory)
    raise NotOffloadable(
        f"the toolchain {name} is not installed here",
        code="toolchain-mismatch",
        hint=f"rustup toolchain install {name}",
    )


def _from_directories(cwd: str, settings: Mapping[str, Any]) -> str:
    """What the nearest override or toolchain file says; in one directory the override wins."""
    overrides = settings.get("overrides")
    directory = cwd
    while True:
        if isinstance(overrides, dict) and isinstance(overrides.get(directory), str):
            return str(overrides[directory])
        for file in ("rust-toolchain", "rust-toolchain.toml"):
            path = os.path.join(directory, file)
            if os.path.isfile(path):
                return _channel(path, directory)
        parent = os.path.dirname(directory)
        if parent == directory:
            return ""
        directory = parent


def _channel(path: str, directory: str) -> str:
    try:
        with open(path, "rb") as stream:
            text = stream.read(64 * 1024).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise NotOffloadable(f"{path} cannot be read", code="toolchain-mismatch") from error
    lines = text.strip().split("\n")
    if not path.endswith(".toml") and len(lines) == 1 and "[" not in text:
        return lines[0].strip()
    try:
        table = tomllib.loads(text).get("toolchain")
    except tomllib.TOMLDecodeError as error:
        raise NotOffloadable(f"{path} cannot be read: {error}", code="toolchain-mismatch") from error
    table = table if isinstance(table, dict) else {}
    if isinstance(table.get("path"), str):
        return os.path.join(directory, table["path"])
    channel = table.get("channel")
    return channel if isinstance(channel, str) else ""


def _toml(path: str) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as stream:
            return tomllib.load(stream)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


# C, Go, Node


_PACKAGE_RECORDS = ("/var/lib/dpkg/status", "/var/lib/rpm/rpmdb.sqlite", "/lib/apk/db/installed")
_COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "ld", "as")


def _c(env: Mapping[str, str], check: _Check, *, confined: bool) -> ToolIdentity:
    """As the worker identifies its own compiler; kept until a compiler on PATH or the list of packages changes."""
    directories = path_directories(env)
    programs = [path for name in _COMPILERS if (path := find_program(name, env)) is not None]
    for program in programs:
        check(program)
    if confined:  # a program that appears in one of the others from now on is not looked for there
        directories = [path for path in directories if is_own(path)]

    def make() -> ToolIdentity:
        from rch.worker.identity import c_identity

        said = c_identity(":".join(directories))
        if not said or not said.get("identity"):
            raise _missing("a C compiler")
        binds = tuple(AbsPath(path) for path in said.get("binds", ()))
        return ToolIdentity(Tool.C, str(said["identity"]), str(said.get("shown") or said["identity"]), binds)

    stats = tuple(_stat_key(os.path.realpath(path)) for path in (*programs, *_PACKAGE_RECORDS))
    return _kept(("c", tuple(directories), stats), make)


def _go(env: Mapping[str, str], check: _Check) -> ToolIdentity:
    program = find_program("go", env)
    if program is None:
        raise _missing("go")
    check(program)
    goroot = env.get("GOROOT") or os.path.dirname(os.path.dirname(os.path.realpath(program)))
    binds = _outside_system(goroot, os.path.dirname(program))

    def make() -> ToolIdentity:
        said = ask([program, "version"], env={"GOTOOLCHAIN": "local"}).strip()
        return ToolIdentity(Tool.GO, said, said, binds)

    return _kept(("go", binds, program, _stat_key(os.path.realpath(program))), make)


def _node(env: Mapping[str, str], check: _Check) -> ToolIdentity:
    program = find_program("node", env)
    if program is None:
        raise _missing("node")
    check(program)
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(program)))
    binds = _outside_system(prefix, os.path.dirname(program))

    def make() -> ToolIdentity:
        from rch.worker.identity import NODE_QUESTION

        said = ask([program, "-p", NODE_QUESTION]).strip()
        return ToolIdentity(Tool.NODE, f"node {said}", f"node {said.split(' ')[0]}", binds)

    return _kept(("node", binds, program, _stat_key(os.path.realpath(program))), make)


def _outside_system(*paths: str) -> tuple[AbsPath, ...]:
    """Those of *paths* that a job would not see anyway; /opt is the worker's own there too."""
    kept = [path for path in paths if path != "/" and not is_system(path) and not path.startswith("/opt/")]
    return tuple(dict.fromkeys(AbsPath(path) for path in kept))
