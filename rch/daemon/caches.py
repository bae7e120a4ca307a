"""The workstation's part of the shared caches: what a worker lacks of CARGO_HOME or GOMODCACHE goes there."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from typing import TYPE_CHECKING

from rch.execute.executor import Hello
from rch.paths import AbsPath, RelPath
from rch.project.model import Project

if TYPE_CHECKING:
    from rch.daemon.pool import Member

Version = tuple[int, int]
"""(size, mtime_ns): an entry of the registry's index changes when versions come out."""

Known = set[tuple[tuple[str, RelPath], Version]]


class SharedCaches:
    """Remembers what each worker is known to have, as long as its connection lasts."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Hello | None, Known]] = {}
        self._lock = threading.Lock()

    def send(self, member: Member, project: Project) -> int:
        """Bring what *project* needs, this machine has and the worker lacks; the round trips it took, 0 when warm.

        Raises what the executor raises.
        """
        trips = self._send(member, "cargo", project.cargo_home, project.cache_files)
        return trips + self._send(member, "go", project.module_cache, project.module_files)

    def _send(self, member: Member, cache: str, home: AbsPath | None, files: tuple[RelPath, ...]) -> int:
        """The same for the *files* below *home* and the shared cache *cache*."""
        if home is None or not files:
            return 0
        known = self._known_of(member)
        here = {(cache, path): version for path, version in versions(home, files).items()}
        unsure = [item for item in here.items() if item not in known]
        if not unsure:
            return 0
        executor = member.executor
        paths = [path for (_, path), _ in unsure]
        fields = {"cache": cache, "paths": paths, "versions": [version for _, version in unsure]}
        listed = executor.request("cache_missing", fields, timeout_s=60).fields.get("missing")
        wanted = {p for p in listed if isinstance(p, str)} if isinstance(listed, list) else set()
        missing = [path for path in paths if path in wanted]
        if missing:
            staging = f"{executor.cache_dir}/caches/{cache}/staging-{secrets.token_hex(6)}"
            executor.send_files(home, missing, staging)
            adopt = {"cache": cache, "staging": staging, "paths": missing}
            executor.request("cache_adopt", adopt, timeout_s=120)
        known.update(unsure)
        return 2 if missing else 1

    def _known_of(self, member: Member) -> Known:
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
