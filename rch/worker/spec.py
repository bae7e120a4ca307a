"""The spec of a job, checked: docs/architecture.md, "The job's spec". Whatever arrives here is untrusted."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from rch.worker.cache import Cache, root_key
from rch.worker.refusal import Refusal

_STAMP = re.compile(r"[0-9a-f]{32,128}")
_FDS = {"0": ("null", "pipe", "tty"), "1": ("pipe", "tty"), "2": ("pipe", "tty", "same")}
_MAX_WORDS = 4 * 1024 * 1024
"""Bytes of argv and environment together; the kernel's own limit is lower for most stack limits."""


class Place(NamedTuple):
    """``source`` (absolute, here) appears at ``path`` (absolute, in the job). key: of a root, else ""."""

    source: str
    path: str
    writable: bool
    key: str = ""


class Step(NamedTuple):
    """One fetch step; with a ``stamp`` it runs only once for all that has the same one."""

    argv: List[str]
    timeout_s: float
    stamp: str = ""


class Spec(NamedTuple):
    """A checked spec; ``files`` are (path, mode, size), their contents lie in ``<job>/files/<n>``."""

    argv: List[str]
    cwd: str
    env: Dict[str, str]
    roots: List[Place]
    binds: List[Place]
    files: List[Tuple[str, int, int]]
    uid: int
    gid: int
    user: str
    group: str
    hostname: str
    umask: int
    home: Optional[str]
    tmpdirs: List[str]
    network: bool
    fds: Dict[str, str]
    rows: int
    cols: int
    timeout_s: Optional[float]
    memory_bytes: Optional[int]
    cargo_home: Optional[str]
    module_cache: Optional[str]
    fetch: List[Step]
    sandboxed: bool
    kind: str
    client: str


def parse_spec(value: Any, cache: Cache) -> Spec:
    """The spec that *value* is, or Refusal("bad-request") naming what is wrong with it."""
    if not isinstance(value, dict):
        raise Refusal("bad-request", "a spec is an object")
    sandbox = _choice(value, "sandbox", ("required", "none"), "required")
    argv = _words(value.get("argv"), "argv")
    if not argv or not argv[0]:
        raise Refusal("bad-request", "argv is empty")
    env = value.get("env", {})
    if not isinstance(env, dict) or not all(_is_word(k) and _is_word(v) and k and "=" not in k for k, v in env.items()):
        raise Refusal("bad-request", "env maps names to strings without NUL")
    if sum(map(len, argv)) + sum(len(k) + len(v) for k, v in env.items()) > _MAX_WORDS:
        raise Refusal("too-large", "argv and environment are over %d bytes" % _MAX_WORDS)
    return Spec(
        argv=argv,
        cwd=_absolute(value.get("cwd"), "cwd"),
        env=env,
        roots=[_root(item, cache) for item in _list(value, "roots")],
        binds=[_bind(item, cache) for item in _list(value, "binds")],
        files=[_file(item) for item in _list(value, "files")],
        uid=_whole(value, "uid", os.getuid(), 0, 2**32 - 2),
        gid=_whole(value, "gid", os.getgid(), 0, 2**32 - 2),
        user=_name(value, "user"),
        group=_name(value, "group"),
        hostname=_name(value, "hostname")[:64],
        umask=_whole(value, "umask", 0o022, 0, 0o777),
        home=_optional_absolute(value, "home"),
        tmpdirs=[_absolute(path, "tmpdirs") for path in _list(value, "tmpdirs")],
        network=_choice(value, "network", ("host", "none"), "none") == "host",
        fds=_descriptors(value.get("fds")),
        rows=_whole(value, "rows", 24, 0, 65535),
        cols=_whole(value, "cols", 80, 0, 65535),
        timeout_s=_limit(value.get("timeout_s"), "timeout_s"),
        memory_bytes=_whole(value, "memory_bytes", 0, 0, 2**62) or None,
        cargo_home=_optional_absolute(value, "cargo_home"),
        module_cache=_optional_absolute(value, "module_cache"),
        fetch=[_step(item) for item in _list(value, "fetch")],
        sandboxed=sandbox == "required",
        kind=str(value.get("kind") or "")[:60],
        client=str(value.get("client") or "")[:100],
    )


def _root(item: Any, cache: Cache) -> Place:
    if not isinstance(item, dict):
        raise Refusal("bad-request", "a root is an object")
    key = root_key(item.get("key"))
    mode = _choice(item, "mode", ("rw", "ro"), "rw")
    return Place(
        os.path.join(cache.root(key), "tree"), _absolute(item.get("path"), "path of a root"), mode == "rw", key
    )


