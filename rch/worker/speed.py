"""The speed score of a worker: from rates to one number, and the record that keeps it (``facts.d/speed.json``).

The record belongs to the worker, so whoever asks (rchd of any workstation, the role speed_score, a person) sees the
same score, and none of them measures what somebody else has measured lately.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Mapping, Optional

from rch.worker.cache import Cache, read_json, write_json

REFERENCE = {"cpu_mb_s": 25.0, "memory_mb_s": 10_000.0, "disk_mb_s": 1_000.0, "compile_s": 0.2}
"""What scores 100: one core of a fast desktop of 2024, in round figures. A score is the share of it, capped at 100."""

WEIGHTS = {"compile_score": 0.6, "cpu_score": 0.25, "memory_score": 0.1, "disk_io_score": 0.05}
"""Compiling decides; the others tell apart what one source file does not show (big links, many small files)."""

SYSBENCH_FULL = {"events_per_s": 10_000.0, "memory_mib_s": 50_000.0}
"""What is 100 per cent in sysbench's figures (coverage D-7)."""

METHODS = {
    "compile": "0.6 compile + 0.25 cpu + 0.1 memory + 0.05 disk, against the reference of rch/worker/speed.py",
    "sysbench": "no C compiler there: 0.7 cpu + 0.3 memory of sysbench, 100 being 10000 events/s and 50000 MiB/s",
    "rates": "no C compiler and no sysbench there: 0.7 cpu + 0.3 memory, against the reference",
    "cloud_benchmarker": "overall_score of the cloud_benchmarker that the playbook asked",
}
"""Which method a fact was made by, in words."""

STEADY = 0.1
"""A score that a new measurement confirms within this share stays as it is: facts and choices do not flutter."""

_RECORD = "speed.json"
_VERSION = 1
"""Counted up when scores of before cannot be compared with scores of now."""


def score(rates: Mapping[str, Any]) -> Dict[str, Any]:
    """{"speed_score", "method", and the part scores, named as cloud_benchmarker names them}; all 0 to 100."""
    parts = {
        "cpu_score": _share(rates["cpu_mb_s"], REFERENCE["cpu_mb_s"]),
        "memory_score": _share(rates["memory_mb_s"], REFERENCE["memory_mb_s"]),
        "disk_io_score": _share(rates["disk_mb_s"], REFERENCE["disk_mb_s"]),
    }
    if rates.get("compile_s"):
        parts["compile_score"] = _share(REFERENCE["compile_s"], rates["compile_s"])
        overall, method = sum(WEIGHTS[name] * parts[name] for name in WEIGHTS), "compile"
    elif rates.get("sysbench"):
        parts["cpu_score"] = _share(rates["sysbench"]["events_per_s"], SYSBENCH_FULL["events_per_s"])
        parts["memory_score"] = _share(rates["sysbench"]["memory_mib_s"], SYSBENCH_FULL["memory_mib_s"])
        overall, method = 0.7 * parts["cpu_score"] + 0.3 * parts["memory_score"], "sysbench"
    else:
        overall, method = 0.7 * parts["cpu_score"] + 0.3 * parts["memory_score"], "rates"
    return {
        "speed_score": round(overall, 1),
        "method": method,
        **{name: round(value, 1) for name, value in parts.items()},
    }


def _share(value: float, full: float) -> float:
    return min(100.0, 100.0 * value / full)


def kept(cache: Cache, machine: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """The record, None when there is none or it was made on another *machine* than this is now."""
    record = read_json(_path(cache))
    if not isinstance(record, dict) or record.get("machine") != {**machine, "version": _VERSION}:
        return None
    value = record.get("speed_score")
    return record if isinstance(value, (int, float)) and 0 <= value <= 100 else None


def keep(cache: Cache, machine: Mapping[str, Any], found: Mapping[str, Any]) -> Dict[str, Any]:
    """Write what was *found* as the record, with the time; the record that counts now."""
    before = kept(cache, machine)
    record: Dict[str, Any] = {**found, "machine": {**machine, "version": _VERSION}}
    if before is not None and confirms(before, found):
        record = before
    record["measured_at"] = int(time.time())
    os.makedirs(os.path.dirname(_path(cache)), mode=0o700, exist_ok=True)
    write_json(_path(cache), record)
    return record


def confirms(before: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """True if the score *found* is that of *before*, but for what a machine differs by from minute to minute."""
    return bool(
        before.get("method") == found["method"]
        and abs(found["speed_score"] - before["speed_score"]) <= STEADY * before["speed_score"]
    )


def holds(record: Mapping[str, Any], max_age_s: float) -> bool:
    """True if the record needs no measurement yet. Whoever brought a score from elsewhere also brings the next one."""
    return record.get("method") == "cloud_benchmarker" or age_s(record) <= max_age_s


def age_s(record: Mapping[str, Any]) -> float:
    """Seconds since the record was made or confirmed; a time that lies ahead counts as very old."""
    at = record.get("measured_at")
    age = time.time() - at if type(at) is int else -1.0
    return age if age >= 0 else float("inf")


def _path(cache: Cache) -> str:
    return os.path.join(cache.path, "facts.d", _RECORD)
