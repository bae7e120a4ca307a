"""A memory limit for one job, where this account may make a cgroup: version 1 or 2, else no limit and no claim."""

from __future__ import annotations

import contextlib
import os
from typing import Optional


class MemoryGroup:
    """A cgroup of our own. Made by :func:`memory_group`."""

    def __init__(self, path: str, version: int) -> None:
        self.path = path
        self._version = version

    def enter(self) -> None:
        """Move the calling process in; between fork and exec of the sandbox."""
        descriptor = os.open(os.path.join(self.path, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
        os.write(descriptor, b"0")
        os.close(descriptor)

    def oom_kills(self) -> int:
        """Processes of the group that the kernel killed for want of memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        return _counter(os.path.join(self.path, name), "oom_kill")

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self.path)


def memory_group(name: str, limit_bytes: int) -> Optional[MemoryGroup]:
    """A new group with *limit_bytes* below our own, or None where that is not possible."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        for _, controllers, path in lines:
            if "memory" in controllers.split(","):
                return _make(_mounted("cgroup", "memory", path), name, limit_bytes, 1)
        for number, controllers, path in lines:
            if number == "0" and not controllers:
                return _make(_mounted("cgroup2", "", path), name, limit_bytes, 2)
    return None


def oom_kills_of_machine() -> int:
    """OOM kills since boot, of anybody: a hint where there is no group of our own."""
    return _counter("/proc/vmstat", "oom_kill")


def _make(parent: str, name: str, limit_bytes: int, version: int) -> Optional[MemoryGroup]:
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
    return MemoryGroup(path, version)


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
