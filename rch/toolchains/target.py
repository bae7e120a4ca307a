"""Which targets of make, ninja and cmake are things to do here rather than things to build. Pure data."""

from __future__ import annotations

import re

from rch.toolchains.option import word_set

LOCAL_WORDS = word_set(
    # changes this machine
    "install uninstall reinstall setup bootstrap activate symlink "
    # talks to the world
    "deploy publish release upload push pull login logout docker podman image images container compose kubectl helm "
    "terraform ansible provision sync fetch download clone backup restore migrate rollback "
    # runs, serves, waits
    "run start stop restart serve watch dev up down exec shell repl console attach open browse preview tail logs log "
    "qemu gdb lldb debugger flash burn monitor tunnel ssh daemon "
    # asks
    "menuconfig nconfig xconfig gconfig oldconfig config configure reconfigure edit "
    # edits the sources, or takes things away
    "fmt format reformat fix tidy clean distclean mrproper realclean maintainer-clean clobber purge reset prune nuke "
    "cleanall "
    # only tells
    "help usage version list info status print tags ctags etags cscope env vars targets todo "
    # fills caches of this machine
    "deps dependencies vendor update upgrade init hooks"
)
"""A target with one of these between its separators stays local: ``docker-push``, ``run_server``, ``db:migrate``."""

_TEST_WORDS = word_set("test tests check checks bench benchmark benchmarks verify selftest unittest unittests")
_SEPARATORS = re.compile(r"[-_:+]")


def stays_here(target: str) -> str:
    """The word because of which *target* stays here, or "".

    A target with a slash or a dot names a file (``build/install.o``, ``bin/run``) and is built like any other.
    """
    if "/" in target or "." in target.lstrip("."):
        return ""
    lowered = target.lower()
    if lowered in LOCAL_WORDS:
        return lowered
    words = _SEPARATORS.split(lowered)
    return next((word for word in words if word in LOCAL_WORDS), "")


def is_test(target: str) -> bool:
    """True for a target that runs tests: such a job is not repeated elsewhere (lessons EX-07)."""
    return "/" not in target and any(word in _TEST_WORDS for word in _SEPARATORS.split(target.lower()))
