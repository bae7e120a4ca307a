"""What a worker's compiler cache (role compiler_cache) adds to a job: environment and places. Pure.

Only where nothing that comes back depends on it: builds of cargo that are not incremental, and C by make or a plain
call of the compiler. cmake, ninja and meson call a compiler by the path that they wrote down, which stays as it is.
The facts come from a worker and are checked as untrusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rch.intercept.decision import Kind

_SERVER_BY_SOCKET = (0, 10)
"""sccache from this version on listens on a socket of the job's own /tmp; an older one on a port, where another job's
server would answer that does not see this job's files."""

_SOCKET = "/tmp/rch-sccache"
_WRAPPER = "wrapper"
"""Program of the role that stands before sccache: where its server cannot start, the compiler runs alone."""

_RELEASE = ("--release", "-r")


@dataclass(frozen=True)
class Caching:
    """env: variables to add. first: directories before the caller's PATH. binds: (source, path in the job, mode)."""

    env: Mapping[str, str] = field(default_factory=dict)
    first: tuple[str, ...] = ()
    binds: tuple[tuple[str, str, str], ...] = ()


def caching(kind: Kind, argv: Sequence[str], env: Mapping[str, str], facts: Mapping[str, Any], network: str) -> Caching:
    """What the cache of a worker with *facts* does for *argv* of *kind*; an empty answer where it has none for it."""
    about = facts.get("compiler_cache")
    if not isinstance(about, Mapping):
        return Caching()
    tool = kind.name.split(".", 1)[0]
    place, seen_at = about.get("place"), about.get("seen_at")
    if not (_is_path(place) and _is_path(seen_at)):
        return Caching()
    added: dict[str, str] = {}
    first: tuple[str, ...] = ()
    if tool == "cargo" and _is_release(argv, env) and not {"RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER"} & set(env):
        program = str(about.get("rustc_wrapper") or "")
        added["RUSTC_WRAPPER"] = f"{seen_at}/{_WRAPPER}" if about.get("wrapper") is True else program
    elif tool in ("cc", "make"):
        program = str(about.get("cc_wrapper") or "")
        first = (f"{seen_at}/bin",)
    else:
        return Caching()
    if not _is_path(program) or not _may_start(program, about, network):
        return Caching()
    if program.endswith("/sccache"):
        added |= {"SCCACHE_CONF": f"{seen_at}/sccache.toml", "SCCACHE_IGNORE_SERVER_IO_ERROR": "1"}
        if _version(program, about) >= _SERVER_BY_SOCKET:
            added["SCCACHE_SERVER_UDS"] = _SOCKET
        if about.get("credentials") is True:
            added["AWS_SHARED_CREDENTIALS_FILE"] = f"{seen_at}/credentials"
    else:
        added["CCACHE_CONFIGPATH"] = f"{seen_at}/ccache.conf"
    listed = about.get("directories")
    shared = [path for path in listed if _is_path(path)] if isinstance(listed, list) else []
    binds = [(place, seen_at, "ro"), *((path, path, "rw") for path in shared)]
    return Caching({name: value for name, value in added.items() if name not in env}, first, tuple(binds))


def _is_release(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """A build whose profile is not incremental unless the project says so (then sccache steps aside by itself)."""
    if env.get("CARGO_INCREMENTAL") == "1":
        return False
    words = list(argv[: argv.index("--")]) if "--" in argv else list(argv)
    profiles = [after for before, after in pairwise(words) if before == "--profile"]
    profiles += [word.partition("=")[2] for word in words if word.startswith("--profile=")]
    return (
        any(word in _RELEASE for word in words) or profiles[-1:] == ["release"] or env.get("CARGO_INCREMENTAL") == "0"
    )


def _may_start(program: str, about: Mapping[str, Any], network: str) -> bool:
    if not program.endswith("/sccache"):
        return True
    version = _version(program, about)
    if network == "none":
        # A store elsewhere cannot be reached from there.
        return version != () and about.get("backend", "local") == "local"
    return version >= _SERVER_BY_SOCKET


def _version(program: str, about: Mapping[str, Any]) -> tuple[int, ...]:
    """(0, 10) for "sccache 0.10.0"; empty where that is unknown."""
    versions = about.get("versions")
    said = versions.get(program) if isinstance(versions, Mapping) else None
    found = re.search(r"(\d+)\.(\d+)", said) if isinstance(said, str) else None
    return (int(found[1]), int(found[2])) if found else ()


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/") and ".." not in value.split("/") and ":" not in value
