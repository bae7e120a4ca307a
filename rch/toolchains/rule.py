"""What a toolchain module is made of: what it answers, and what it is. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rch.intercept.decision import Kind
from rch.toolchains.option import UNKNOWN, Options, Reading, first_stay


@dataclass(frozen=True)
class Call:
    """One call of a tool, as a toolchain judges it.

    program: base name of the command word ("gcc-12"), ``./gradlew`` and the like as typed.
    words:   everything after it.
    cwd:     absolute; where the line has gone before, as far as it says so.
    aliases: answers cargo's aliases there (name -> words); asked for a name that cargo itself does not have.
    moved:   the line went to a directory that it does not name: relative paths say nothing.
    """

    program: str
    words: tuple[str, ...]
    cwd: str = "/"
    aliases: Callable[[], Mapping[str, tuple[str, ...]]] = dict
    run_tests: str = "remote"
    moved: bool = False


@dataclass(frozen=True)
class Build:
    """A command to offload. own_rule: not measured against the threshold in transparent mode (cargo run)."""

    kind: Kind
    own_rule: bool = False


@dataclass(frozen=True)
class Stay:
    """A command that stays here, with a code of the closed list and one line for people."""

    reason: str
    detail: str
    tier: int = 3


Judgement = Build | Stay


@dataclass(frozen=True)
class Example:
    """A command and what becomes of it: test and documentation in one. Either *kind* or *reason* is set."""

    command: str
    kind: str = ""
    reason: str = ""
    why: str = ""
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Toolchain:
    """One tool family.

    programs: base names that are certainly this tool.
    claims:   further names (versioned compilers); gets the base name, or the word as typed if it is a relative path.
    keywords: texts of which one stands in every line that calls the tool (tier 2).
    cores:    CPUs asked for on the command line; None leaves it to the kind's estimate.
    """

    name: str
    title: str
    programs: frozenset[str]
    keywords: tuple[str, ...]
    kinds: tuple[Kind, ...]
    judge: Callable[[Call], Judgement]
    examples: tuple[Example, ...]
    cores: Callable[[Sequence[str], Kind], int | None] = lambda _argv, _kind: None
    claims: Callable[[str], bool] = lambda _word: False
    on_by_default: bool = True
    notes: str = ""


def never(detail: str) -> Stay:
    """A command of a known tool that must run here."""
    return Stay("never-intercept", detail, 3)


def no_build(detail: str) -> Stay:
    """A command of a known tool that builds nothing rch knows."""
    return Stay("not-a-build", detail, 4)


def outside(path: str) -> Stay:
    """The command names an output that cannot come back."""
    return Stay("output-outside-roots", f"writes {path}, outside the project", 3)


def held_back(reading: Reading, options: Options) -> Stay | None:
    """The answer when an option alone keeps the command here; None when none does.

    An option the table does not know keeps it here too: offload needs a positive rule (lessons IC-07).
    """
    why = first_stay(reading, options)
    if why:
        return never(why)
    if reading.unknown:
        return no_build(f"option {reading.unknown} is not known to rch")
    return None


# No project can be rooted here, so two paths that have nothing else in common are in different projects.
_COMMON = frozenset({"/", "/tmp", "/var", "/var/tmp", "/home", "/root", "/srv", "/opt", "/mnt", "/usr", "/run", "/dev"})


def first_outside(call: Call, paths: Sequence[str]) -> Stay | None:
    """:func:`outside` for the first of *paths* that surely lies outside every root of a project at ``call.cwd``.

    Paths for which the roots must be known are left to the project step. "" and /dev/null are no outputs.
    """
    for path in paths:
        if not path or path == "/dev/null" or path.startswith(UNKNOWN):
            continue
        if path.startswith("~"):
            return outside(path)
        if not path.startswith("/") and (call.moved or not path.startswith("..")):
            continue
        full = os.path.normpath(os.path.join(call.cwd, path.replace(UNKNOWN, "_")))
        if full.startswith("//"):
            full = full[1:]
        if os.path.commonpath((full, os.path.normpath("/" + call.cwd.lstrip("/")))) in _COMMON and not (
            call.moved and not full.startswith(("/tmp/", "/var/tmp/", "/dev/", "/usr/", "/etc/"))
        ):
            return outside(path)
    return None
