"""Ceilings for one job, where this account may make a cgroup: version 1 or 2, else no ceiling and no claim.

Memory as the caller says; processes as many as the machine itself can have, so that a job which forks without end
meets its own wall.
"""

from __future__ import annotations

import contextlib
import os
from typing import List, Optional


class JobGroup:
    """cgroups of our own, one per hierarchy; the first has the memory. Made by :func:`job_group`."""

    def __init__(self, paths: List[str], version: int) -> None:
        self.paths = paths
        self._version = version

    def enter(self) -> None:
        """Move the calling process in; between fork and exec of the sandbox."""
        for path in self.paths:
            descriptor = os.open(os.path.join(path, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
            os.write(descriptor, b"0")
            os.close(descriptor)

    def oom_kills(self) -> int:
        """Processes of the group that the kernel killed for want of memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        return _counter(os.path.join(self.paths[0], name), "oom_kill")

    def remove(self) -> None:
        for path in self.paths:
            with contextlib.suppress(OSError):
                os.rmdir(path)


def job_group(name: str, memory_bytes: int) -> Optional[JobGroup]:
    """A new group with *memory_bytes* below our own, or None where that is not possible."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        ours = {controller: path for _, controllers, path in lines for controller in controllers.split(",")}
        if "memory" in ours:
            path = _make(_mounted("cgroup", "memory", ours["memory"]), name, memory_bytes, 1)
            if path is None:
                return None
            with contextlib.suppress(OSError, ValueError, KeyError):  # another hierarchy, which may be closed to us
                processes = os.path.join(_mounted("cgroup", "pids", ours["pids"]), "rch-" + name)
                os.mkdir(processes)
                _limit_processes(processes)
                return JobGroup([path, processes], 1)
            return JobGroup([path], 1)
        if "" in ours:
            path = _make(_mounted("cgroup2", "", ours[""]), name, memory_bytes, 2)
            if path is not None:
                _limit_processes(path)
                return JobGroup([path], 2)
    return None


def machine_processes() -> int:
    """How many processes and threads this machine can have at once."""
    found = []
    for name in ("threads-max", "pid_max"):
        with open("/proc/sys/kernel/" + name, encoding="ascii") as file:
            found.append(int(file.read()))
    return min(found)


def oom_kills_of_machine() -> int:
    """OOM kills since boot, of anybody: a hint where there is no group of our own."""
    return _counter("/proc/vmstat", "oom_kill")


def _limit_processes(path: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the controller may not be handed down to us
        _write(os.path.join(path, "pids.max"), str(machine_processes()))


def _make(parent: str, name: str, limit_bytes: int, version: int) -> Optional[str]:
    path = os.path.join(parent, "rch-" + name)
    limit, swap = (
        ("memory.max", "memory.swap.max") if version == 2 else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    )
    os.mkdir(path)
    try:
        _write(os.path.join(path, limit), str(limit_bytes))
    except OSError:
        os.rmdir(path)
        return None
    with contextlib.suppress(OSError):  # swap accounting is often off
        _write(os.path.join(path, swap), "0" if version == 2 else str(limit_bytes))
    return path


def _mounted(kind: str, controller: str, path: str) -> str:
    """Where the hierarchy of *controller* is mounted, with our own *path* in it. Raises ValueError."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields, (found, _, options) = before.split(), after.split()[:3]
            if found == kind and (not controller or controller in options.split(",")):
                root, point = fields[3], fields[4]
                inside = path[len(root) :] if root != "/" and path.startswith(root) else path
                return point + "/" + inside.strip("/")
    raise ValueError("not mounted")


def _counter(path: str, name: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                words = line.split()
                if len(words) == 2 and words[0] == name:
                    return int(words[1])
    except (OSError, ValueError):
        pass
    return 0


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
