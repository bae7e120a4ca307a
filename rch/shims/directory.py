"""The directory of shims: made, looked at and taken away."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rch.client_paths import SHIM_MARK, path_without_shims
from rch.errors import ConfigError
from rch.shims.judge import PROGRAMS
from rch.shims.program import Setting, render

_MARK_TEXT = (
    "This directory holds the shims of rch. A command that rch runs here has no directory with this file in PATH.\n"
)
_OURS = b"the shim of rch"
_VERSIONED_CC = re.compile(r"(?:[a-z0-9_]+-){0,4}(?:gcc|g\+\+|clang|clang\+\+|cc|c\+\+)-[0-9]+(?:\.[0-9]+)*\Z")
_CROSS_CC = re.compile(r"[a-z0-9_]+-[a-z0-9_]+-[a-z0-9_]+(?:-[a-z0-9_]+)?-(?:gcc|g\+\+|clang|clang\+\+|cc|c\+\+)\Z")


@dataclass(frozen=True)
class Status:
    """What is there. shims: tool -> the real program it stands for, "" when that has gone.

    installed: the directory is ours; on a machine without build tools there is no shim in it.
    """

    directory: str
    installed: bool
    on_path: bool
    shims: Mapping[str, str]
    missing: tuple[str, ...]
    stale: tuple[str, ...]


def wanted(path: str, toolchains: Iterable[str]) -> dict[str, str]:
    """Program -> toolchain, for every program of *toolchains* that PATH *path* has besides shims.

    A shim without a real program behind it would make configure scripts find a compiler that is not there.
    """
    on = set(toolchains)
    names = {program: name for name, programs in PROGRAMS.items() if name in on for program in programs}
    found: dict[str, str] = {}
    for place in path_without_shims(path).split(":"):
        try:
            entries = os.listdir(place or ".")
        except OSError:
            continue
        for entry in entries:
            toolchain = names.get(entry, "")
            if not toolchain and "cc" in on and (_VERSIONED_CC.match(entry) or _CROSS_CC.match(entry)):
                toolchain = "cc"
            if toolchain and entry not in found and os.access(os.path.join(place or ".", entry), os.X_OK):
                found[entry] = toolchain
    return found


def real_program(tool: str, path: str) -> str:
    """Where PATH *path* has *tool* besides shims, or ""."""
    for place in path_without_shims(path).split(":"):
        full = os.path.join(place or ".", tool)
        if os.path.isfile(full) and os.access(full, os.X_OK):
            return os.path.abspath(full)
    return ""


def install(directory: str, tools: Mapping[str, str], setting: Setting) -> tuple[list[str], list[str]]:
    """Make *directory* hold exactly the shims of *tools*; ``(written, removed)`` names. Twice changes nothing.

    Raises ConfigError for a directory that holds something else.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    strange = [name for name in os.listdir(directory) if name != SHIM_MARK and not is_shim(directory, name)]
    if strange:
        raise ConfigError(f"{directory} holds {strange[0]!r}, which is no shim", hint=f"move it out of {directory}")
    _write(os.path.join(directory, SHIM_MARK), _MARK_TEXT, 0o600)
    written = [
        tool
        for tool, toolchain in sorted(tools.items())
        if _write(os.path.join(directory, tool), render(tool, toolchain, setting), 0o700)
    ]
    removed = sorted(name for name in os.listdir(directory) if name != SHIM_MARK and name not in tools)
    for name in removed:
        os.unlink(os.path.join(directory, name))
    return written, removed


def uninstall(directory: str) -> list[str]:
    """Take the shims away, and the directory when nothing else is in it; the names of what went."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    gone = [name for name in names if name != SHIM_MARK and is_shim(directory, name)]
    for name in gone:
        os.unlink(os.path.join(directory, name))
    if set(names) <= {SHIM_MARK, *gone}:
        if SHIM_MARK in names:
            os.unlink(os.path.join(directory, SHIM_MARK))
        os.rmdir(directory)
    return gone


def status(directory: str, path: str, tools: Mapping[str, str], setting: Setting) -> Status:
    """How *directory* compares with what :func:`install` would make of it.

    missing: programs of PATH without a shim. stale: shims whose text or program is not today's.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if is_shim(directory, name))
    except OSError:
        names = []
    stale = [n for n in names if n not in tools or _read(os.path.join(directory, n)) != render(n, tools[n], setting)]
    marked = os.path.exists(os.path.join(directory, SHIM_MARK))
    on_path = any(place and os.path.realpath(place) == os.path.realpath(directory) for place in path.split(":"))
    shims = {name: real_program(name, path) for name in names}
    missing = tuple(sorted(set(tools) - set(names)))
    return Status(directory, marked, on_path, shims, missing, tuple(stale))


def is_shim(directory: str, name: str) -> bool:
    """Did :func:`install` write this file?"""
    try:
        with open(os.path.join(directory, name), "rb") as file:
            return file.read(12) == b"#!/bin/sh\n# " and _OURS in file.readline()
    except OSError:
        return False


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def _write(path: str, text: str, mode: int) -> bool:
    """Put *text* there by rename, so that a shim that is being run stays whole; False if it was there already."""
    if _read(path) == text and os.stat(path).st_mode & 0o777 == mode:
        return False
    beside = f"{path}.{os.getpid()}.new"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, mode)
        file.write(text)
    os.rename(beside, path)
    return True
