"""Fetch steps that need not run again: what they brought is here, and nothing of it has gone since.

``caches/<cargo|go>/fetched/<stamp>`` is written when a step with that stamp (docs/architecture.md: a digest of
everything that decides what it brings) has succeeded. It holds the identity and time of the directories whose names are
crates or modules, so one that is removed by whatever means makes the step run again, and so does one that comes.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, List

from rch.worker.cache import Cache, read_json, write_json

_WATCHED = {
    "cargo": (("registry/index", 1), ("registry/src", 1), ("git/db", 1), ("git/checkouts", 1)),
    "go": (("mod", 3),),
}
"""Per shared cache: directory, and how many levels below it hold names of crates or modules (host/owner/module)."""

_KEEP_S = 30 * 86400.0
_MISSING = (
    b"failed to download `",
    b"failed to unpack package `",
    b"failed to load source for dependency `",
    b"failed to get `",
    b"unable to update registry `",
    b"no matching package named `",
)
"""What cargo says, before it compiles anything, when a crate's source is not where it should be."""

_STARTED = (b"Compiling ", b"Checking ", b"Running ", b"Documenting ")

_LOOK_AT = 64 * 1024


def known(cache: Cache, name: str, stamp: str) -> bool:
    """The step of *stamp* has run, and what it saw in the shared cache *name* is still there."""
    return bool(stamp) and read_json(_path(cache, name, stamp)) == _state(cache, name)


def remember(cache: Cache, name: str, stamp: str) -> None:
    """The step of *stamp* has just succeeded. Never raises: without the stamp it only runs again."""
    if not stamp:
        return
    with contextlib.suppress(OSError):
        path = _path(cache, name, stamp)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_json(path, _state(cache, name))
        _forget_old(os.path.dirname(path))


def forget(cache: Cache, name: str, stamp: str) -> None:
    """The step of *stamp* has to run again."""
    with contextlib.suppress(OSError):
        os.unlink(_path(cache, name, stamp))


def may_be_missing(log: str) -> bool:
    """True if all that the framed *log* holds is cargo's complaint about sources that are not there."""
    try:
        with open(log, "rb") as file:
            said = file.read(_LOOK_AT + 1)
    except OSError:
        return False
    if len(said) > _LOOK_AT or any(words in said for words in _STARTED):
        return False
    return any(words in said for words in _MISSING)


def _path(cache: Cache, name: str, stamp: str) -> str:
    return os.path.join(cache.shared(name), "fetched", stamp)


def _state(cache: Cache, name: str) -> List[Any]:
    """[path, inode, mtime in ns] of every directory that is watched and those below it, in order."""
    found: List[Any] = []
    for top, depth in _WATCHED[name]:
        level, levels = [top], depth
        while level:
            below: List[str] = []
            for path in level:
                place = os.path.join(cache.shared(name), path)
                try:
                    about = os.stat(place)
                    with os.scandir(place) as entries:
                        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
                except OSError:
                    continue
                found.append([path, about.st_ino, about.st_mtime_ns])
                below += ["%s/%s" % (path, inner) for inner in names]
            levels -= 1
            level = below if levels >= 0 else []
    return found


def _forget_old(directory: str) -> None:
    limit = time.time() - _KEEP_S
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime < limit:
                os.unlink(entry.path)
