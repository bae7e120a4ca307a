"""The Executor: every remote effect goes through these six verbs.

``ssh`` talks to a worker over the network, ``local`` to a child on this machine, ``mock`` to a simulated worker with a
fault plan. One contract suite (``tests/contract``) runs over all of them. A new executor adds a class, no case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rch.execute.channel import Answer
from rch.fleet.model import Worker
from rch.paths import AbsPath


@dataclass(frozen=True)
class Hello:
    """What the worker said of itself in the handshake. ``sandbox_why`` is empty when the sandbox works."""

    protocol: int
    version: str
    build: str
    boot_id: str
    slots_total: int
    sandbox_ok: bool
    sandbox_why: str = ""
    python: str = ""
    uid: int = -1
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Moved:
    """One bulk transfer: regular files moved, bytes on the wire both ways, wall seconds, rsync processes started."""

    files: int = 0
    wire_bytes: int = 0
    seconds: float = 0.0
    processes: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            self.files + other.files,
            self.wire_bytes + other.wire_bytes,
            self.seconds + other.seconds,
            self.processes + other.processes,
        )


@dataclass(frozen=True)
class BulkSettings:
    """How bulk transfers go. no_progress_s: ends one that stands still; levels: zstd 1 to 19, 0 is none."""

    no_progress_s: int = 300
    push_level: int = 0
    return_level: int = 0


class Executor(Protocol):
    """A worker one can talk to. All methods may be called from several threads at once.

    bulk: settings of the next transfers; set by whoever knows the configuration.
    """

    bulk: BulkSettings

    @property
    def worker(self) -> Worker:
        """The worker this executor reaches."""
        ...

    @property
    def cache_dir(self) -> str:
        """The worker's cache directory, absolute on the worker; valid after :meth:`connect`."""
        ...

    @property
    def connected(self) -> bool:
        """True while the control channel is open, as far as is known."""
        ...

    def connect(self) -> Hello:
        """Open what is not open yet. Idempotent.

        Raises Unreachable (with ``stage``), ToolMissing (rch-wkr is not there), VersionMismatch (after one
        attempt to redeploy).
        """
        ...

    def request(
        self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", *, timeout_s: float = 30.0
    ) -> Answer:
        """One round trip on the control channel.

        Raises Unreachable when the connection ends or the answer does not come in time, WorkerFault or DiskFull
        when the worker answers an error (its ``code`` is one of protocol.ERROR_CODES).
        """
        ...

    def send_files(self, source: AbsPath, paths: Sequence[str], target: str) -> Moved:
        """Copy regular files *paths* (relative to *source*) below *target*, absolute on the worker; resumable.

        Raises TransferFault, DiskFull, Unreachable. Contents are checked by the receiver's hash, not here.
        """
        ...

    def receive_files(self, source: str, paths: Sequence[str], target: AbsPath, *, largest: int) -> Moved:
        """Copy regular files *paths* below *source* on the worker to below *target* here.

        largest: size in bytes of the largest file expected; a longer one ends the transfer (untrusted sender).
        """
        ...

    def link_mbit_s(self) -> float | None:
        """Measured rate of the bulk plane in Mbit/s; None before a transfer has shown it."""
        ...

    def clock_offset_ns(self) -> int:
        """Worker's clock minus ours in ns: the estimate with the shortest round trip of the last few."""
        ...

    def close(self) -> None:
        """End the connection and every process started for it. Idempotent."""
        ...
