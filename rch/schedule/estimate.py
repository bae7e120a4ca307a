"""What a command would cost here and there, for people who ask before there is any history (coverage C-6). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rch.intercept.decision import Kind, Products

LINK_BYTES_S = 12_500_000
"""A link of 100 Mbit/s, where none has been measured."""

_STALE = 0.05
"""Share of a tree that is sent again when the worker had it before."""

_SECONDS = (("check", 5), ("clippy", 10), ("test", 30))
_MORE_SECONDS = (("build", 30), ("doc", 60), ("make", 60))


@dataclass(frozen=True)
class Estimate:
    """Milliseconds; total is transfer, run and return. recommend: remote is worth it."""

    transfer_ms: int
    run_ms: int
    return_ms: int
    total_ms: int
    local_ms: int
    recommend: bool
    reasoning: str


def usual_seconds(argv: Sequence[str], kind: Kind) -> int:
    """Seconds that such a command takes here, by its kind alone."""
    parts = kind.name.split(".")
    if parts[0] in ("cc", "rustc"):
        return 2
    for word, seconds in _SECONDS:
        if word in parts[-1].split("-"):
            return seconds
    if "--release" in argv:
        return 120
    return next((seconds for word, seconds in _MORE_SECONDS if word in parts), 30)


def estimate(
    argv: Sequence[str],
    kind: Kind,
    *,
    tree_bytes: int,
    known_there: bool,
    speed_ratio: float = 1.0,
    benefit_threshold: float = 0.8,
) -> Estimate:
    """The cost of *argv* on a worker that is *speed_ratio* times as fast as this machine.

    tree_bytes: the whole project. known_there: the worker had the tree before. The return is taken to be as large as
    the tree where files return.
    """
    local_ms = usual_seconds(argv, kind) * 1000
    transfer_ms = round(tree_bytes * (_STALE if known_there else 1.0) / LINK_BYTES_S * 1000)
    run_ms = round(local_ms / max(speed_ratio, 0.01))
    return_ms = round(tree_bytes / LINK_BYTES_S * 1000) if kind.products is Products.FILES else 0
    total_ms = transfer_ms + run_ms + return_ms
    recommend = total_ms < local_ms * benefit_threshold
    there, here = f"{total_ms / 1000:.1f}s", f"{local_ms / 1000:.1f}s"
    faster = round((1 - total_ms / local_ms) * 100)
    reasoning = (
        f"Remote ({there}) is {faster}% faster than local ({here})"
        if recommend
        else f"Local ({here}) preferred over remote ({there}) due to overhead"
    )
    return Estimate(transfer_ms, run_ms, return_ms, total_ms, local_ms, recommend, reasoning)
