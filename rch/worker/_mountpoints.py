"""Mount points that must exist inside a root's tree: made before the job, gone after it, never part of a Delta."""

from __future__ import annotations

import os
import stat
from typing import List, Sequence, Tuple

from rch.worker._sandbox import Mount
from rch.worker._tree import Tree
from rch.worker.cache import Cache
from rch.worker.protocol import check_relpath
from rch.worker.spec import Place, Spec


class MountPoints:
    """For instance a CARGO_HOME inside the project: bubblewrap would make ``registry`` in the tree and leave it."""

    def __init__(self, cache: Cache, spec: Spec, mounts: Sequence[Mount]) -> None:
        self._cache = cache
        self._wanted: List[Tuple[Place, Mount]] = []
        self._made: List[Tuple[Place, str]] = []
        if not spec.sandboxed:
            return
        for mount in mounts:
            above = [p for p in spec.roots if mount.path.startswith(p.path + "/") and mount.source != p.source]
            if above:
                self._wanted.append((max(above, key=lambda place: len(place.path)), mount))

    def __enter__(self) -> MountPoints:  # noqa: PYI034  typing.Self is of Python 3.11
        for place, mount in self._wanted:
            relative = check_relpath(mount.path[len(place.path) + 1 :])
            with Tree(place.source, self._trash(place)) as tree:
                parts = relative.split("/")
                for end in range(1, len(parts) + 1):
                    path = "/".join(parts[:end])
                    if tree.stat(path) is not None:
                        continue
                    if end == len(parts) and mount.is_file:
                        tree.make_file(path)
                    else:
                        tree.make_directory(path)
                    self._made.append((place, path))
        return self

    def __exit__(self, *_: object) -> None:
        for place, path in reversed(self._made):
            with Tree(place.source, self._trash(place)) as tree:
                status = tree.stat(path)
                if status is not None and (stat.S_ISDIR(status.st_mode) or status.st_size == 0):
                    tree.remove_listed(path)  # what the job put there stays

    def _trash(self, place: Place) -> str:
        return os.path.join(self._cache.root(place.key), "trash")
