"""What a worker knows of itself: ``health`` (now, cheap), ``facts`` (what it is), ``jobs`` (what it does)."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import platform
import shutil
import subprocess
from typing import Any, Callable, Dict, List, Tuple

from rch.worker import _clock, speed
from rch.worker._identity import c_identity, go_identity, node_identity, rust_identity, rust_parts, rustup_name
from rch.worker._jobdir import JobDir
from rch.worker._version import VERSION
from rch.worker.cache import Cache, boot_id, own_build
from rch.worker.probe import sandbox_ability
from rch.worker.protocol import PROTOCOL
from rch.worker.slots import Slots

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_PROGRAMS = "rsync zstd bwrap tmux git cmake ninja make meson mold gcc clang cargo node bun ccache sccache"


def health(cache: Cache, slots: Slots) -> Dict[str, Any]:
    """Load, memory and disk in bytes, slots, number of jobs that run. No process is started."""
    memory = _memory()
    disk = os.statvfs(cache.path)
    return {
        "time_ns": _clock.now_ns(),
        "load1": round(os.getloadavg()[0], 2),
        "mem_total": memory.get("MemTotal", 0),
        "mem_available": memory.get("MemAvailable", 0),
        "disk_free": disk.f_bavail * disk.f_frsize,
        "disk_total": disk.f_blocks * disk.f_frsize,
        "slots_total": slots.total,
        "slots_used": len(slots.used()),
        "jobs": sum(1 for job in jobs(cache) if job["state"] in ("staging", "running")),
    }


def jobs(cache: Cache) -> List[Dict[str, Any]]:
    """Every job directory, whoever it belongs to."""
    found = []
    for name in sorted(os.listdir(cache.jobs)):
        job = JobDir(os.path.join(cache.jobs, name))
        if not job.exists():
            continue
        spec, about = job.spec(), job.about()
        result = job.result() or {}
        found.append(
            {
                "id": name,
                "state": job.state(),
                "started_ns": result.get("started_ns") or about.get("started_ns"),
                "command": spec.get("argv", []),
                "client": spec.get("client", ""),
            }
        )
    return found


def facts(cache: Cache, slots: Slots) -> Dict[str, Any]:
    """The content of rch.fact: what the machine is, which toolchains it has, whether a sandbox works. Some 100 ms."""
    works, why = sandbox_ability(fresh=True)
    memory = _memory()
    disk = os.statvfs(cache.path)
    measured = speed.kept(cache, machine()) or {}
    return {
        "installed": True,
        "rch_wkr": {"version": VERSION, "protocol": PROTOCOL, "build": own_build()},
        "python": platform.python_version(),
        "boot_id": boot_id(),
        "hostname": platform.node(),
        "os": _os_release(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "slots": slots.total,
        "memory_bytes": memory.get("MemTotal", 0),
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "cpu_model": _cpuinfo("model name"),
        "cpu_flags": sorted((_cpuinfo("flags") or _cpuinfo("Features")).split()),
        "cache": {"path": cache.path, "filesystem": filesystem(cache.path), "tmpfs": filesystem(cache.path) == "tmpfs"},
        "sandbox": {"ok": works, "why": why},
        "programs": {name: _version(name) for name in _PROGRAMS.split()},
        "toolchains": toolchains(cache),
        "packages": packages(),
        "compiler_cache": compiler_cache(cache),
        "speed_score": measured.get("speed_score"),
        "speed": {key: value for key, value in measured.items() if key not in ("machine", "measured_at")},
        "speed_measured_at": measured.get("measured_at"),
    }


def machine() -> Dict[str, Any]:
    """What a speed score holds for: another CPU, memory or compiler makes it void."""
    compiler = next((place for name in ("cc", "gcc", "clang") if (place := shutil.which(name, path=_SYSTEM_PATH))), "")
    return {
        "cpu_model": _cpuinfo("model name"),
        "cores": len(os.sched_getaffinity(0)),
        # In quarters of a GiB: another kernel leaves a little more or less of the same memory.
        "memory_mib": round(_memory().get("MemTotal", 0) / (1 << 28)) << 8,
        "compiler": os.path.realpath(compiler) if compiler else "",
    }


_PACKAGE_RECORDS = (
    "/var/lib/dpkg/status",
    "/var/lib/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/var/lib/rpm/Packages",
    "/lib/apk/db/installed",
)


def packages() -> str:
    """A word that changes whenever a package comes or goes: what a build lacked yesterday may be there today."""
    found = []
    for path in _PACKAGE_RECORDS:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found.append((path, status.st_size, status.st_mtime_ns))
    return hashlib.blake2b(repr(found).encode("ascii"), digest_size=8).hexdigest() if found else ""


def toolchains(cache: Cache) -> Dict[str, List[Dict[str, Any]]]:
    """Tool -> rows of {identity, shown, binds}, see rch/fleet/toolchains.py. A compiler without an answer is absent.

    Rows of Rust also have the toolchain's ``name``, ``components`` and ``targets``, as they are found now.
    """
    rows = _written(cache)
    for tool, places, own in (
        ("rust", ("/usr/local/bin/rustc", "/usr/bin/rustc"), rust_identity),
        ("go", ("/usr/local/go/bin/go", "/usr/local/bin/go", "/usr/bin/go", "/usr/lib/go/bin/go"), go_identity),
        ("node", ("/usr/local/bin/node", "/usr/bin/node"), node_identity),
    ):
        # Programs of the distribution; what lies in this account's home is not offered, jobs never see that home.
        for place in places:
            said = own(place) if os.path.exists(place) else ""
            if said and said not in [row["identity"] for row in rows.get(tool, [])]:
                row: Dict[str, Any] = {"identity": said, "shown": said.split("\n")[0], "binds": {}}
                if tool == "rust":
                    row["sysroot"] = os.path.dirname(os.path.dirname(os.path.realpath(place)))
                rows.setdefault(tool, []).append(row)
    for row in rows.get("rust", []):
        row["name"] = rustup_name(row["sysroot"])
        row.update(rust_parts(row["binds"].get(row["sysroot"], row["sysroot"])))
    c = c_identity(_SYSTEM_PATH)
    if c:
        rows["c"] = [{"identity": c["identity"], "shown": c["shown"], "binds": {}}]
    return rows


def _written(cache: Cache) -> Dict[str, List[Dict[str, Any]]]:
    """What the toolchain roles wrote down, of which the tool still is the one that was written down.

    Per file and tool a list of rows {identity, shown, sysroot, binds, path}; sysroot: where it lies at the workstation;
    path: directories (":" between) that go behind the caller's PATH, where the caller's own leads to no program here.
    """
    rows: Dict[str, List[Dict[str, Any]]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(cache.path), "facts.d", "toolchains", "*.json"))):
        try:
            with open(path, encoding="utf-8") as file:
                written = json.load(file)
        except (OSError, ValueError):
            continue
        for tool, (program, own) in _ASKED.items():
            listed = written.get(tool, []) if isinstance(written, dict) else []
            for row in listed if isinstance(listed, list) else []:
                if not isinstance(row, dict) or not isinstance(row.get("binds"), dict) or row in rows.get(tool, []):
                    continue
                place = row["binds"].get(row.get("sysroot"), row.get("sysroot"))
                if isinstance(place, str) and own(os.path.join(place, program)) == row.get("identity"):
                    rows.setdefault(tool, []).append(row)
    return rows


_ASKED: Dict[str, Tuple[str, Callable[[str], str]]] = {
    "rust": ("bin/rustc", rust_identity),
    "go": ("bin/go", go_identity),
    "node": ("bin/node", node_identity),
}
"""Tool -> where its program lies below a toolchain's directory, and the question to it."""


