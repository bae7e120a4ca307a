"""Bulk transfer: rsync with an explicit list, regular files only, never a glob, never a link followed."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence

from rch.errors import DiskFull, ToolMissing, TransferFault, Unreachable
from rch.execute.executor import BulkSettings, Moved
from rch.paths import AbsPath

CONNECTION_STATUS = frozenset({5, 10, 12, 30, 35, 255})
"""rsync(1), EXIT VALUES: errors of protocol start, socket, stream and time; 255 is ssh's own."""

NOT_THERE_STATUS = frozenset({126, 127})
"""The worker's shell found no rsync; rsync here passes its status on."""

BYTES = re.compile(rb"Total bytes (?:sent|received): ([\d,.]+)")


class Rsync:
    """rsync for one worker.

    config: the generated ssh_config with host ``rch``; None for this machine (targets are then plain paths).
    """

    def __init__(self, host: str, config: AbsPath | None = None, connect_timeout_s: float = 5.0) -> None:
        self._host = host
        self._config = config
        self._connect_timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def send(self, source: AbsPath, paths: Sequence[str], target: str, bulk: BulkSettings) -> Moved:
        """Regular files below *source* to below *target*; partial files are kept and continued next time."""
        arguments = ["--partial", "--times", *_tuned(bulk, bulk.push_level), f"{source}/", f"{target}/"]
        return self._run(arguments, paths, "push", None)

    def receive(self, source: str, paths: Sequence[str], target: AbsPath, bulk: BulkSettings, *, largest: int) -> Moved:
        """Regular files below *source* to below *target*; no file may grow beyond *largest* bytes."""
        arguments = ["--times", f"--max-size={largest}", *_tuned(bulk, bulk.return_level), f"{source}/", f"{target}/"]
        return self._run(arguments, paths, "return", largest)

    def end_master(self) -> None:
        """Stop running transfers and the OpenSSH master of this worker, if it lives."""
        with self._lock:
            running = list(self._running)
        for process in running:
            process.terminate()
        if self._config is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    ["ssh", "-F", self._config, "-O", "exit", "rch"],
                    capture_output=True,
                    timeout=5,
                    check=False,
                    stdin=subprocess.DEVNULL,
                )

    def _run(self, arguments: list[str], paths: Sequence[str], direction: str, largest: int | None) -> Moved:
        if not paths:
            return Moved()
        command = ["rsync", "--from0", "--files-from=-", "--no-implied-dirs", "--secluded-args", "--stats"]
        command += ["--no-motd", "--chmod=F600,D700", "--delete-missing-args"]
        command += ["--force"]
        if self._config is not None:
            command += ["-e", f"ssh -F {shlex.quote(self._config)}"]

        def limit() -> None:  # runs in the child: an untrusted sender cannot fill the disk
            if largest is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 1, largest + 1))

        started = time.monotonic()
        try:
            process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                preexec_fn=limit if largest is not None else None,  # noqa: PLW1509  one setrlimit, no locks
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ToolMissing(
                "rsync is not installed on this machine", host="here", tool="rsync", hint="./dev setup"
            ) from error
        with self._lock:
            self._running.add(process)
        try:
            listing = b"".join(os.fsencode(p) + b"\0" for p in paths)
            output, errors = process.communicate(listing)
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode != 0:
            raise self._fault(process.returncode, errors, direction)
        moved = sum(int(re.sub(rb"[,.]", b"", m)) for m in BYTES.findall(output))
        return Moved(len(paths), moved, time.monotonic() - started, 1)

    def _fault(self, status: int, errors: bytes, direction: str) -> Exception:
        lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
        text = f"{self._host}: {direction} by rsync failed ({status}): {' · '.join(lines[:2])[:300]}"
        if b"No space left on device" in errors:
            side = self._host if (direction == "push") else "here"
            return DiskFull(text, host=side, hint="rch fleet gc" if side != "here" else "free space on this machine")
        if status in NOT_THERE_STATUS:
            return ToolMissing(
                f"{self._host}: rsync is not installed there ({lines[0][:200] if lines else status})",
                host=self._host,
                tool="rsync",
                hint=f"rch fleet apply --limit {self._host}",
            )
        if status in CONNECTION_STATUS:
            return Unreachable(text, host=self._host, stage="transfer", hint=f"rch workers probe {self._host}")
        return TransferFault(text, host=self._host, direction=direction)


def _tuned(bulk: BulkSettings, level: int) -> list[str]:
    """Options that the configuration decides; rsync itself agrees on zstd where both ends have it."""
    return [f"--timeout={bulk.no_progress_s}", *(["--compress", f"--compress-level={level}"] if level else [])]
