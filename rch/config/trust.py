"""Which project files a person has read and trusts: by real path and hash of the contents (coverage A-3)."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rch.config.layers import Identity, identity_of
from rch.errors import ConfigError
from rch.paths import AbsPath

_cache: dict[str, tuple[Identity | None, dict[str, Any]]] = {}


def is_trusted(trust_file: str, config_file: str, digest: str) -> bool:
    """True when exactly these contents of *config_file* were trusted. A damaged store trusts nothing."""
    return bool(_load(trust_file)["trusted"].get(os.path.realpath(config_file)) == digest)


def trust(trust_file: str, config_file: str, digest: str) -> None:
    """Remember that *digest* of *config_file* is trusted; another digest of the same file no longer is."""
    with _edited(trust_file) as store:
        store["trusted"][os.path.realpath(config_file)] = digest


def distrust(trust_file: str, config_file: str) -> bool:
    """Forget *config_file*; True when it was trusted."""
    with _edited(trust_file) as store:
        return store["trusted"].pop(os.path.realpath(config_file), None) is not None


def announce(trust_file: str, config_file: str, digest: str) -> bool:
    """True once per contents: the first command after a change says that keys are inert, the next ones do not."""
    real = os.path.realpath(config_file)
    if _load(trust_file)["announced"].get(real) == digest:
        return False
    with _edited(trust_file) as store:
        if store["announced"].get(real) == digest:
            return False
        store["announced"][real] = digest
    return True


def trust_identity(trust_file: str) -> Identity | None:
    """Changes whenever the store does."""
    return identity_of(trust_file)


def _load(trust_file: str) -> dict[str, Any]:
    identity = identity_of(trust_file)
    held = _cache.get(trust_file)
    if held is not None and held[0] == identity:
        return held[1]
    store = _parse(trust_file)
    _cache[trust_file] = (identity, store)
    return store


def _parse(trust_file: str) -> dict[str, Any]:
    try:
        with open(trust_file, "rb") as stream:
            found = json.load(stream)
    except (FileNotFoundError, NotADirectoryError):
        found = {}
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=trust_file) from error
    except (ValueError, RecursionError):
        found = {}
    store: dict[str, Any] = {"version": 1}
    for name in ("trusted", "announced"):
        table = found.get(name) if isinstance(found, dict) else None
        store[name] = {k: v for k, v in table.items() if isinstance(v, str)} if isinstance(table, dict) else {}
    return store


@contextmanager
def _edited(trust_file: str) -> Iterator[dict[str, Any]]:
    """The store, locked against other processes; written by rename when the block ends well."""
    directory = os.path.dirname(trust_file)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    lock = os.open(trust_file + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for one small write; the kernel frees it when a holder dies
        store = _parse(trust_file)
        yield store
        write_private(AbsPath(trust_file), json.dumps(store, indent=1, sort_keys=True).encode() + b"\n")
    finally:
        os.close(lock)
        _cache.pop(trust_file, None)


def write_private(path: AbsPath, data: bytes, mode: int = 0o600) -> None:
    """Write a whole file by rename, so that a reader sees the old or the new one."""
    temporary = f"{path}.{os.getpid()}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
