"""What ``rch exec --dry-run`` and RCH_DRY_RUN=1 print: one line, nothing sent (coverage B-8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rch.intercept.argv import confidence_of
from rch.schedule.estimate import estimate

if TYPE_CHECKING:
    from rch.daemon.leases import Lease
    from rch.errors import NotOffloadable
    from rch.intercept.decision import Kind, Segment
    from rch.order import Order
    from rch.project.model import Project


def offload_line(order: Order, segment: Segment, project: Project, lease: Lease) -> str:
    """The worker that would take it, and what it would cost."""
    view = lease.view
    tree_bytes = sum(entry.size for manifest in project.manifests.values() for entry in manifest.entries.values())
    assert segment.kind is not None
    cost = estimate(
        order.words or order.argv, segment.kind, tree_bytes=tree_bytes, known_there=view.clock_then_ns is not None
    )
    return (
        f"[rch] dry run: {order.argv.shown()} · offload · {segment.kind.name} · {segment.confidence * 100:.0f} % · "
        f"{lease.reason} · root {project.roots[0].path} · worker {view.name} "
        f"({view.slots_total - view.slots_used}/{view.slots_total} slots free) · without history: {cost.reasoning}"
    )


def local_line(order: Order, kind: Kind | None, reason: NotOffloadable) -> str:
    """Why it would run here."""
    known = f" · {kind.name} · {confidence_of(kind, order.words or order.argv) * 100:.0f} %" if kind else ""
    text = " ".join(reason.message.split())
    return f"[rch] dry run: {order.argv.shown()} · local{known} · {reason.code}: {text} · in {order.cwd}"
