"""What a benchmark does: four plain rates of this machine, each the best of a few rounds.

The best and not the mean: whatever else runs here only ever makes a round slower. Work is set against the CPU time that
it took and not the time that went by, so the neighbours of a busy minute do not show; what the machine will never grant
does: the quota of its control group (half a CPU is half the rate), and the share that a hypervisor takes away.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import subprocess
import tempfile
import time
import zlib
from typing import Any, Dict, Optional, Tuple

_MIB = 1 << 20
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_COMPILERS = ("cc", "gcc", "clang")
_COMPILE_LIMIT_S = 60.0
_ROUNDS = 8
_FUNCTIONS = 40
"""Pairs of functions in the source: some 0.3 s of ``cc -O2`` on a current core."""

_PREAMBLE = "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n"
_PAIR = """
struct s{i} {{ uint32_t a[8]; char name[{length}]; double d; }};
static uint32_t mix{i}(const struct s{i} *p, size_t n) {{
  uint32_t h = {i}u;
  for (size_t i = 0; i < n; i++) {{
    for (size_t j = 0; j < 8; j++) {{ h ^= p[i].a[j] + (h << 6) + (h >> 2); if (h % {prime}u == 3) h *= 31u; }}
    switch (h & 7) {{
      case 0: h += (uint32_t) p[i].d; break;
      case 1: h ^= (uint32_t) strlen(p[i].name); break;
      case 5: h = ~h; break;
      default: h += {i}u;
    }}
  }}
  return h;
}}
uint32_t run{i}(struct s{i} *p, size_t n, char *out) {{
  uint32_t h = mix{i}(p, n);
  snprintf(out, 32, "%u", h);
  p[n / 2].a[h & 7] = h;
  return h;
}}
"""


def measure(directory: str) -> Dict[str, Any]:
    """All rates, in 10**6 bytes/s; ``compile_s`` and ``compiler`` where a C compiler is, ``sysbench`` where that is.

    *directory* lies on the file system that is measured. Some eight seconds of one CPU.
    """
    compiler = _program(*_COMPILERS)
    cpu, memory, disk, seconds = 0.0, 0.0, 0.0, float("inf")
    # Each once per round: what disturbs for a second or two does not meet all rounds of one of them.
    for _ in range(_ROUNDS):
        cpu = max(cpu, _deflate())
        if compiler is not None:
            seconds = min(seconds, _compile(compiler, directory))
        memory = max(memory, _copy())
        disk = max(disk, _write(directory))
    found: Dict[str, Any] = {
        "cpu_mb_s": round(cpu / 1e6, 1),
        "memory_mb_s": round(memory / 1e6, 1),
        "disk_mb_s": round(disk / 1e6, 1),
    }
    if compiler is not None and seconds < float("inf"):
        found.update(compile_s=round(seconds, 4), compiler=_first_line([compiler, "--version"]))
    else:
        told = _sysbench()
        if told is not None:
            found["sysbench"] = {"events_per_s": told[0], "memory_mib_s": told[1]}
    return found


class _Cost:
    """``with _Cost() as cost``: the seconds that the block would have taken on this machine alone.

    CPU time of this process and of the children it waited for, over the part of a CPU that the machine has.
    """

    def __enter__(self) -> "_Cost":  # noqa: PYI034  Self is of Python 3.11
        self._cpu, self._stolen = _cpu_s(), _stolen()
        return self

    def __exit__(self, *_: object) -> None:
        stolen = [after - before for after, before in zip(_stolen(), self._stolen)]  # noqa: B905  strict= is of 3.10
        granted = 1.0 - (stolen[0] / stolen[1] if stolen[1] > 0 else 0.0)
        self.seconds = max(1e-6, (_cpu_s() - self._cpu) / (min(1.0, quota()) * max(0.05, granted)))

    def so_far(self) -> float:
        """CPU seconds until now."""
        return _cpu_s() - self._cpu


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _stolen() -> Tuple[float, float]:
    """(ticks that a hypervisor took, ticks that this machine's CPUs worked or wanted to) since the boot."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _, _, irq, soft, steal = [float(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0.0, 0.0
    return steal, user + nice + system + irq + soft + steal


def quota(top: str = "/sys/fs/cgroup") -> float:
    """CPUs that our control group may use, as it sees itself in a container; infinite where nothing limits them."""
    for limit, period in (("cpu.max", ""), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            with open(os.path.join(top, limit), encoding="ascii") as file:
                words = file.read().split()
            if period:
                with open(os.path.join(top, period), encoding="ascii") as file:
                    words += file.read().split()
            if words[0] not in ("max", "-1"):
                return max(0.01, float(words[0]) / float(words[1]))
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return float("inf")


def _deflate() -> float:
    """Bytes/s that zlib packs at level 6: branches, tables and memory, much as in a compiler."""
    words = random.Random(1)  # noqa: S311  the same text everywhere, no secret
    text = b" ".join(b"w%d" % words.randrange(4000) for _ in range(50_000))
    done = 0
    with _Cost() as cost:
        while cost.so_far() < 0.3:
            done += len(text)
            zlib.compress(text, 6)
    return done / cost.seconds


def _copy() -> float:
    """Bytes/s of copying between two blocks that no cache holds."""
    source, target = bytearray(64 * _MIB), bytearray(64 * _MIB)
    done = 0
    with _Cost() as cost:
        while cost.so_far() < 0.2:
            target[:] = source
            done += len(source)
    return done / cost.seconds


def _write(directory: str) -> float:
    """Bytes/s of writing and fsync."""
    block = os.urandom(_MIB)  # a file system that packs would not measure the disk
    path = os.path.join(directory, "written")
    started = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(32):
            os.write(descriptor, block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return 32 * _MIB / (time.perf_counter() - started)


def _compile(compiler: str, directory: str) -> float:
    """Seconds that compiling our source costs; infinite where this compiler cannot do it."""
    with tempfile.TemporaryDirectory(prefix="compile-", dir=directory) as place:
        with open(os.path.join(place, "speed.c"), "w", encoding="ascii") as file:
            file.write(_PREAMBLE)
            file.writelines(_PAIR.format(i=i, length=16 + i % 7, prime=5 + i % 11) for i in range(_FUNCTIONS))
        with _Cost() as cost:
            ended = _run([compiler, "-std=c99", "-O2", "-c", "-o", "speed.o", "speed.c"], cwd=place)
        return cost.seconds if ended is not None else float("inf")


def _sysbench() -> Optional[Tuple[float, float]]:
    """(events/s of sysbench's CPU test, MiB/s of its memory test), None where it is not installed or says otherwise."""
    program = _program("sysbench")
    if program is None:
        return None
    events = re.search(r"events per second:\s*([0-9.]+)", _run([program, "cpu", "--time=1", "run"]) or "")
    copied = re.search(r"\(([0-9.]+) MiB/sec\)", _run([program, "memory", "--time=1", "run"]) or "")
    return (float(events[1]), float(copied[1])) if events and copied else None


def _program(*names: str) -> Optional[str]:
    return next((place for name in names for place in [shutil.which(name, path=_SYSTEM_PATH)] if place), None)


def _first_line(command: "list[str]") -> str:
    return ((_run(command) or "").strip().splitlines() or [""])[0][:200]


def _run(command: "list[str]", cwd: str = "/") -> Optional[str]:
    """What *command* printed, None when it failed or took too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_COMPILE_LIMIT_S,
            check=False,
            cwd=cwd,
            env={"LC_ALL": "C", "PATH": _SYSTEM_PATH, "HOME": "/", "TMPDIR": cwd},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
