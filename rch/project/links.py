"""Symbolic links of a tree that lead out of the roots: each adds a root, or the command stays here.

What a link points at is known only after the walk, and a root is sent only after its caller has proved that it may
write it. So the walk of one command leaves the answer for the next; where none is left, discovery walks itself.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence

from rch.errors import NotOffloadable
from rch.paths import AbsPath, is_below
from rch.project.places import is_shared, is_system


def outward_links(top: str, links: Sequence[str], roots: Sequence[str]) -> dict[str, str]:
    """link -> real target, for those of *links* below *top* that need something outside *roots* (all paths real).

    Dangling links and links into system directories mean the same in a job as here, or nothing.
    """
    found: dict[str, str] = {}
    for path in links:
        where = os.path.join(top, path)
        try:
            target = os.readlink(where)
        except OSError:
            continue
        literal = os.path.normpath(os.path.join(os.path.dirname(where), target))
        if any(is_below(literal, root) for root in roots) and ".." not in target.split("/") and "/" not in target:
            continue  # beside itself: by far the most common, and needs no look at the disk
        real = os.path.realpath(where)
        if not os.path.exists(real) or is_system(real):
            continue
        if not any(is_below(real, root) for root in roots):
            found[path] = real
    return found


def directories_behind(top: str, links: dict[str, str], home: str) -> list[str]:
    """The directories that have to be roots for *links*. Raises NotOffloadable ``missing-input``, naming the link."""
    found = []
    for path, real in sorted(links.items()):
        if not os.path.isdir(real) or is_shared(real, home):
            raise NotOffloadable(
                f"{os.path.join(top, path)} is a link to {real}, which is not sent along",
                code="missing-input",
                hint="name the link in .rchignore if the build does not follow it",
            )
        found.append(real)
    return list(dict.fromkeys(found))


class LinkRecord:
    """What the last walk of a root said about its outward links, below ``<state>/roots/<key>/``."""

    def __init__(self, state_dir: str, root_key: str, *, ignored_inputs: bool) -> None:
        name = "links-all.json" if ignored_inputs else "links.json"
        self._path = os.path.join(state_dir, "roots", root_key, name)

    def load(self) -> dict[str, str] | None:
        """link -> real target, or None if no walk has left an answer."""
        try:
            with open(self._path, encoding="ascii") as stream:
                kept = json.load(stream)
        except (OSError, ValueError):
            return None
        if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
            return None
        return kept

    def save(self, links: dict[str, str]) -> None:
        """Replace the answer; one that cannot be written is found anew by the next command."""
        if self.load() == links:
            return
        directory = AbsPath(os.path.dirname(self._path))
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".links-", dir=directory)
            with os.fdopen(handle, "w", encoding="ascii") as stream:
                json.dump(links, stream)
            os.replace(temporary, self._path)
        except OSError:
            return
