"""The workstation's part of a shared cache: what a command needs of CARGO_HOME goes to a worker that lacks it."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from typing import TYPE_CHECKING

from rch.execute.executor import Hello
from rch.paths import RelPath
from rch.project.model import Project

if TYPE_CHECKING:
    from rch.daemon.pool import Member

Version = tuple[int, int]
"""(size, mtime_ns): an entry of the registry's index changes when versions come out."""


class SharedCaches:
    """Remembers what each worker is known to have, as long as its connection lasts."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Hello | None, set[tuple[RelPath, Version]]]] = {}
        self._lock = threading.Lock()

    def send(self, member: Member, project: Project) -> int:
        """Bring what *project* needs, this machine has and the worker lacks; the round trips it took, 0 when warm.

        Raises what the executor raises.
        """
        if project.cargo_home is None or not project.cache_files:
            return 0
        known = self._known_of(member)
        here = list(versions(project.cargo_home, project.cache_files).items())
        unsure = [item for item in here if item not in known]
        if not unsure:
            return 0
        executor = member.executor
        paths = [path for path, _ in unsure]
        fields = {"cache": "cargo", "paths": paths, "versions": [version for _, version in unsure]}
        listed = executor.request("cache_missing", fields, timeout_s=60).fields.get("missing")
        wanted = {p for p in listed if isinstance(p, str)} if isinstance(listed, list) else set()
        missing = [path for path in paths if path in wanted]
        if missing:
            staging = f"{executor.cache_dir}/caches/cargo/staging-{secrets.token_hex(6)}"
            executor.send_files(project.cargo_home, missing, staging)
            adopt = {"cache": "cargo", "staging": staging, "paths": missing}
            executor.request("cache_adopt", adopt, timeout_s=120)
        known.update(unsure)
        return 2 if missing else 1

    def _known_of(self, member: Member) -> set[tuple[RelPath, Version]]:
        """A new connection may lead to a worker that was made anew."""
        with self._lock:
            hello, known = self._known.get(member.worker.name, (None, set()))
            if hello is not member.hello:
                known = set()
                self._known[member.worker.name] = (member.hello, known)
            return known


def versions(home: str, paths: tuple[RelPath, ...]) -> dict[RelPath, Version]:
    """The version of each file that is there."""
    found: dict[RelPath, Version] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(os.path.join(home, path))
            found[path] = (status.st_size, status.st_mtime_ns)
    return found
