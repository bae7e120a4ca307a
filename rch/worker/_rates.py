"""What a benchmark does: four plain rates of this machine, each the best of a few rounds.

The best and not the mean: whatever else runs here only ever makes a round slower. A round lasts several periods of the
kernel's CPU quota (100 ms), so a machine that is granted half a CPU shows half the rate and not its burst.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
import time
import zlib
from typing import Any, Callable, Dict, Optional, Tuple

_MIB = 1 << 20
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_COMPILERS = ("cc", "gcc", "clang")
_COMPILE_LIMIT_S = 60.0
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

    *directory* lies on the file system that is measured. Some five seconds of one CPU.
    """
    found: Dict[str, Any] = {
        "cpu_mb_s": _best(5, _deflate) / 1e6,
        "memory_mb_s": _best(3, _copy) / 1e6,
        "disk_mb_s": _best(3, lambda: _write(directory)) / 1e6,
    }
    compiler = _program(*_COMPILERS)
    seconds = _compile(compiler, directory) if compiler is not None else None
    if compiler is not None and seconds is not None:
        found.update(compile_s=round(seconds, 4), compiler=_first_line([compiler, "--version"]))
    else:
        told = _sysbench()
        if told is not None:
            found["sysbench"] = {"events_per_s": told[0], "memory_mib_s": told[1]}
    return {name: round(value, 1) if name.endswith("_mb_s") else value for name, value in found.items()}


def _best(rounds: int, rate: Callable[[], float]) -> float:
    return max(rate() for _ in range(rounds))


def _deflate() -> float:
    """Bytes/s that zlib packs at level 6: branches, tables and memory, much as in a compiler."""
    words = random.Random(1)  # noqa: S311  the same text everywhere, no secret
    text = b" ".join(b"w%d" % words.randrange(4000) for _ in range(50_000))
    done = 0
    started = time.perf_counter()
    while time.perf_counter() - started < 0.5:
        done += len(text)
        zlib.compress(text, 6)
    return done / (time.perf_counter() - started)


def _copy() -> float:
    """Bytes/s of copying between two blocks that no cache holds."""
    source, target = bytearray(64 * _MIB), bytearray(64 * _MIB)
    done = 0
    started = time.perf_counter()
    while time.perf_counter() - started < 0.4:
        target[:] = source
        done += len(source)
    return done / (time.perf_counter() - started)


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


def _compile(compiler: str, directory: str) -> Optional[float]:
    """Seconds of the quickest of three compilations of our source; None where this compiler cannot do it."""
    with tempfile.TemporaryDirectory(prefix="compile-", dir=directory) as place:
        with open(os.path.join(place, "speed.c"), "w", encoding="ascii") as file:
            file.write(_PREAMBLE)
            file.writelines(_PAIR.format(i=i, length=16 + i % 7, prime=5 + i % 11) for i in range(_FUNCTIONS))
        best: Optional[float] = None
        for _ in range(3):
            started = time.perf_counter()
            if _run([compiler, "-std=c99", "-O2", "-c", "-o", "speed.o", "speed.c"], cwd=place) is None:
                return None
            seconds = time.perf_counter() - started
            best = seconds if best is None else min(best, seconds)
        return best


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
