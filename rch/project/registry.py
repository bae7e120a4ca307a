"""What a cargo command needs of CARGO_HOME: the files this machine has, and the fetch step for the rest."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rch.paths import AbsPath, Argv, RelPath
from rch.project.cargo import cargo_home
from rch.project.model import ExtraFile, Manifest, Root, ToolIdentity
from rch.worker.protocol import hash_bytes

_REGISTRY = ("registry+", "sparse+")
_NO_CODE_OF_THE_PROJECT = (
    *("--config", 'build.rustc="rustc"'),
    *("--config", 'build.rustc-wrapper=""'),
    *("--config", 'build.rustc-workspace-wrapper=""'),
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_VERSION = re.compile(r"[0-9A-Za-z.+-]+")


def locked_packages(lock: str) -> list[Mapping[str, Any]]:
    """The packages of the Cargo.lock at *lock* that come from elsewhere; [] if there is none or it does not parse."""
    try:
        with open(lock, "rb") as stream:
            packages = tomllib.load(stream).get("package")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []
    rows = packages if isinstance(packages, list) else []
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("source"), str)]


def cargo_cache_files(root: Root, env: Mapping[str, str], lock: AbsPath | None = None) -> tuple[RelPath, ...]:
    """Files below CARGO_HOME that Cargo.lock needs and this machine has, in a stable order.

    Crates (``registry/cache``), their index entries (``registry/index/*/.cache``) with the index's ``config.json``, and
    whole bare repositories below ``git/db`` for git dependencies. Unpacked sources are made on the worker, by the fetch
    step. lock: default ``Cargo.lock`` in *root*.
    """
    home = cargo_home(env)
    packages = locked_packages(lock or os.path.join(root.real, "Cargo.lock"))
    found: list[str] = []
    indexes = _directories(os.path.join(home, "registry", "index"))
    caches = _directories(os.path.join(home, "registry", "cache"))
    for row in packages:
        name, version, source = str(row.get("name", "")), str(row.get("version", "")), str(row["source"])
        if not _PLAIN_NAME.fullmatch(name) or not _PLAIN_VERSION.fullmatch(version):
            continue  # a lock file is a repository's word; names with slashes are nobody's
        if source.startswith(_REGISTRY):
            found += [f"registry/cache/{where}/{name}-{version}.crate" for where in caches]
            found += [f"registry/index/{where}/.cache/{index_path(name)}" for where in indexes]
    if found:
        found += [f"registry/index/{where}/config.json" for where in indexes]
    present = [path for path in dict.fromkeys(found) if os.path.isfile(os.path.join(home, path))]
    for url in dict.fromkeys(str(row["source"]) for row in packages if str(row["source"]).startswith("git+")):
        present += _git_files(home, url)
    return tuple(RelPath(path) for path in sorted(present))


def index_path(name: str) -> str:
    """Where an index keeps the entry of the crate *name*."""
    low = name.lower()
    if len(low) <= 2:
        return f"{len(low)}/{low}"
    if len(low) == 3:
        return f"3/{low[0]}/{low}"
    return f"{low[:2]}/{low[2:4]}/{low}"


def _git_files(home: str, source: str) -> Iterator[str]:
    """Every file of the bare clones that may belong to *source* (``git+URL?branch=x#commit``)."""
    url = source.removeprefix("git+").split("#", 1)[0].split("?", 1)[0]
    ident = url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git").lower()
    for name in _directories(os.path.join(home, "git", "db")):
        if name.rpartition("-")[0].lower() != ident:
            continue
        top = os.path.join(home, "git", "db", name)
        for directory, directories, files in os.walk(top):
            directories.sort()
            if os.path.basename(directory) == "hooks":
                continue
            for file in sorted(files):
                path = os.path.join(directory, file)
                if os.path.isfile(path) and not os.path.islink(path) and not file.endswith(".lock"):
                    yield os.path.relpath(path, home)


def _directories(path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    except OSError:
        return []


def fetch_step(argv: Sequence[str], lock: str) -> tuple[Argv, ...]:
    """The ``cargo fetch`` that goes before the command *argv*, or nothing if no package comes from elsewhere.

    It unpacks what was sent, downloads what nobody has yet, and runs no code of the project. Without Cargo.lock it
    makes one, as the command itself would. Flags that change what is resolved go along; ``--offline`` is only the
    caller's: without it a complete lock needs no network either, and an incomplete one is resolved as here.
    cargo asks rustc for its version here too, and a project's own configuration may name any program as rustc or as its
    wrapper, which would run where the shared registry can be written (lessons EX-10): so they are named, last.
    """
    if os.path.isfile(lock) and not locked_packages(lock):
        return ()
    words = list(argv)
    fetch = [words[0]]
    rest = words[1:]
    if rest and rest[0].startswith("+"):
        fetch.append(rest.pop(0))
    fetch += ["fetch", "--quiet"]
    valued = ("--manifest-path", "--config", "-Z", "--lockfile-path")
    position = 0
    while position < len(rest):
        word = rest[position]
        position += 1
        if word == "--":
            break
        if word in ("--locked", "--offline", "--frozen") or word.startswith(tuple(f"{name}=" for name in valued)):
            fetch.append(word)
        elif word in valued and position < len(rest):
            fetch += [word, rest[position]]
            position += 1
    return (Argv(*fetch, *_NO_CODE_OF_THE_PROJECT),)


def fetch_stamp(
    fetch: Sequence[Argv],
    lock: str,
    roots: Sequence[Root],
    manifests: Mapping[str, Manifest],
    tools: Sequence[ToolIdentity],
    files: Sequence[ExtraFile],
    env: Mapping[str, str],
) -> str:
    """Digest of everything that decides what the steps *fetch* bring, hex; "" when no complete Cargo.lock is sent.

    Every manifest, lock and cargo configuration that travels, the toolchain, and what of the environment is cargo's: a
    worker that has carried out a step with this stamp need not do it again while its caches stay as they are.
    """
    main = roots[0]
    if os.path.relpath(os.path.realpath(lock), main.real) not in manifests[main.key].entries:
        return ""
    lines = [str([list(step) for step in fetch]), str([tool.identity for tool in tools])]
    for root in roots:
        lines.append(root.path)
        entries = manifests[root.key].entries
        lines += [f"{path} {e.type} {e.content}" for path, e in sorted(entries.items()) if _decides(path)]
    lines += [f"{file.path} {hash_bytes(file.content)}" for file in sorted(files, key=lambda f: f.path)]
    lines += [f"{name}={value}" for name, value in sorted(env.items()) if name.startswith(("CARGO_", "RUSTUP_"))]
    return hash_bytes("\0".join(lines).encode("utf-8", "surrogateescape"))


def _decides(path: str) -> bool:
    directory, _, name = path.rpartition("/")
    if os.path.basename(directory) == ".cargo":
        return True
    return name in ("Cargo.toml", "Cargo.lock", "rust-toolchain", "rust-toolchain.toml")
