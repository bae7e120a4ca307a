"""The one clock that rch-wkr reports. A test may set it off by an offset, to play a worker whose clock is wrong."""

from __future__ import annotations

import os
import time

OFFSET_VARIABLE = "RCH_WKR_CLOCK_OFFSET_NS"
"""Set by tests only (no machine has a second clock): added to every reading, and to the times a job wrote."""


def offset_ns() -> int:
    """The test's offset; 0 in every real life."""
    text = os.environ.get(OFFSET_VARIABLE, "")
    return int(text) if text.lstrip("-").isdigit() else 0


def now_ns() -> int:
    """ns since the epoch."""
    return time.time_ns() + offset_ns()
