"""A worker whose clock is behind: what it builds must not look older than the sources it was built from (PM-04)."""

from __future__ import annotations

from collections.abc import Iterable

from rch.transfer.model import PushPlan
from rch.transfer.snapshot import TICK_NS

LIMIT_S = 1.1
"""Clocks of workers that return files differ by at most 1 s; nothing is waited for longer."""


def lag_s(plans: Iterable[PushPlan], offset_ns: int, now_ns: int) -> float:
    """Seconds to wait until the worker's clock has passed the newest source that is sent.

    offset_ns: worker's clock minus ours. A source edited a moment ago is newer than what a clock behind ours writes
    next, so make and cargo would build it once more. Times in the future of this machine were set by somebody, and
    are not waited for. At most the offset, and 0 for almost every command: people edit slower than that.
    """
    newest = max(
        (e.mtime_ns for p in plans for e in (*p.changes, *p.metadata) if e.type == "f" and e.mtime_ns <= now_ns),
        default=0,
    )
    return min(LIMIT_S, max(0, newest + TICK_NS - (now_ns + offset_ns)) / 1e9)
