"""A quick measure of a worker: one CPU, memory and disk, each a plain rate."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any, Dict

_CPU_S = 0.5
_DISK_BYTES = 32 * 1024 * 1024


def bench(directory: str) -> Dict[str, Any]:
    """{"cpu_mb_s": SHA-256 of one CPU, "memory_mb_s": copying, "disk_mb_s": writing with fsync}, in 10**6 bytes/s."""
    block = bytes(1 << 20)
    started = time.perf_counter()
    rounds = 0
    while time.perf_counter() - started < _CPU_S:
        hashlib.sha256(block).digest()
        rounds += 1
    cpu = rounds * len(block) / (time.perf_counter() - started)
    source = bytearray(64 << 20)
    started = time.perf_counter()
    for _ in range(4):
        bytes(source)
    memory = 4 * len(source) / (time.perf_counter() - started)
    path = os.path.join(directory, "bench-%d" % os.getpid())
    started = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(_DISK_BYTES // len(block)):
            os.write(descriptor, block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        os.unlink(path)
    disk = _DISK_BYTES / (time.perf_counter() - started)
    return {"cpu_mb_s": round(cpu / 1e6), "memory_mb_s": round(memory / 1e6), "disk_mb_s": round(disk / 1e6)}
