"""Paths and command words as types: what was checked once need not be checked again.

A path is a ``str`` decoded with ``os.fsdecode`` (UTF-8 with surrogateescape), so non-UTF-8 names survive.
"""

from __future__ import annotations

import shlex
from typing import NewType, Self

AbsPath = NewType("AbsPath", str)
"""An absolute, normalised path on this machine, as the caller typed it (links not resolved)."""

RelPath = NewType("RelPath", str)
"""A clean path inside a root: relative, "/"-separated, no "", "." or ".." component."""


class Argv(tuple[str, ...]):
    """The words of one command, never joined into a string except for people (:meth:`shown`)."""

    __slots__ = ()

    def __new__(cls, *words: str) -> Self:
        return super().__new__(cls, words)

    def shown(self) -> str:
        """The command as a person would type it; for messages only."""
        return shlex.join(self)


def is_below(path: str, root: str) -> bool:
    """True if *path* is *root* or lies below it, compared by components (lessons AR-08)."""
    return path == root or path.startswith(root.rstrip("/") + "/")
