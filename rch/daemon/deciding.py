"""What an order asks for: offload or local, the build's own words in it, and whether it may run here at all."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rch.config import Config
from rch.config.policy import policy_of
from rch.daemon.session import Session
from rch.errors import NotOffloadable
from rch.intercept import classify_argv
from rch.intercept.decision import Kind, Segment, Verdict
from rch.order import Order
from rch.paths import Argv
from rch.project import cargo_aliases
from rch.toolchains import FREE_COMMAND, build_argv, preflight
from rch.toolchains.cargo import check_argv
from rch.toolchains.cargo import expand as expand_aliases


def decide(order: Order, config: Config) -> Segment:
    """The one decision (lessons IC-09), with the free command of a named place on top."""
    segment = classify_argv(
        order.argv, order.cwd, policy_of(config), env=order.env, aliases=lambda cwd: cargo_aliases(cwd, order.env)
    )
    if segment.verdict is Verdict.LOCAL and order.options.must_be_remote:
        # A build that a switch or an exclusion keeps here is still known as what it is.
        return replace(segment, verdict=Verdict.OFFLOAD, kind=segment.kind or FREE_COMMAND, reason="", tier=4)
    return segment


def understood(order: Order, segment: Segment) -> Order:
    """The order with the build's own words and what the job runs. Raises as :func:`checked_words` does."""
    assert segment.kind is not None
    words = checked_words(segment.argv or order.argv, segment.kind, order.cwd, order.env)
    run = Argv(*build_argv(words, segment.kind)) if segment.kind.run_locally_after else order.argv
    return replace(order, words=words, run=run)


def checked_words(argv: Sequence[str], kind: Kind, cwd: str, env: Mapping[str, str]) -> Argv:
    """The build's own words *argv* with cargo's aliases expanded.

    Raises NotOffloadable with a ``preflight-…`` code when the tool here will only report an error.
    """
    words = Argv(*(expand_aliases(argv, cargo_aliases(cwd, env)) if kind.name.startswith("cargo.") else argv))
    if kind.name != FREE_COMMAND.name:
        found = preflight.check(words, kind, cwd, read_small, names_in)
        if found.reason:
            raise NotOffloadable(found.details, code=found.reason, hint=found.suggestion)
    return words


CHECK_S = 5
"""Seconds for the `cargo check` of ``execution.preflight_check``; what takes longer counts as unknown."""


def check_here(order: Order, kind: Kind, caller: Session, config: Config) -> None:
    """`cargo check` as the caller's own child where the configuration wants it (coverage B-9).

    Raises NotOffloadable ``preflight-syntax-error`` when it says that the code does not compile.
    """
    if not config.execution.preflight_check or order.options.dry_run or order.options.must_be_remote:
        return
    words = check_argv(order.words, kind)
    if words is None:
        return
    # 101 is cargo's word for it; 124 is the time limit, and whatever else went wrong is not the code's fault.
    command = f"timeout -k 1 {CHECK_S} {shlex.join(words)} >/dev/null 2>&1; [ $? -ne 101 ]"
    if caller.run_hook("preflight_check", command, order.cwd) == "ended with status 1":
        raise NotOffloadable("cargo check fails here", code="preflight-syntax-error")


def read_small(path: str) -> bytes | None:
    """A manifest for the preflight; None when there is none that could be one."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def names_in(path: str) -> list[str] | None:
    """The names in a directory for the preflight; None when it cannot be read."""
    try:
        return os.listdir(path)
    except OSError:
        return None