def is_program(path: Any) -> bool:
    """A file that a job could start; its account may see less than the job's user, never more."""
    return isinstance(path, str) and path.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK)


def compiler_cache(cache: Cache) -> Dict[str, Any]:
    """What role compiler_cache wrote down for jobs, with the version line of each wrapper; {} where one is missing."""
    try:
        with open(os.path.join(cache.path, "facts.d", "compiler_cache.json"), encoding="utf-8") as file:
            written = json.load(file)
    except (OSError, ValueError):
        return {}
    if not isinstance(written, dict):
        return {}
    versions = {}
    for program in {written.get("rustc_wrapper"), written.get("cc_wrapper")} - {"", None}:
        said = _first_line([str(program), "--version"])
        if not said:
            return {}
        versions[str(program)] = said
    return {**written, "versions": versions} if versions else {}


def filesystem(path: str) -> str:
    """Type of the file system that *path* lies on, e.g. ext4; "" when it cannot be told."""
    real = os.path.realpath(path)
    best: Tuple[int, str] = (-1, "")
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.split(" ")
                point = fields[1].replace("\\040", " ")
                if real == point or real.startswith(point.rstrip("/") + "/"):
                    best = max(best, (len(point), fields[2]))
    except OSError:
        return ""
    return best[1]


def _os_release() -> Dict[str, str]:
    values = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    key, equals, value = line.strip().partition("=")
                    if equals:
                        values[key.lower()] = value.strip("\"'")
        except OSError:
            continue
        break
    return {key: values.get(key, "") for key in ("id", "version_id", "pretty_name")}


def _memory() -> Dict[str, int]:
    found = {}
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in ("MemTotal", "MemAvailable"):
                    found[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError):
        return found
    return found


def _cpuinfo(field: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == field:
                    return value.strip()
    except OSError:
        pass
    return ""


def _version(name: str) -> str:
    """First line of ``name --version``; "" where it is not installed."""
    program = shutil.which(name, path=os.environ.get("PATH", "") + ":" + _SYSTEM_PATH)
    if program is None:
        return ""
    return _first_line([program, "-V" if name == "tmux" else "--version"])


def _first_line(command: List[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
            cwd="/",
            env={"LC_ALL": "C", "PATH": _SYSTEM_PATH, "HOME": "/"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines() if done.returncode == 0 else []
    return lines[0].strip()[:200] if lines else ""
