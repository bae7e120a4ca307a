"""Is the tree still the one that was scanned? By stat, by hash where stat cannot tell (lessons SP-03, SP-04, AR-03)."""

from __future__ import annotations

import contextlib
import os
from stat import S_IFREG

from rch.paths import RelPath
from rch.project.beneath import Beneath
from rch.project.model import Manifest, Root
from rch.transfer.model import Stamp
from rch.worker.protocol import Entry, hash_stream

TICK_NS = 20_000_000
"""How far the kernel's file times may lag behind the clock we read: two ticks at 100 Hz."""

OWN_PREFIXES = (".rch-staging-", ".rch-proof-", ".rch-spool-")
"""Names that rch itself puts into a root for a moment."""


def changed_since(manifest: Manifest, root: Root) -> list[RelPath]:
    """Paths whose state here is not the manifest's any more, and new ones in the manifest's directories.

    A file counts as changed when type, size, mode or mtime differ, or when it was touched after the scan began
    (ctime) and hashes differently. A directory is not listed for its own time, but what is new in it is.
    """
    taken = manifest.taken_ns - TICK_NS
    made_up = _made_up(manifest)
    below_made_up = tuple(top + "/" for top in made_up)
    build_dirs = frozenset(root.build_dirs)
    prefix = root.real.rstrip("/") + "/"
    changed: list[RelPath] = []
    try:
        top = os.open(root.real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return [RelPath(path) for path in manifest.entries]
    stat = os.stat
    try:
        for path, entry in manifest.entries.items():
            if made_up and (path in made_up or path.startswith(below_made_up)):
                continue
            _, kind, mode, size, mtime_ns, _, _ = entry
            try:
                status = stat(path, dir_fd=top, follow_symlinks=False)  # a short way down, 50,000 times
            except OSError:
                changed.append(RelPath(path))
                continue
            if (
                kind == "f"
                and status.st_mtime_ns == mtime_ns
                and status.st_ctime_ns < taken
                and status.st_size == size
                and status.st_mode == S_IFREG | mode
            ):
                continue  # nearly all, nearly always
            if kind == "d":
                if Stamp.of(status).type != "d":
                    changed.append(RelPath(path))
                elif status.st_mtime_ns != mtime_ns:  # names came or went
                    changed.extend(_new_below(prefix, path, manifest, build_dirs, taken))
            elif not is_as_scanned(prefix + path, entry, status, taken):
                changed.append(RelPath(path))
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        if os.lstat(root.real).st_mtime_ns >= taken:  # the manifest has no entry for the root itself
            changed.extend(_new_below(prefix, "", manifest, build_dirs, taken))
    return changed


def is_as_scanned(full: str, entry: Entry, status: os.stat_result, taken_ns: int) -> bool:
    """True if what lies at *full* (lstat *status*) is still *entry*, content included.

    taken_ns: when the scan began, less a tick; a file whose ctime is older was not touched since.
    """
    now = Stamp.of(status)
    if now.type != entry.type or now.mtime_ns != entry.mtime_ns:
        return False
    if now.type == "l":
        try:
            return os.readlink(full) == entry.content
        except OSError:
            return False
    if now.mode != entry.mode or now.size != entry.size:
        return False
    if now.type != "f" or now.ctime_ns < taken_ns:
        return True
    try:
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with open(fd, "rb", buffering=0) as stream:
        return hash_stream(stream) == entry.content


def is_unchanged(tree: Beneath, entry: Entry, status: os.stat_result, taken_ns: int) -> bool:
    """As :func:`is_as_scanned`, for a path of an opened tree: no link on the way is followed."""
    now = Stamp.of(status)
    if now.type != entry.type or now.mtime_ns != entry.mtime_ns:
        return False
    if now.type == "l":
        return tree.readlink(entry.path) == entry.content
    if now.mode != entry.mode or now.size != entry.size:
        return False
    return now.type != "f" or now.ctime_ns < taken_ns or hash_beneath(tree, entry.path) == entry.content


def hash_beneath(tree: Beneath, path: str) -> str:
    """Content hash of a regular file of an opened tree, "" if there is none."""
    try:
        with tree.open_file(path) as fd, open(fd, "rb", buffering=0, closefd=False) as stream:
            return hash_stream(stream)
    except OSError:
        return ""


def _new_below(
    prefix: str, directory: str, manifest: Manifest, build_dirs: frozenset[str], taken_ns: int
) -> list[RelPath]:
    """Names in *directory* that appeared after the scan and that the manifest does not know."""
    found = []
    try:
        with os.scandir(prefix + directory) as rows:
            for row in rows:
                path = f"{directory}/{row.name}" if directory else row.name
                if path in manifest.entries or path in build_dirs or row.name.startswith(OWN_PREFIXES):
                    continue
                if row.name == ".git":
                    continue
                if row.stat(follow_symlinks=False).st_ctime_ns >= taken_ns:
                    found.append(RelPath(path))
    except OSError:
        return found
    return found


def _made_up(manifest: Manifest) -> frozenset[str]:
    """The ``.git`` directories (or single files) that exist in this form only in the manifest."""
    tops: set[str] = set()
    for path in manifest.sources:
        parts = path.split("/")
        if ".git" in parts:
            tops.add("/".join(parts[: parts.index(".git") + 1]))
        else:
            tops.add(path)
    return frozenset(tops)
