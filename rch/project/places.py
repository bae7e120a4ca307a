"""Which directories of this machine can be a root, and how paths as typed relate to real ones."""

from __future__ import annotations

import os
import re

from rch.errors import NotOffloadable
from rch.paths import AbsPath, is_below

_SYSTEM = re.compile(r"/(?:usr|etc|bin|sbin|lib[^/]*|proc|sys|dev)(?:/|\Z)")
"""Read-only or private to a job: bubblewrap cannot make a mount point below them (lessons PM-08)."""

_SHARED = frozenset(
    ("/", "/home", "/tmp", "/var", "/var/tmp", "/opt", "/srv", "/mnt", "/media", "/root", "/run", "/boot")
)
"""Directories that hold many people's things and are nobody's project."""


def is_system(path: str) -> bool:
    """True if *path* lies in a directory that every job sees from its worker."""
    return _SYSTEM.match(path) is not None


def check_bindable(*paths: str) -> None:
    """Raise NotOffloadable ``path-not-bindable`` if one of *paths* (absolute) lies in a system directory."""
    for path in paths:
        if is_system(path):
            raise NotOffloadable(
                f"{path} lies in a system directory, where a job cannot be given another tree",
                code="path-not-bindable",
                hint="work on a copy below your home directory",
            )


def is_shared(path: str, home: str) -> bool:
    """True if *path* (resolved) is the home directory, above it, or a place like /tmp that is no project of its own."""
    return path in _SHARED or is_below(home, path)


def absolute(path: str, directory: str) -> AbsPath:
    """*path* as seen from *directory*, normalised; ``..`` behind a link goes where the kernel would go."""
    joined = os.path.join(directory, path)
    plain = os.path.normpath(joined)
    if plain.startswith("//"):
        plain = plain[1:]
    if ".." in path.split("/") and os.path.realpath(plain) != os.path.realpath(joined):
        return AbsPath(os.path.realpath(joined))
    return AbsPath(plain)


def typed_form(real: str, typed_below: str) -> AbsPath | None:
    """How the caller names *real*: the prefix of *typed_below* (as typed) that resolves to it, or None."""
    path = typed_below
    while True:
        if os.path.realpath(path) == real:
            return AbsPath(path)
        parent = os.path.dirname(path)
        if parent == path:
            return None
        path = parent


def minimal(directories: list[str]) -> list[str]:
    """*directories* without those that lie below another one; order kept (lessons SP-05)."""
    kept: list[str] = []
    for path in directories:
        if not any(is_below(path, other) for other in kept):
            kept = [other for other in kept if not is_below(other, path)]
            kept.append(path)
    return kept
