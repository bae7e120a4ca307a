"""Checks of what travelled last: a transfer that stopped, products that nobody has got."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rch.cli.api import Api
from rch.cli.check import Check, fail, ok, warn
from rch.cli.terminal import size
from rch.config.merged import load_config
from rch.errors import RchError
from rch.paths import AbsPath

STALLED = re.compile(r"(push|return) by rsync failed \((?:30|35)\)|transfer .*timed out")
"""rsync's exit statuses for nothing moving, and for a connection that never came."""

LARGEST = 5


def check_jobs(way: Api, state: AbsPath, *, with_workers: bool) -> Iterator[Check]:
    """The newest transfer that stopped, and jobs whose products nobody has got (coverage D-15)."""
    try:
        jobs = way.get("jobs", limit=1000)
    except RchError as error:
        yield fail("jobs", error.message, error.hint or "rch daemon restart")
        return
    yield from _undelivered(jobs, way if with_workers else None, state)
    yield from _stalled(jobs)


def _undelivered(jobs: Sequence[Mapping[str, Any]], way: Api | None, state: AbsPath) -> Iterator[Check]:
    waiting = [job for job in jobs if job.get("products") == "undelivered"]
    if not waiting:
        yield ok("undelivered", "no job waits to be fetched")
        return
    room = {str(job.get("worker")): _room(way, str(job.get("worker"))) for job in waiting}
    here = size(shutil.disk_usage(state).free) if os.path.isdir(state) else "unknown"
    for job in waiting:
        worker = str(job.get("worker"))
        text = f"{job.get('id')} on {worker}: its products were not delivered (free: {here} here, {room[worker]} there)"
        yield fail("undelivered", text, f"rch fetch {job.get('id')}; where the disk there is full, first: rch fleet gc")


def _room(way: Api | None, worker: str) -> str:
    if way is None:
        return "not asked"
    try:
        health = way.post("workers", worker, "probe", timeout_s=30.0).get("health")
    except RchError:
        return "unknown"
    free = health.get("disk_free") if isinstance(health, Mapping) else None
    return size(free) if isinstance(free, (int, float)) else "unknown"


def _stalled(jobs: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    ended = [job for job in jobs if STALLED.search(str(job.get("reason", "")))]
    if not ended:
        return
    job = max(ended, key=lambda one: _time(one, "created"))
    pushed = job.get("pushed")
    pushed = pushed if isinstance(pushed, Mapping) else {}
    count = pushed.get("bytes") if isinstance(pushed.get("bytes"), (int, float)) else 0
    seconds = (_time(job, "started") or _time(job, "ended")) - _time(job, "created")
    rate = f", {size(count / seconds)}/s" if seconds > 0 and count else ""
    moved = f"{size(count)} of {pushed.get('files', 0)} files had moved{rate}"
    cwd = str(job.get("cwd", ""))
    largest = largest_files(cwd)
    listed = (
        f"; largest under {cwd}: {', '.join(f'{path} {size(count)}' for path, count in largest)}" if largest else ""
    )
    text = f"{job.get('id')} on {job.get('worker')}: a transfer stopped ({moved}){listed}"
    remedy = "name what the build does not read in .rchignore, or: rch config set --user transfer.timeout_sec 600"
    yield warn("transfer", text, remedy)


def largest_files(directory: str) -> list[tuple[str, int]]:
    """The largest files that a push of the project at *directory* would carry, biggest first."""
    from rch.project.listing import list_root
    from rch.project.settings import ManifestRules

    try:
        config = load_config(directory, os.environ)
        rules = ManifestRules(exclude=config.exclude_patterns)
        top = AbsPath(os.path.realpath(config.project_root or _checkout(directory)))
        found = list_root(top, rules, ignored_inputs=False).files
    except (RchError, OSError):
        return []
    sizes = sorted(((status.st_size, path) for path, status in found.items()), reverse=True)
    return [(path, count) for count, path in sizes[:LARGEST]]


def _checkout(directory: str) -> str:
    """The git checkout that holds *directory*, else *directory* itself."""
    here = os.path.normpath(directory)
    while here != os.path.dirname(here):
        if os.path.lexists(os.path.join(here, ".git")):
            return here
        here = os.path.dirname(here)
    return directory


def _time(job: Mapping[str, Any], name: str) -> float:
    times = job.get("times")
    value = times.get(name) if isinstance(times, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else 0.0
