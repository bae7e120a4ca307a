"""Caches that the jobs of one trust domain share: filled from the workstation, only added to, read-only in a job."""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any, List, Optional, Sequence, Tuple

from rch.worker._tree import Tree
from rch.worker.cache import Cache
from rch.worker.protocol import ProtocolError, check_relpath
from rch.worker.refusal import Refusal

_STAGING = re.compile(r"staging-[a-z0-9-]{1,80}")


Version = Tuple[int, int]
"""(size, mtime_ns) of a file."""


def missing(cache: Cache, name: Any, paths: List[str], versions: Sequence[Optional[Version]] = ()) -> List[str]:
    """Those of *paths* (below the cache: ``registry/cache/…``) that the shared cache *name* lacks, or has an older
    version of (see :func:`adopt`).

    versions: what the asker has, in the order of *paths*; without it only what is not there is missing.
    """
    top = cache.shared(name)
    cache.shared_parts(name)  # rsync makes one level only, and brings what is missing below it
    known = dict(zip(paths, versions))  # noqa: B905  strict= is of Python 3.10
    checked = [_checked(cache, name, path) for path in paths]
    with Tree(top, cache.trash) as tree:
        below = cache.shared_names(str(name))[0]
        return [path for path in checked if _lacks(tree, below + path, known.get(path))]


def _lacks(tree: Tree, path: str, offered: Optional[Version]) -> bool:
    found = tree.stat(path)
    return found is None or (
        offered is not None and _may_age(path) and _newer(offered, (found.st_size, found.st_mtime_ns))
    )


def _may_age(path: str) -> bool:
    """An index entry lists the versions of a crate and only grows; everything else is what it is by its name."""
    return path.startswith("registry/index/")


def _newer(offered: Version, present: Version) -> bool:
    return offered != present and offered[1] > present[1]


def adopt(cache: Cache, name: Any, staging: Any, paths: List[str]) -> List[str]:
    """Move *paths* from ``<cache>/caches/<name>/staging-…`` (put there by rsync) into the cache, and remove the rest.

    Answers those of *paths* that came and are there now. A present file is not replaced: one client cannot change what
    the jobs of another read (lessons EX-10). An entry of the registry's index is, by a newer one: a stale entry does
    not know the versions that a lock file names, and what a version is, the lock file's checksum says. No link is
    followed on either side.
    """
    top = cache.shared(name)
    cache.shared_parts(name)
    checked = [_checked(cache, name, path) for path in paths]
    place, last = os.path.split(staging) if isinstance(staging, str) else ("", "")
    if place != top or not _STAGING.fullmatch(last):
        raise Refusal("bad-request", "staging is %s/staging-…" % top)
    adopted = []
    below = cache.shared_names(str(name))[0]
    with Tree(top, cache.trash) as tree:
        for path in checked:
            source = "%s/%s" % (last, path)
            found = tree.stat(source)
            if found is None:
                continue
            if not stat.S_ISREG(found.st_mode):
                raise Refusal("bad-request", "only regular files are adopted: %s" % ascii(path)[:200])
            if _lacks(tree, below + path, (found.st_size, found.st_mtime_ns)):
                tree.set_mode(source, 0o644)
                above, _, base = source.rpartition("/")
                parent = os.dup(tree.directory(above))
                try:
                    _make_parents(tree, below + path)
                    tree.place(base, parent, below + path)
                except NotADirectoryError as error:
                    raise Refusal("bad-request", "something is in the way of %s" % ascii(path)[:200]) from error
                finally:
                    os.close(parent)
            adopted.append(path)
        if name == "go":
            for path in adopted:
                _describe(tree, below + path)
        tree.remove(last)
    return adopted


def _describe(tree: Tree, path: str) -> None:
    """Beside a module's archive, the ``.info`` that ``go mod download`` wants and that a cache filled by ``go build``
    or ``go mod tidy`` lacks: without it the fetch step would ask a proxy for what is here already.
    """
    stem, _, kind = path.rpartition(".")
    above, _, base = stem.rpartition("/")
    if (kind, above.endswith("/@v")) != ("zip", True) or tree.stat(stem + ".info") is not None:
        return
    version = re.sub("!([a-z])", lambda letter: letter[1].upper(), base)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(base + ".info", flags, 0o644, dir_fd=tree.directory(above)), "w", encoding="utf-8") as file:
        json.dump({"Version": version}, file)


def _make_parents(tree: Tree, path: str) -> None:
    """The directories above *path*; unlike a push, a shared cache loses nothing that is in the way."""
    parts = path.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        above = "/".join(parts[:end])
        found = tree.stat(above)
        if found is None:
            tree.make_directory(above)
        elif not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(above)


def _checked(cache: Cache, name: str, path: str) -> str:
    parts = cache.shared_names(name)[1]
    try:
        clean = check_relpath(path)
    except ProtocolError as error:
        raise Refusal("bad-request", str(error)) from error
    if clean.split("/")[0] not in parts:
        raise Refusal("bad-request", "%s is in none of %s" % (ascii(path)[:200], ", ".join(parts)))
    return clean
