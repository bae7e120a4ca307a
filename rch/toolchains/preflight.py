"""Is the command likely to fail before anything was sent? Then it runs here, where the user sees the real error.

Pure: files are read through a callable that the caller passes. On any doubt the answer is ``unknown``, and the command
goes on as decided (coverage B-9).
"""

from __future__ import annotations

import os.path
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rch.intercept.decision import Kind
from rch.toolchains import cargo, cc, rustc
from rch.toolchains.option import UNKNOWN, Reading

READY = "ready"
LIKELY_TO_FAIL = "likely-to-fail"
UNKNOWN_ANSWER = "unknown"

INVALID_MANIFEST = "invalid-manifest"
MISSING_FILE = "missing-file"
INVALID_TARGET = "invalid-target"
SYNTAX_ERROR = "syntax-error"
MISSING_DEPENDENCY = "missing-dependency"

Read = Callable[[str], "bytes | None"]
"""Absolute path -> contents of the regular file there, None when there is none. May raise OSError: then unknown."""
List = Callable[[str], "Sequence[str] | None"]
"""Absolute path -> names in that directory, None when it is none. May raise OSError: then unknown."""


@dataclass(frozen=True)
class Preflight:
    """answer: ready, likely-to-fail or unknown. problem: one of the five, with details and a suggestion for people."""

    answer: str
    problem: str = ""
    details: str = ""
    suggestion: str = ""

    @property
    def reason(self) -> str:
        """The code of the closed list, "" when nothing speaks against going on."""
        return f"preflight-{self.problem}" if self.answer == LIKELY_TO_FAIL else ""


def check(argv: Sequence[str], kind: Kind, cwd: str, read: Read, names: List) -> Preflight:
    """Look at what *argv* names. argv: the build's own words, aliases expanded; cwd: absolute. Never raises."""
    try:
        if kind.name.startswith("cargo."):
            return _check_cargo(argv, cwd, read, names)
        if kind is rustc.COMPILE:
            return _check_sources(rustc.sources(argv), cwd, read, names)
        if kind in (cc.COMPILE, cc.CHECK):
            return _check_sources(cc.sources(argv), cwd, read, names)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        # Manifests come from a repository; whatever shape surprises us is for cargo to judge.
        return Preflight(UNKNOWN_ANSWER)
    return Preflight(UNKNOWN_ANSWER)


def _fails(problem: str, details: str, suggestion: str) -> Preflight:
    return Preflight(LIKELY_TO_FAIL, problem, details, suggestion)


def _check_sources(files: Sequence[str], cwd: str, read: Read, names: List) -> Preflight:
    for file in files:
        if UNKNOWN in file or any(letter in file for letter in "*?["):
            return Preflight(UNKNOWN_ANSWER)
        path = os.path.normpath(os.path.join(cwd, file))
        folder, base = os.path.split(path)
        listed = names(folder)
        if listed is None or (base not in listed and read(path) is None):
            return _fails(MISSING_FILE, f"{file} does not exist", "check the path and the directory")
    return Preflight(READY if files else UNKNOWN_ANSWER)


def _check_cargo(argv: Sequence[str], cwd: str, read: Read, names: List) -> Preflight:
    reading = cargo.options_of(argv)
    if reading is None or reading.has("-C", "--config"):
        return Preflight(UNKNOWN_ANSWER)
    chosen = reading.values("--manifest-path")
    if chosen:
        path = os.path.normpath(os.path.join(cwd, chosen[-1]))
        data = read(path)
        if data is None:
            return _fails(INVALID_MANIFEST, f"{chosen[-1]} does not exist", "check --manifest-path")
    else:
        found = _find_manifest(cwd, read)
        if found is None:
            return _fails(INVALID_MANIFEST, f"no Cargo.toml in {cwd} or above", "change to the project's directory")
        path, data = found
    problem, manifest = _parse(path, data)
    if problem is not None:
        return problem
    return _check_packages(reading, path, manifest, read, names)


def _find_manifest(cwd: str, read: Read) -> tuple[str, bytes] | None:
    folder = cwd
    while True:
        path = os.path.join(folder, "Cargo.toml")
        data = read(path)
        if data is not None:
            return path, data
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def _parse(path: str, data: bytes) -> tuple[Preflight | None, Mapping[str, Any]]:
    """The manifest, and what is wrong with it."""
    try:
        manifest = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return _fails(INVALID_MANIFEST, f"{path}: {error}", "mend the manifest"), {}
    package = manifest.get("package", manifest.get("project"))
    if package is None and "workspace" not in manifest:
        return _fails(INVALID_MANIFEST, f"{path} has neither [package] nor [workspace]", "add one of them"), {}
    if package is not None and not package.get("name"):
        return _fails(INVALID_MANIFEST, f"{path}: [package] has no name", "give the package a name"), {}
    return None, manifest


