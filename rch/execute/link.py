"""How fast the link to a worker is, as bulk transfers over it have shown (coverage A-18)."""

from __future__ import annotations

from collections import deque

from rch.execute.executor import Moved

TELLING_S = 1.0
"""A shorter transfer is mostly rsync's own start, and says nothing of the link."""

REMEMBERED = 8
"""Transfers that count: a link that has become slower is noticed after so many."""


class LinkRate:
    """The best rate of the last transfers: what slowed one of them down (a disk, a busy CPU) is not the link."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=REMEMBERED)

    def note(self, moved: Moved) -> Moved:
        """Take one transfer into account; returns it."""
        if moved.seconds >= TELLING_S and moved.wire_bytes > 0:
            self._rates.append(moved.wire_bytes * 8 / 1e6 / moved.seconds)
        return moved

    @property
    def mbit_s(self) -> float | None:
        """Mbit/s, or None as long as nothing has shown it."""
        return max(self._rates, default=None)
