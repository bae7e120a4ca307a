"""Caches that the jobs of one trust domain share: filled from the workstation, only added to, read-only in a job."""

from __future__ import annotations

import os
import stat
from typing import Any, List, Optional, Sequence, Tuple

from rch.worker.cache import Cache
from rch.worker.protocol import ProtocolError, check_relpath
from rch.worker.refusal import Refusal

Version = Tuple[int, int]
"""(size, mtime_ns) of a file."""


def missing(cache: Cache, name: Any, paths: List[str], versions: Sequence[Optional[Version]] = ()) -> List[str]:
    """Those of *paths* that the shared cache *name* does not have, or has an older version of (see :func:`adopt`).

    versions: what the asker has, in the order of *paths*; without it only what is not there is missing.
    """
    top = cache.shared(name)
    cache.shared_parts(str(name))  # rsync makes one level only, and brings what is missing below it
    known = dict(zip(paths, versions))  # noqa: B905  strict= is of Python 3.10
    return [path for path in paths if _lacks(os.path.join(top, _checked(path)), path, known.get(path))]


def _lacks(target: str, path: str, offered: Optional[Version]) -> bool:
    try:
        found = os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return offered is not None and _may_age(path) and _newer(offered, (found.st_size, found.st_mtime_ns))


def _may_age(path: str) -> bool:
    """An index entry lists the versions of a crate and only grows; everything else is what it is by its name."""
    return path.startswith("registry/index/")


def _newer(offered: Version, present: Version) -> bool:
    return offered != present and offered[1] > present[1]


def adopt(cache: Cache, name: Any, staging: Any, paths: List[str]) -> List[str]:
    """Move *paths* from the directory *staging* (put there by rsync) into the cache; what is there already stays.

    A present file is not replaced: one client cannot change what the jobs of another read (lessons EX-10). An entry of
    the registry's index is, by a newer one: a stale entry does not know the versions that a lock file names, and what a
    version is, the lock file's checksum says.
    """
    top = cache.shared(name)
    cache.shared_parts(str(name))
    if not isinstance(staging, str) or os.path.dirname(os.path.normpath(staging)) != top:
        raise Refusal("bad-request", "staging is a directory of the cache itself")
    adopted = []
    for path in paths:
        source, target = os.path.join(staging, _checked(path)), os.path.join(top, path)
        try:
            found = os.lstat(source)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode):
            raise Refusal("bad-request", "only regular files are adopted: %s" % ascii(path)[:200])
        if _lacks(target, path, (found.st_size, found.st_mtime_ns)):
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            os.chmod(source, 0o644)
            os.rename(source, target)
        adopted.append(path)
    _remove(staging)
    return adopted


def _checked(path: str) -> str:
    try:
        clean = check_relpath(path)
    except ProtocolError as error:
        raise Refusal("bad-request", str(error)) from error
    if clean.split("/")[0] not in ("registry", "git", "mod"):
        raise Refusal("bad-request", "not a path of a shared cache: %s" % ascii(path)[:200])
    return clean


def _remove(directory: str) -> None:
    for parent, names, files in os.walk(directory, topdown=False):
        for name in files:
            os.unlink(os.path.join(parent, name))
        for name in names:
            place = os.path.join(parent, name)
            (os.unlink if os.path.islink(place) else os.rmdir)(place)
    if os.path.isdir(directory):
        os.rmdir(directory)
