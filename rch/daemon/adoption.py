"""After a restart of rchd: jobs whose records are all that is left of them here are taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rch.config.places import Places
from rch.daemon import places as rooms
from rch.daemon.joblog import JobLog
from rch.daemon.pool import Member, Pool
from rch.daemon.running import Running
from rch.daemon.store import Job, Store
from rch.daemon.underway import Underway
from rch.paths import AbsPath, RelPath
from rch.project.model import Root
from rch.toolchains import FREE_COMMAND, kind_named


def adopt_unfinished(places: Places, store: Store, pool: Pool, underway: Underway) -> None:
    """Find every job that was under way and follow it again; what had not started then is lost."""
    pool.refresh()
    for job in store.unfinished():
        member = pool.member(job.worker)
        if member is None or job.state == "queued" or not job.roots:
            job.state = "lost"
            job.reason = "rchd stopped meanwhile" if job.worker == "here" else "rchd stopped before it started"
            store.put_job(job)
            continue
        underway.follow(revived(job, member, places))


def revived(job: Job, member: Member, places: Places) -> Running:
    """The job as its record has it: what was pushed and what is locked there has to be asked for again."""
    return Running(
        job=job,
        kind=FREE_COMMAND if job.kind == FREE_COMMAND.name else kind_named(job.kind),
        member=member,
        log=JobLog(rooms.job_dir(places, job.id)),
        roots=tuple(root_from(r) for r in job.roots),
        pushed=None,
        locked=False,
    )


def root_from(row: Mapping[str, Any]) -> Root:
    """A Root as a job's record holds it."""
    return Root(
        path=AbsPath(str(row["path"])),
        real=AbsPath(str(row["real"])),
        key=str(row["key"]),
        build_dirs=tuple(RelPath(str(d)) for d in row.get("build_dirs", ())),
    )