def _check_packages(reading: Reading, path: str, manifest: Mapping[str, Any], read: Read, names: List) -> Preflight:
    members = _members(path, manifest, read, names)
    wanted = reading.values("-p", "--package")
    known = {package["package"]["name"]: folder for folder, package in members.items() if "package" in package}
    for spec in wanted:
        # Versions, URLs, patterns and dependencies are cargo's to resolve; a plain name that is nowhere is an error.
        if any(letter in spec for letter in "@#:/*?[" + UNKNOWN):
            return Preflight(UNKNOWN_ANSWER)
        if spec not in known and not _locked(spec, path, members, read):
            return _fails(
                MISSING_DEPENDENCY,
                f"no package {spec!r} in the workspace",
                f"known: {', '.join(sorted(known)) or 'none'}",
            )
    if len(wanted) == 1 and wanted[0] in known:
        chosen = {known[wanted[0]]: members[known[wanted[0]]]}
    elif (
        "package" in manifest
        and not wanted
        and not reading.has("--workspace", "--all")
        and "default-members" not in manifest.get("workspace", {})
    ):
        chosen = {os.path.dirname(path): manifest}
    else:
        chosen = members
    return _check_targets(reading, chosen, names)


def _locked(name: str, path: str, members: Mapping[str, Mapping[str, Any]], read: Read) -> bool:
    """Whether the lock file knows *name*; where there is none, whether anything is depended upon."""
    folder = os.path.dirname(path)
    while True:
        data = read(os.path.join(folder, "Cargo.lock"))
        if data is not None:
            return f'name = "{name}"'.encode() in data
        above = os.path.dirname(folder)
        if above == folder:
            return any("dependencies" in key or key == "target" for one in members.values() for key in one)
        folder = above


def _members(path: str, manifest: Mapping[str, Any], read: Read, names: List) -> dict[str, Mapping[str, Any]]:
    """Directory -> manifest of every package of the workspace around *path*."""
    folder = os.path.dirname(path)
    root, top = folder, manifest
    if "workspace" not in manifest:
        above = os.path.dirname(folder)
        while above != os.path.dirname(above):
            data = read(os.path.join(above, "Cargo.toml"))
            parsed = _parse(above, data)[1] if data is not None else {}
            if "workspace" in parsed:
                root, top = above, parsed
                break
            above = os.path.dirname(above)
    found: dict[str, Mapping[str, Any]] = {folder: manifest, root: top}
    for pattern in top.get("workspace", {}).get("members", ()):
        for member in _matching(root, pattern.split("/"), names):
            data = read(os.path.join(member, "Cargo.toml"))
            if data is not None:
                problem, parsed = _parse(member, data)
                if problem is None:
                    found[member] = parsed
    return found


def _matching(folder: str, parts: Sequence[str], names: List) -> list[str]:
    """Directories that a pattern of ``members`` names."""
    if not parts:
        return [folder]
    first, *rest = parts
    if first in ("", "."):
        return _matching(folder, rest, names)
    if not any(letter in first for letter in "*?["):
        return _matching(os.path.normpath(os.path.join(folder, first)), rest, names)
    return [
        match
        for name in sorted(names(folder) or ())
        if fnmatchcase(name, first) and not name.startswith(".")
        for match in _matching(os.path.join(folder, name), rest, names)
    ]


_PLACES = {"--bin": ("bin", "src/bin"), "--example": ("example", "examples"), "--test": ("test", "tests")}


def _check_targets(reading: Reading, packages: Mapping[str, Mapping[str, Any]], names: List) -> Preflight:
    for option, (table, place) in {**_PLACES, "--bench": ("bench", "benches")}.items():
        for name in reading.values(option):
            if not name or any(letter in name for letter in "*?[" + UNKNOWN):
                continue
            if not any(_has_target(folder, one, table, place, name, names) for folder, one in packages.items()):
                return _fails(
                    INVALID_TARGET, f"no {table} target named {name!r}", f"look into {place}/ and [[{table}]]"
                )
    return Preflight(READY)


def _has_target(folder: str, manifest: Mapping[str, Any], table: str, place: str, name: str, names: List) -> bool:
    if any(target.get("name") == name for target in manifest.get(table, ())):
        return True
    inside = names(os.path.join(folder, place)) or ()
    if f"{name}.rs" in inside or (name in inside and "main.rs" in (names(os.path.join(folder, place, name)) or ())):
        return True
    package = manifest.get("package", {})
    return table == "bin" and package.get("name") == name and "main.rs" in (names(os.path.join(folder, "src")) or ())
