"""What a return needs when rchd dies meanwhile or ``rch fetch`` asks again, and what it leaves to the caches."""

from __future__ import annotations

import json
import os

from rch.errors import ProductsUnverified
from rch.paths import AbsPath
from rch.project.model import Manifest, Root
from rch.project.statcache import StatCache
from rch.transfer._files import make_private_dir, write_atomically
from rch.transfer.held import HeldIndex
from rch.transfer.model import (
    Placement,
)
from rch.transfer.scope import Classes


def record_placed(placement: Placement, root: Root, manifest: Manifest, *, tree: StatCache, build: StatCache) -> None:
    """Tell the stat caches what was placed, so that the next scan need not read it again. The caches are not saved.

    Safe although the files are only moments old: their mtime was set before they were renamed into place, so a later
    write shows in it whatever the resolution of the clock is.
    """
    classes = Classes(root, manifest)
    for path, (entry, status) in placement.placed.items():
        if entry.type == "f" and (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns):
            cache = build if classes.is_build(path) else tree
            cache.record(path, status, entry.content, status.st_ctime_ns + 10_000_000_000)


def remember_push(state_dir: AbsPath, job: str, root: Root, manifest: Manifest, held: HeldIndex) -> None:
    """Keep what :func:`return_delta` will need beside the job's other files. Raises OSError."""
    directory = os.path.join(state_dir, "jobs", job)
    make_private_dir(directory)
    held.keep_as(os.path.join(directory, f"held-{root.key}"))
    data = {
        "taken_ns": manifest.taken_ns,
        "digest": manifest.digest,
        "paths": list(manifest.entries),
        "sources": dict(manifest.sources),
        "worker": held.worker,
        "identity": manifest.identity,
    }
    write_atomically(os.path.join(directory, f"pushed-{root.key}"), json.dumps(data).encode("ascii"))


def recall_push(state_dir: AbsPath, job: str, root: Root) -> tuple[Manifest, HeldIndex]:
    """Undo :func:`remember_push`. Raises ProductsUnverified when it is not there (any more)."""
    directory = os.path.join(state_dir, "jobs", job)
    try:
        with open(os.path.join(directory, f"pushed-{root.key}"), "rb") as stream:
            data = json.loads(stream.read())
        held = HeldIndex.load_from(os.path.join(directory, f"held-{root.key}"), root.key, data["worker"])
        entries = {path: held.entries[path] for path in data["paths"]}
        identity = None if data["identity"] is None else (int(data["identity"][0]), int(data["identity"][1]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProductsUnverified(
            f"what job {job} was given is not known here any more", hint="run the command again"
        ) from error
    manifest = Manifest(
        entries=entries,
        digest=data["digest"],
        taken_ns=data["taken_ns"],
        sources=data["sources"],
        identity=identity,
    )
    return manifest, held
