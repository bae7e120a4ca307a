"""Which workers may take a command, in which order, and why the others may not. Pure.

The rule of this version is the simplest that is right: the first healthy worker with enough free slots, preferred ones
first, then by priority, then by name; when all admissible ones are busy, the same order, to queue there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rch.project.model import Tool, ToolIdentity

CLOCK_LIMIT_NS = 1_000_000_000
"""A worker's clock may differ by 1 s, and move by 1 s between two jobs of a tree (lessons PM-04)."""


@dataclass(frozen=True)
class WorkerView:
    """What the choice knows of one worker; a snapshot.

    tools:        tool name -> identities present there.
    rust_targets: identity of a Rust toolchain -> triples whose standard library it has there.
    worker_class: distribution, release and architecture, e.g. "debian-12-x86_64".
    equipment:    a word for its system, packages and toolchains.
    clock_ns:     offset against this machine; clock_then_ns: at this tree's last job there, None if there was none.
    """

    name: str
    state: str = "healthy"
    state_reason: str = ""
    slots_total: int = 0
    slots_used: int = 0
    priority: int = 100
    tags: tuple[str, ...] = ()
    speed_score: float | None = None
    tools: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rust_targets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    tools_shown: Mapping[str, str] = field(default_factory=dict)
    sandbox_ok: bool = True
    sandbox_why: str = ""
    worker_class: str = ""
    equipment: str = ""
    clock_ns: int = 0
    clock_then_ns: int | None = None
    unportable: str = ""

    @property
    def clock_moved(self) -> bool:
        """Has its clock jumped since this tree's last job there? Times of before and after cannot be compared."""
        return self.clock_then_ns is not None and abs(self.clock_ns - self.clock_then_ns) > CLOCK_LIMIT_NS


@dataclass(frozen=True)
class Wanted:
    """What a command asks of a worker.

    rust_targets: triples whose standard library the build needs (coverage B-7).
    pinned:  the one worker named by --worker or --on; beats every restriction but health and toolchain.
    allowed: restrictions that must all hold; each is a set of names or tags.
    preferred: names or tags of workers that come first when they have the slots.
    tags:    "a,b" both tags, "!a" without it (checklist A12).
    """

    slots: int = 1
    tools: tuple[ToolIdentity, ...] = ()
    rust_targets: tuple[str, ...] = ()
    pinned: str = ""
    allowed: tuple[frozenset[str], ...] = ()
    blocked: frozenset[str] = frozenset()
    preferred: frozenset[str] = frozenset()
    tags: tuple[str, ...] = ()
    min_speed_score: float = 0.0
    returns_files: bool = True

    def prefers(self, view: WorkerView) -> bool:
        """Is *view* one of those that come first?"""
        return bool(self.preferred & {view.name, *view.tags})


@dataclass(frozen=True)
class Choice:
    """Admissible workers in order of preference, and one reason ``(code, text)`` for each of the others."""

    candidates: tuple[WorkerView, ...]
    refused: Mapping[str, tuple[str, str]]

    @property
    def code(self) -> str:
        """The reason code of a choice without candidates: the workers' common one, else ``no-candidate``."""
        codes = {code for code, _ in self.refused.values()}
        return codes.pop() if len(codes) == 1 else "no-candidate"

    def explain(self) -> str:
        """One line: why no worker is admissible."""
        if not self.refused:
            return "no worker is registered"
        return "; ".join(f"{name}: {text}" for name, (_, text) in sorted(self.refused.items()))


def choose(wanted: Wanted, fleet: Sequence[WorkerView]) -> Choice:
    """Order the admissible workers of *fleet* for *wanted*. Deterministic: ties go by name."""
    refused: dict[str, tuple[str, str]] = {}
    candidates: list[WorkerView] = []
    for view in fleet:
        refusal = refuse(wanted, view)
        if refusal is None:
            candidates.append(view)
        else:
            refused[view.name] = refusal
    if wanted.pinned and wanted.pinned not in {view.name for view in fleet}:
        refused[wanted.pinned] = ("no-candidate", "no such worker in the inventory")

    def rank(view: WorkerView) -> tuple[bool, bool, int, str]:
        free = view.slots_total - view.slots_used
        return (free < min(wanted.slots, view.slots_total), not wanted.prefers(view), -view.priority, view.name)

    return Choice(tuple(sorted(candidates, key=rank)), refused)


def refuse(wanted: Wanted, view: WorkerView) -> tuple[str, str] | None:
    """Why *view* may not take *wanted*: (code, text), or None when it may. First reason wins."""
    if wanted.pinned:
        if view.name != wanted.pinned:
            return "no-candidate", f"not the worker that was named ({wanted.pinned})"
    else:
        names = {view.name, *view.tags}
        for allowed in wanted.allowed:
            if not names & allowed:
                return "no-candidate", f"not among {', '.join(sorted(allowed))}"
        for tag in wanted.tags:
            if (tag.removeprefix("!") in view.tags) == tag.startswith("!"):
                return "no-candidate", f"has the tag {tag[1:]}" if tag.startswith("!") else f"lacks the tag {tag}"
        if names & wanted.blocked:
            return "no-candidate", "blocked by the configuration"
        if wanted.min_speed_score > 0 and (view.speed_score or 0.0) < wanted.min_speed_score:
            shown = "unknown" if view.speed_score is None else f"{view.speed_score:g}"
            return "no-candidate", f"speed score {shown} is below {wanted.min_speed_score:g}"
    if view.state not in ("healthy", "degraded"):
        return "no-candidate", f"{view.state}{f' ({view.state_reason})' if view.state_reason else ''}"
    if view.slots_total < 1:
        return "no-candidate", "offers no slots"
    if not view.sandbox_ok:
        return "capability-missing", f"no sandbox ({view.sandbox_why or 'bubblewrap does not work there'})"
    for tool in wanted.tools:
        present = view.tools.get(tool.tool.value, frozenset())
        if tool.identity not in present:
            there = view.tools_shown.get(tool.tool.value, "none")
            if there == tool.shown:  # the same version: the packages of headers and libraries differ, or the program
                return "toolchain-mismatch", f"has other packages or another build of {there} than this machine"
            return "toolchain-mismatch", f"has {there}, this machine {tool.shown}"
        if tool.tool is Tool.RUST:
            lacking = [t for t in wanted.rust_targets if t not in view.rust_targets.get(tool.identity, ())]
            if lacking:
                return "capability-missing", f"has no standard library of {', '.join(lacking)} for {tool.shown}"
    if wanted.returns_files:
        if abs(view.clock_ns) > CLOCK_LIMIT_NS:
            side = "ahead" if view.clock_ns > 0 else "behind"
            return "clock-skew", f"its clock is {abs(view.clock_ns) / 1e9:.1f} s {side}"
        if view.clock_moved:
            moved = abs(view.clock_ns - (view.clock_then_ns or 0)) / 1e9
            text = f"its clock has moved by {moved:.1f} s since this project's last build there"
            return "clock-skew", f"{text}; the next one starts afresh"
    if view.unportable:
        return "unportable", f"project marked unportable on {view.worker_class} ({view.unportable})"
    return None
