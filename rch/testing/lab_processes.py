"""Find and end what a lab's worker started, by pid and never by name.

Every session of a lab's sshd carries the worker's mark in its environment (``SetEnv``), and so does everything that a
session starts and that outlives it. What runs in a sandbox has another environment, but is a descendant.
"""

from __future__ import annotations

import contextlib
import os

from rch.fleet.processes import descendants, pids_here, start_time, stat_of, stop

__all__ = ["MARK", "descendants", "marked", "named", "start_time", "stop"]

MARK = "RCH_LAB_MARK"
"""Name of the environment variable whose value is a worker's mark."""


def marked(mark: str) -> set[int]:
    """Processes whose environment holds *mark*, and all their descendants; never this process or its parents."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for pid in pids_here():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if wanted in file.read().split(b"\0"):
                found.add(pid)
    found |= descendants(found)
    return found - _ourselves()


def _ourselves() -> set[int]:
    pids = {os.getpid()}
    pid = os.getppid()
    while pid > 1 and (stat := stat_of(pid)) is not None:
        pids.add(pid)
        pid = stat[2]
    return pids


def named(name: str) -> set[int]:
    """Pids of the live processes of that name."""
    return {pid for pid in pids_here() if (stat := stat_of(pid)) is not None and stat[0] == name and stat[1] != "Z"}
