"""serve -> supervisor: a process of its own session that has the slots and locks and outlives every connection."""

from __future__ import annotations

import os
import select
import subprocess
from typing import List

from rch.worker._jobdir import JobDir
from rch.worker.cache import own_command
from rch.worker.refusal import Refusal

READY_S = 15.0
"""A loaded machine may need seconds to start Python; a supervisor that says nothing by then is ended."""


def start_supervisor(job: JobDir, slots: List[int], locks: List[int]) -> None:
    """Start ``rch-wkr supervise`` with copies of the descriptors *slots* and *locks*, and wait until it can be found.

    The program forks once more, so that it is nobody's child and never a zombie of ours. Raises Refusal.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    handed = [*slots, *locks, theirs]
    command = [*own_command(), "supervise", job.path]
    command += ["--slots", ",".join(map(str, slots)), "--locks", ",".join(map(str, locks)), "--ready", str(theirs)]
    try:
        quiet = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        complaints = os.open(
            os.path.join(job.path, "supervisor.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            process = subprocess.Popen(
                command,
                stdin=quiet,
                stdout=complaints,
                stderr=complaints,
                pass_fds=handed,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(quiet)
            os.close(complaints)
        os.close(theirs)
        theirs = -1
        readable, _, _ = select.select([ours], [], [], READY_S)
        said = os.read(ours, 1) if readable else b""
        if said != b"R" and not readable:
            process.kill()
        process.wait()  # the first of the two: it ends at once
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    if said != b"R":
        raise Refusal("internal", "the supervisor of %s did not start: %s" % (job.name, _last_words(job)))


def _last_words(job: JobDir) -> str:
    try:
        with open(os.path.join(job.path, "supervisor.log"), "rb") as file:
            lines = file.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it said nothing"
