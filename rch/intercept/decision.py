"""What the decision is about: Verdict, Segment, Decision, Policy. Standard library only, no I/O."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Verdict(enum.StrEnum):
    OFFLOAD = "offload"
    LOCAL = "local"


class Products(enum.StrEnum):
    """What a kind is run for: decides ``artifacts.build_dir = auto`` (design.md 6.4)."""

    FILES = "files"
    OUTPUT = "output"


@dataclass(frozen=True)
class Kind:
    """What rch knows about one sort of command; one row per sub-command of a toolchain module.

    name:           "cargo.build", "make", "cc.compile", …; "command" is the free command of a named place.
    products:       FILES: the build directory returns; OUTPUT: only the tree returns.
    repeatable:     may run again elsewhere when lost or out of memory (lessons EX-07).
    ignored_inputs: git-ignored files are inputs too (make, cmake, ninja, meson, cc; lessons SP-10).
    tools:          toolchain identities that must match ("rust", "c", "go", "node").
    confidence:     0..1 before adjustments (coverage B-3).
    run_locally_after: `cargo run`: build there, then run the same command here.
    """

    name: str
    products: Products
    repeatable: bool
    ignored_inputs: bool
    tools: tuple[str, ...]
    confidence: float = 0.9
    run_locally_after: bool = False


@dataclass(frozen=True)
class Segment:
    """One simple command of a line.

    start, end: byte range in the UTF-8 command text, of the build's own words (wrappers and assignments excluded).
    tier:       0 instant reject, 1 structure, 2 keyword, 3 never-intercept, 4 classification.
    reason:     a code of the closed list (coverage C-8), or "" for an offload.
    detail:     the same for people.
    cwd, env:   where it runs, "" where the line does not say; the variables that the line sets for it alone.
    """

    start: int
    end: int
    text: str
    verdict: Verdict
    kind: Kind | None
    confidence: float
    tier: int
    reason: str
    detail: str = ""
    argv: tuple[str, ...] = ()
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def goes_through_rch(self) -> bool:
        """Is it rewritten? So is a build that a switch, a mistake in one, or the threshold keeps here.

        ``rch exec`` tells the reason and runs it under local slots, as it does for a shim (coverage A-5 to A-7).
        """
        return self.verdict is Verdict.OFFLOAD or self.reason in ("local-only", "bad-environment", "below-threshold")


@dataclass(frozen=True)
class Decision:
    """The verdict over a line: offload when at least one segment is.

    A line may be rewritten though all of it is local (:attr:`Segment.goes_through_rch`): ask ``rewritten != command``,
    not the verdict, whether the line changed.
    """

    command: str
    verdict: Verdict
    segments: tuple[Segment, ...]
    rewritten: str


@dataclass(frozen=True)
class Policy:
    """The part of the configuration that decides (interception.*, general.*).

    structure:  "transparent", or "strict" for the seed's table (coverage B-2).
    exclude:    patterns of words, as ``make docs`` or ``cargo test -p slow*``; each word may have ``*``, ``?``, ``[]``.
                A pattern matches a command that begins with its words; the program is compared by its base name.
    toolchains: toolchain name -> on; a name that is missing has the toolchain's own default.
    full_return: artifacts.build_dir brings everything back, so a command that is built there finds it fresh here.
    run_tests:  execution.run_tests: "remote", or "local" to build tests there and run them here.
    enabled:    general.enabled and project.enabled; RCH_ENABLED beats it.
    local_only: general.local_only or project.local_only.
    """

    structure: str = "transparent"
    confidence_threshold: float = 0.85
    exclude: tuple[str, ...] = ()
    toolchains: Mapping[str, bool] = field(default_factory=dict)
    run_tests: str = "remote"
    full_return: bool = True
    enabled: bool = True
    local_only: bool = False
