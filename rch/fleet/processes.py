"""Find and end processes by pid, never by name. Ansible's forks have sessions of their own: no group reaches them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator


def pids_here() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            yield int(name)


def stat_of(pid: int) -> tuple[str, str, int, int] | None:
    """Name, state, parent and start time (clock ticks since boot) of a process; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    # The name is in parentheses and may hold anything, also parentheses.
    name, rest = line[line.index("(") + 1 : line.rindex(")")], line[line.rindex(")") + 2 :].split()
    return name, rest[0], int(rest[1]), int(rest[19])


def start_time(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot: with the pid it names a process for good."""
    stat = stat_of(pid)
    return None if stat is None or stat[1] == "Z" else stat[3]


def descendants(parents: Iterable[int], *, named: str | None = None) -> set[int]:
    """All children, and theirs, of *parents*; with *named*, only through processes of that name."""
    children: dict[int, list[int]] = {}
    for pid in pids_here():
        stat = stat_of(pid)
        if stat is not None and stat[1] != "Z" and (named is None or stat[0] == named):
            children.setdefault(stat[2], []).append(pid)
    found: set[int] = set()
    stack = list(parents)
    while stack:
        for child in children.get(stack.pop(), ()):
            if child not in found:
                found.add(child)
                stack.append(child)
    return found


def stop(pids: Iterable[int], *, grace_s: float = 2.0) -> set[int]:
    """End *pids*: TERM, up to *grace_s* seconds, KILL (at once with 0). Returns those that are still there."""
    alive = {pid: ticks for pid in pids if (ticks := start_time(pid)) is not None}
    for sign, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if sign == signal.SIGTERM and grace_s <= 0:
            continue
        for pid, ticks in alive.items():
            if start_time(pid) == ticks:
                with contextlib.suppress(OSError):
                    os.kill(pid, sign)
        deadline = time.monotonic() + wait_s
        while True:
            alive = {pid: ticks for pid, ticks in alive.items() if start_time(pid) == ticks}
            if not alive or time.monotonic() > deadline:
                break
            time.sleep(0.02)
    return set(alive)
