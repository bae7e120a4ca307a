"""What a go command reads beside its project: modules, the places of its caches, and the fetch step.

The go command itself is not asked: a repository's go.mod may name a toolchain, which it would fetch and start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rch.paths import AbsPath, Argv, RelPath, is_below
from rch.project.model import Manifest, Root, ToolIdentity
from rch.worker.protocol import hash_bytes

BUILD_CACHE_DIRS = tuple(f"{number:02x}" for number in range(256))
"""Where GOCACHE keeps what was compiled, by the first two digits of its hash."""

_LIMIT = 4 * 1024 * 1024
_SUM = re.compile(r"(\S+) (v\S+?)(/go\.mod)? h1:\S+")
_LOCAL_REPLACE = re.compile(r"=>\s*(\"[^\"]*\"|`[^`]*`|\S+)\s*$")
_USE = re.compile(r"(?:use\s+)?(\"[^\"]*\"|`[^`]*`|\S+)\s*$")
_DECIDING = ("go.mod", "go.sum", "go.work", "go.work.sum")


@dataclass(frozen=True)
class GoLayout:
    """What the modules of a command need.

    main:    directory of the main module, or of the go.work that stands above it; real. "" outside every module.
    modules: directories of all modules that take part.
    outside: directories that a ``replace`` or ``use`` names and that exist.
    vendored: everything comes from ``vendor``; no module cache is read.
    """

    main: str
    modules: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    vendored: bool = False


def go_settings(env: Mapping[str, str]) -> dict[str, str]:
    """The caller's ``GO*`` variables, and below them what ``go env -w`` wrote down: a job's HOME has no such file."""
    path = env.get("GOENV") or os.path.join(
        env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME", "/"), ".config"), "go", "env"
    )
    found: dict[str, str] = {}
    if path != "off" and path.startswith("/"):
        for line in _lines(path):
            name, equals, value = line.strip().partition("=")
            if equals and re.fullmatch(r"(?:GO|CGO_)[A-Z0-9_]*|CC|CXX|AR|FC|PKG_CONFIG", name):
                found[name] = value
    return found | {name: value for name, value in env.items() if name.startswith(("GO", "CGO_"))}


def module_cache(env: Mapping[str, str]) -> AbsPath:
    """GOMODCACHE of the caller."""
    said = go_settings(env)
    place = said.get("GOMODCACHE")
    if not place:
        first = (said.get("GOPATH") or os.path.join(env.get("HOME", "/"), "go")).split(":")[0]
        place = os.path.join(first, "pkg", "mod")
    return AbsPath(os.path.normpath(place))


def build_cache(env: Mapping[str, str]) -> AbsPath:
    """GOCACHE of the caller: where its own go command looks whether a package has to be compiled."""
    place = go_settings(env).get("GOCACHE")
    if not place:
        above = env.get("XDG_CACHE_HOME") or os.path.join(env.get("HOME", "/"), ".cache")
        place = os.path.join(above, "go-build")
    return AbsPath(os.path.normpath(place))


def go_layout(directory: str, env: Mapping[str, str]) -> GoLayout:
    """The modules of a command that works in *directory* (real)."""
    module = _above(directory, "go.mod")
    work = env.get("GOWORK", "")
    workspace = "" if work == "off" else os.path.dirname(work) if work else _above(directory, "go.work")
    if not module and not workspace:
        return GoLayout("")
    modules = [module] if module else []
    outside: list[str] = []
    if workspace:
        modules += [os.path.realpath(os.path.join(workspace, p)) for p in _used(os.path.join(workspace, "go.work"))]
        outside += _replaced(os.path.join(workspace, "go.work"))
    for place in list(dict.fromkeys(modules)):
        outside += _replaced(os.path.join(place, "go.mod"))
    main = workspace or module
    return GoLayout(
        main,
        tuple(dict.fromkeys(modules)),
        tuple(dict.fromkeys(path for path in [*modules, *outside] if os.path.isdir(path))),
        vendored=os.path.isfile(os.path.join(main, "vendor", "modules.txt")),
    )


def module_files(layout: GoLayout, home: str) -> tuple[RelPath, ...]:
    """Files below the module cache *home* that the go.sum files need and this machine has, in a stable order.

    Archives and what describes them; a module is unpacked on the worker, by the fetch step.
    """
    found: list[str] = []
    for path, version, described in _sums(layout):
        stem = f"cache/download/{escaped(path)}/@v/{escaped(version)}"
        found += [f"{stem}.mod", f"{stem}.info"] if described else [f"{stem}.zip", f"{stem}.ziphash"]
    return tuple(RelPath(one) for one in sorted(set(found)) if os.path.isfile(os.path.join(home, one)))


def fetch_step(layout: GoLayout, words: Sequence[str]) -> tuple[Argv, ...]:
    """``go mod download`` before a command that reads modules from elsewhere; nothing where there are none.

    It unpacks what was sent, downloads the rest, and runs no code of the project. Unpacked files stay writable for
    their owner, so that whoever clears the worker's cache can.
    """
    if layout.vendored or "-mod=vendor" in words or not any(not described for _, _, described in _sums(layout)):
        return ()
    named = [word for word in words if word.startswith(("-modfile=", "--modfile="))]
    return (Argv("go", "-C", layout.main, "mod", "download", "-modcacherw", *named),)


def fetch_stamp(
    fetch: Sequence[Argv],
    roots: Sequence[Root],
    manifests: Mapping[str, Manifest],
    tools: Sequence[ToolIdentity],
    env: Mapping[str, str],
) -> str:
    """Digest of everything that decides what the steps *fetch* bring; "" without a step."""
    if not fetch:
        return ""
    lines = [str([list(step) for step in fetch]), str([tool.identity for tool in tools])]
    for root in roots:
        lines.append(root.path)
        entries = manifests[root.key].entries
        lines += [f"{p} {e.type} {e.content}" for p, e in sorted(entries.items()) if p.rpartition("/")[2] in _DECIDING]
    lines += [f"{name}={value}" for name, value in sorted(env.items()) if name.startswith("GO") and name != "GOCACHE"]
    return hash_bytes("\0".join(lines).encode("utf-8", "surrogateescape"))


def build_dirs(cache: str, root: str) -> list[str]:
    """The directories of the build cache *cache* (real) that lie below *root*, relative to it."""
    if not cache or not is_below(cache, root):
        return []
    inside = os.path.relpath(cache, root)
    return [name if inside == "." else f"{inside}/{name}" for name in BUILD_CACHE_DIRS]


def escaped(path: str) -> str:
    """A module path or version as the module cache spells it: ``!a`` for ``A``."""
    return re.sub(r"[A-Z]", lambda letter: "!" + letter[0].lower(), path)


def _sums(layout: GoLayout) -> Iterator[tuple[str, str, bool]]:
    """(module, version, only its go.mod) of every line of the sum files; a name that would leave the cache is none."""
    for directory in dict.fromkeys((layout.main, *layout.modules)):
        for name in ("go.sum", "go.work.sum"):
            for line in _lines(os.path.join(directory, name)) if directory else ():
                found = _SUM.fullmatch(line.strip())
                if found and ".." not in found[1].split("/") and not found[1].startswith("/") and "/" not in found[2]:
                    yield found[1], found[2], found[3] is not None


def _replaced(path: str) -> list[str]:
    """The directories that ``replace`` lines of a go.mod or go.work name, real."""
    found = []
    for line in _lines(path):
        match = _LOCAL_REPLACE.search(line.split("//", 1)[0])
        place = match[1].strip('"`') if match else ""
        if place.startswith(("./", "../", "/")) or place in (".", ".."):
            found.append(os.path.realpath(os.path.join(os.path.dirname(path), place)))
    return found


def _used(path: str) -> list[str]:
    """The directories of the ``use`` lines of a go.work, as written."""
    found, block = [], False
    for raw in _lines(path):
        line = raw.split("//", 1)[0].strip()
        if re.fullmatch(r"use\s*\(", line):
            block = True
        elif line == ")":
            block = False
        elif line and (block or re.match(r"use\s", line)):
            match = _USE.fullmatch(line)
            if match:
                found.append(match[1].strip('"`'))
    return found


def _above(directory: str, name: str) -> str:
    """The nearest directory at or above *directory* that holds the file *name*; "" if none does."""
    while True:
        if os.path.isfile(os.path.join(directory, name)):
            return directory
        parent = os.path.dirname(directory)
        if parent == directory:
            return ""
        directory = parent


def _lines(path: str) -> list[str]:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            return stream.read(_LIMIT).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
