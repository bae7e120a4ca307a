"""The one collector of a cache: ended jobs, unused trees, what crashes left behind. Nothing that is held is touched."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional, Tuple

from rch.worker._jobdir import JobDir
from rch.worker._locks import open_lock, try_lock
from rch.worker._tree import purge
from rch.worker.cache import Cache
from rch.worker.roots import Root


def remove_job(cache: Cache, path: str) -> None:
    """Take an ended job's directory away; in the trash first, so that it is gone at once."""
    aside = os.path.join(cache.trash, "job-%s-%d" % (os.path.basename(path), time.monotonic_ns()))
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    purge(cache.trash)


def collect(
    cache: Cache, *, max_age_s: float, keep: int, dry_run: bool, job_age_s: Optional[float] = None
) -> Dict[str, Any]:
    """Remove job directories and trees unused for *max_age_s*; the *keep* youngest trees stay in any case.

    job_age_s: another age for job directories: those that are still there belong to jobs that nobody took home.
    Answers {"removed": paths below the cache, "bytes": size on disk}; with *dry_run* the same, and nothing goes.
    """
    removed: List[str] = []
    size = 0
    now = time.time()
    limit, job_limit = now - max_age_s, now - (max_age_s if job_age_s is None else job_age_s)
    for name in _names(cache.jobs):
        job = JobDir(os.path.join(cache.jobs, name))
        if (job.exists() and job.result() is None) or not _older(job.path, job_limit):
            continue
        removed.append("jobs/" + name)
        size += disk_usage(job.path)
        if not dry_run:
            remove_job(cache, job.path)
    for name in [name for _, name in sorted(_ages(cache), reverse=True)[keep:]]:
        root = Root(cache, name)
        used = float(root.meta().get("used_ns") or 0) / 1e9
        if used > limit:
            continue
        descriptor = open_lock(os.path.join(cache.root(name), "lock"))
        try:
            if not try_lock(descriptor):
                continue  # leased
            removed.append("roots/" + name)
            size += disk_usage(cache.root(name))
            if not dry_run:
                os.rename(cache.root(name), os.path.join(cache.trash, "root-%s-%d" % (name, time.monotonic_ns())))
        finally:
            os.close(descriptor)
    for path in _old_versions(cache, limit):
        removed.append("versions/" + os.path.basename(path))
        size += disk_usage(path)
        if not dry_run:
            os.rename(path, os.path.join(cache.trash, "version-%d" % time.monotonic_ns()))
    if not dry_run:
        purge(cache.trash)
    return {"removed": removed, "bytes": size}


def _old_versions(cache: Cache, limit: float) -> List[str]:
    """Versions of rch-wkr that nobody needs: not the current one, not the youngest other (the way back), none that a
    supervisor of a running job was started from, and none that was deployed after *limit*."""
    versions = os.path.join(cache.path, "versions")
    link = os.path.join(cache.path, "bin", "rch-wkr")
    current = os.path.dirname(os.path.realpath(link))
    others = [os.path.join(versions, name) for name in _names(versions)]
    others = sorted((p for p in others if os.path.realpath(p) != current), key=lambda p: os.lstat(p).st_mtime)
    if not others or not os.path.exists(link):
        return []
    running = _command_lines()
    return [p for p in others[:-1] if os.lstat(p).st_mtime < limit and not any(p in line for line in running)]


def _command_lines() -> List[str]:
    """Of every process that we may look at."""
    found = []
    for name in _names("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/cmdline" % name, "rb") as file:
                    found.append(os.fsdecode(file.read()))
            except OSError:
                continue
    return found


def disk_usage(path: str) -> int:
    """Bytes that *path* takes on disk, links not followed."""
    total = 0
    for parent, names, files in os.walk(path):
        for name in names + files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _ages(cache: Cache) -> List[Tuple[float, str]]:
    found = []
    for name in _names(cache.roots):
        root = Root(cache, name)
        if root.exists():
            found.append((float(root.meta().get("used_ns") or 0), name))
    return found


def _names(path: str) -> List[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def _older(path: str, limit: float) -> bool:
    """Newest of the directory and what lies directly in it: a job that just ended is young (lessons DG-02)."""
    try:
        newest = max([os.lstat(path).st_mtime, *(os.lstat(os.path.join(path, n)).st_mtime for n in os.listdir(path))])
    except FileNotFoundError:
        return False
    return newest < limit
