"""The placement of a return as a list of small steps, on disk before the first one is taken (lessons AR-11).

Whatever ends this process, the journal and the staged files say what was still to be done. A step can be repeated:
what has been done is recognised by what lies there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rch.paths import AbsPath
from rch.transfer._files import make_private_dir, sync_dir, write_atomically
from rch.transfer.held import root_state
from rch.transfer.model import Stamp
from rch.worker.protocol import hash_bytes

FORMAT = 1


class Step(NamedTuple):
    """One step on one path.

    op:     "remove" (a file or link), "rmdir" (only if empty), "mkdir", "put" (rename a staged file or link here),
            "set" (mode and time of a file or link that is right already), "finish" (mode and time of a directory).
    before: what must lie there, None for nothing (unused for directories).
    loose:  compare *before* without ctime: another name of the same file is touched by an earlier step.
    area:   index into the journal's areas, the directory that holds the staged *name*.
    type, mode, size, mtime_ns, content: the entry that lies there afterwards; content is the hash or link target.
    """

    op: str
    path: str
    build: bool = False
    before: Stamp | None = None
    loose: bool = False
    area: int = -1
    name: str = ""
    type: str = ""
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    content: str = ""


@dataclass(frozen=True)
class Journal:
    """One placement.

    root: the real path; identity: its (device, inode) when the placement was planned.
    areas: directories with staged files: absolute ones of ours, or names below the root ("/" in front is absolute).
    tree_paths: tree paths that git may ignore, to be remembered when all is placed.
    boot_id: the boot it was written in; after another one even placed files are checked by hash.
    """

    job: str
    root: AbsPath
    identity: tuple[int, int]
    areas: tuple[str, ...]
    steps: tuple[Step, ...]
    tree_paths: tuple[str, ...] = ()
    boot_id: str = ""

    def write(self, state_dir: AbsPath, root_key: str) -> None:
        """On disk, durably, before anything is placed. Raises OSError."""
        make_private_dir(root_state(state_dir, root_key))
        rows = [[*step[:3], None if step.before is None else list(step.before), *step[4:]] for step in self.steps]
        text = json.dumps(
            {
                "format": FORMAT,
                "job": self.job,
                "root": self.root,
                "identity": list(self.identity),
                "areas": list(self.areas),
                "tree_paths": list(self.tree_paths),
                "boot_id": self.boot_id,
                "steps": rows,
            },
            separators=(",", ":"),
        ).encode("ascii")
        write_atomically(_path(state_dir, root_key), hash_bytes(text).encode() + b"\n" + text, durable=True)

    @staticmethod
    def remove(state_dir: AbsPath, root_key: str) -> None:
        """The placement is complete, or given up. Raises OSError."""
        try:
            os.unlink(_path(state_dir, root_key))
        except FileNotFoundError:
            return
        sync_dir(root_state(state_dir, root_key))

    @staticmethod
    def exists(state_dir: AbsPath, root_key: str) -> bool:
        return os.path.exists(_path(state_dir, root_key))

    @classmethod
    def read(cls, state_dir: AbsPath, root_key: str) -> Journal | None:
        """The journal that was left behind; None when there is none. Raises ValueError for a damaged one."""
        try:
            with open(_path(state_dir, root_key), "rb") as stream:
                digest, _, text = stream.read().partition(b"\n")
        except FileNotFoundError:
            return None
        if hash_bytes(text).encode() != digest:
            raise ValueError("a damaged journal")
        return _decode(json.loads(text))


def _decode(data: Mapping[str, Any]) -> Journal:
    if data["format"] != FORMAT:
        raise ValueError("a journal of another version")
    steps = tuple(
        Step._make([*row[:3], None if row[3] is None else Stamp._make(row[3]), *row[4:]]) for row in data["steps"]
    )
    device, inode = data["identity"]
    return Journal(
        job=data["job"],
        root=AbsPath(data["root"]),
        identity=(device, inode),
        areas=tuple(data["areas"]),
        steps=steps,
        tree_paths=tuple(data["tree_paths"]),
        boot_id=data["boot_id"],
    )


def _path(state_dir: AbsPath, root_key: str) -> str:
    return os.path.join(root_state(state_dir, root_key), "journal")


def boot_id() -> str:
    """Changes with every boot; "" where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""
