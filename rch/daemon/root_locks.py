"""One returning job per root, from push to placement (design.md 6.4)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from rch.project.model import Root


class RootLocks:
    """A lock per root of this workstation, made when first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    @contextlib.contextmanager
    def hold(self, roots: tuple[Root, ...]) -> Iterator[None]:
        """All of *roots*, taken in the order of their keys so that two commands cannot wait for each other."""
        with self._lock:
            locks = [self._locks.setdefault(k, threading.Lock()) for k in sorted({r.key for r in roots})]
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            yield
