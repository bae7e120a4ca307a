"""``<state>/ssh/known_hosts``: the workers' host keys, as the administrator's authenticated connection read them there.

The names come from the inventory, the keys from the worker: whatever a worker says, it can vouch for itself alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from rch.errors import ConfigError
from rch.fleet.model import Declared
from rch.fleet.record import write_private
from rch.paths import AbsPath

_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]{40,4000}={0,2})")
_MARK = "rch:"
"""Begins the comment of each line; the worker's name follows."""


def known_hosts_path(state_dir: AbsPath) -> AbsPath:
    """Where the file lies; it need not exist."""
    return AbsPath(os.path.join(state_dir, "ssh", "known_hosts"))


def merge(text: str, found: Mapping[str, Sequence[str]], workers: Sequence[Declared]) -> str:
    """The file's new *text*: keys *found* on workers replace what was there of them, workers that are gone go.

    A worker that was not asked this time keeps its lines. Raises ConfigError for what is no public host key.
    """
    known = {worker.name: worker for worker in workers}
    lines = []
    for line in text.splitlines():
        name = line.rpartition(" " + _MARK)[2]
        if name in known and name not in found:
            lines.append(line)
    for name in found:
        if name in known:
            lines += [f"{_address(known[name])} {_checked(name, key)} {_MARK}{name}" for key in found[name]]
    return "".join(f"{line}\n" for line in sorted(set(lines)))


def keep(state_dir: AbsPath, found: Mapping[str, Sequence[str]], workers: Sequence[Declared], *, write: bool) -> bool:
    """Merge *found* into the file; True if that changes it. Nothing is written unless *write*."""
    path = known_hosts_path(state_dir)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    after = merge(before, found, workers)
    if after != before and write:
        write_private(path, after.encode("utf-8"))
    return after != before


def _address(worker: Declared) -> str:
    return worker.host if worker.port in (None, 22) else f"[{worker.host}]:{worker.port}"


def _checked(name: str, key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{name}: what it names as its host key is none: {key[:60]!r}", key=name)
    return key
