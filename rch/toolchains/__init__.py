"""One module per tool family: how to know a command, what it needs, what it leaves behind. Pure; no I/O.

A new tool is a new module and a line in :data:`TOOLCHAINS`; the core does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rch.intercept.decision import Kind, Products
from rch.toolchains import (
    bun,
    cargo,
    cc,
    cmake,
    ctest,
    go,
    gradle,
    make,
    maven,
    meson,
    ninja,
    npm,
    pytest,
    rustc,
    tsc,
    zig,
)
from rch.toolchains.rule import Toolchain

__all__ = [
    "FREE_COMMAND",
    "KINDS",
    "TOOLCHAINS",
    "build_argv",
    "cores_wanted",
    "kind_named",
    "rust_targets",
    "toolchain_of",
]

TOOLCHAINS: tuple[Toolchain, ...] = (
    cargo.TOOLCHAIN,
    rustc.TOOLCHAIN,
    cc.TOOLCHAIN,
    make.TOOLCHAIN,
    cmake.TOOLCHAIN,
    ninja.TOOLCHAIN,
    meson.TOOLCHAIN,
    go.TOOLCHAIN,
    bun.TOOLCHAIN,
    tsc.TOOLCHAIN,
    zig.TOOLCHAIN,
    ctest.TOOLCHAIN,
    pytest.TOOLCHAIN,
    npm.TOOLCHAIN,
    gradle.TOOLCHAIN,
    maven.TOOLCHAIN,
)

FREE_COMMAND = Kind("command", Products.FILES, repeatable=False, ignored_inputs=True, tools=(), confidence=1.0)
"""A command that is no known build, sent to a place the caller named."""

KINDS: Mapping[str, Kind] = MappingProxyType(
    {kind.name: kind for kind in (*(kind for tool in TOOLCHAINS for kind in tool.kinds), FREE_COMMAND)}
)

_PROGRAMS: Mapping[str, Toolchain] = {program: tool for tool in TOOLCHAINS for program in tool.programs}
_OF_KIND: Mapping[str, Toolchain] = {kind.name: tool for tool in TOOLCHAINS for kind in tool.kinds}


def kind_named(name: str) -> Kind:
    """The kind called *name*. Raises KeyError for a name no toolchain has."""
    return KINDS[name]


def toolchain_of(program: str) -> Toolchain | None:
    """Who judges *program*: a base name, or a relative path as typed (``./gradlew``)."""
    found = _PROGRAMS.get(program)
    if found is not None:
        return found
    return next((tool for tool in TOOLCHAINS if tool.claims(program)), None)


def cores_wanted(argv: Sequence[str], kind: Kind) -> int | None:
    """CPUs the words of *argv* ask for (``-j``), 1 for tools that use one; None leaves it to the estimate.

    argv: the build's own words, wrappers removed (:attr:`rch.intercept.decision.Segment.argv`).
    """
    tool = _OF_KIND.get(kind.name)
    return tool.cores(argv, kind) if tool is not None and argv else None


def build_argv(argv: Sequence[str], kind: Kind) -> tuple[str, ...]:
    """What runs on the worker: *argv*, or its building part where ``kind.run_locally_after`` (cargo run)."""
    return cargo.build_argv(argv, kind)


def rust_targets(argv: Sequence[str], kind: Kind) -> tuple[str, ...]:
    """Triples of ``--target``: the worker must have their standard library (coverage B-7)."""
    if kind is rustc.COMPILE:
        return rustc.targets(argv)
    return cargo.targets(argv) if kind.name.startswith("cargo.") else ()