def _bind(item: Any, cache: Cache) -> Place:
    """A source inside our own directory may only be a shared cache or a toolchain, never another job or root."""
    if not isinstance(item, dict) or not _is_word(item.get("source")):
        raise Refusal("bad-request", "a bind is an object with source and path")
    source = item["source"]
    if source.startswith("~cache/"):
        source = os.path.join(cache.path, source[len("~cache/") :])
    source = _absolute(source, "source of a bind")
    real, base = os.path.realpath(source), os.path.realpath(cache.path)
    shown = any(_below(real, os.path.join(base, part)) for part in ("caches", "toolchains"))
    if not shown and (_below(real, base) or _below(base, real)):
        raise Refusal("bad-request", "bind of %s: only caches/ and toolchains/ of the cache" % ascii(source)[:200])
    writable = _choice(item, "mode", ("rw", "ro"), "ro") == "rw"
    if shown and writable:
        raise Refusal("bad-request", "what jobs share is read-only in a job: %s" % ascii(source)[:200])
    return Place(source, _absolute(item.get("path"), "path of a bind"), writable)


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _file(item: Any) -> Tuple[str, int, int]:
    if not isinstance(item, dict):
        raise Refusal("bad-request", "a file is an object")
    return (
        _absolute(item.get("path"), "path of a file"),
        _whole(item, "mode", 0o644, 0, 0o777),
        _whole(item, "size", 0, 0, 2**31),
    )


def _step(item: Any) -> Step:
    if not isinstance(item, dict):
        raise Refusal("bad-request", "a fetch step is an object")
    argv = _words(item.get("argv"), "argv of a fetch step")
    limit = _limit(item.get("timeout_s"), "timeout_s of a fetch step")
    if not argv:
        raise Refusal("bad-request", "a fetch step without argv")
    stamp = item.get("stamp") or ""
    if stamp and not (isinstance(stamp, str) and _STAMP.fullmatch(stamp)):
        raise Refusal("bad-request", "the stamp of a fetch step is a digest in hex")
    return Step(argv, 600.0 if limit is None else limit, stamp)


def _descriptors(value: Any) -> Dict[str, str]:
    given = value if isinstance(value, dict) else {}
    fds = {"0": "null", "1": "pipe", "2": "pipe", **given}
    if set(fds) != set(_FDS) or any(fds[name] not in allowed for name, allowed in _FDS.items()):
        raise Refusal("bad-request", "fds: 0 null|pipe|tty, 1 pipe|tty, 2 pipe|tty|same")
    return fds


def _absolute(value: Any, what: str) -> str:
    if not isinstance(value, str) or "\0" in value or not value.startswith("/") or ".." in value.split("/"):
        raise Refusal("bad-request", "%s is an absolute path without ..: %s" % (what, ascii(value)[:200]))
    return os.path.normpath("/" + value.lstrip("/"))


def _optional_absolute(value: Mapping[str, Any], name: str) -> Optional[str]:
    return None if value.get(name) is None else _absolute(value[name], name)


def _limit(value: Any, what: str) -> Optional[float]:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value < 10**9:
        raise Refusal("bad-request", "%s is a number of seconds or null" % what)
    return float(value)


def _whole(value: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    number = value.get(name)
    if number is None:
        return default
    if type(number) is not int or not low <= number <= high:
        raise Refusal("bad-request", "%s is a whole number from %d to %d" % (name, low, high))
    return number


def _name(value: Mapping[str, Any], name: str) -> str:
    """A word that may stand in a passwd line."""
    word = value.get(name) or "rch"
    if not _is_word(word) or any(c in word for c in ":\n/") or len(word) > 250:
        raise Refusal("bad-request", "%s is no name: %s" % (name, ascii(word)[:100]))
    return str(word)


def _choice(value: Mapping[str, Any], name: str, allowed: Tuple[str, ...], default: str) -> str:
    word = value.get(name, default)
    if word not in allowed:
        raise Refusal("bad-request", "%s is one of %s" % (name, ", ".join(allowed)))
    return str(word)


def _words(value: Any, what: str) -> List[str]:
    if not isinstance(value, list) or not all(_is_word(word) for word in value):
        raise Refusal("bad-request", "%s is a list of strings without NUL" % what)
    return value


def _list(value: Mapping[str, Any], name: str) -> List[Any]:
    found = value.get(name) or []
    if not isinstance(found, list):
        raise Refusal("bad-request", "%s is a list" % name)
    return found


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value
