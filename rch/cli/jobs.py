"""``rch jobs|queue|logs|wait|fetch|cancel``: the jobs that rchd knows."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from rch.cli.api import Api
from rch.cli.command import RchCommand, output
from rch.cli.setting import api, bare_id
from rch.cli.terminal import duration, size
from rch.errors import NoSuchJob, UsageError
from rch.worker.protocol import STREAM_MARK, STREAM_STDERR, log_frames

FINAL = frozenset({"done", "failed", "timeout", "killed", "oom", "lost"})
POLL_S = 0.5
FETCH_S = 3600.0
"""Seconds for one ``rch fetch``: a return may be large, and rchd bounds the transfer by progress."""


@click.command(cls=RchCommand)
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Newest jobs shown.")
@click.option("--undelivered", is_flag=True, help="Only jobs whose products nobody has got.")
@click.option("--active", is_flag=True, help="Only jobs that have not ended.")
def jobs(*, limit: int, undelivered: bool, active: bool) -> None:
    """List jobs, the newest first."""
    wide = undelivered or active
    found = api().get("jobs", limit=1000 if wide else limit)
    if undelivered:
        found = [job for job in found if job.get("products") == "undelivered"]
    if active:
        found = [job for job in found if job.get("state") not in FINAL]
    _list(found[:limit], empty="no jobs")


@click.command(cls=RchCommand)
def queue() -> None:
    """List the jobs that wait for a worker, the oldest first."""
    found = [job for job in api().get("jobs", limit=1000) if job.get("state") == "queued"]
    _list(list(reversed(found)), empty="nothing waits")


@click.command(cls=RchCommand)
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--offset", default=0, type=click.IntRange(0), help="Begin at this offset of the log.")
def logs(*, job: str, follow: bool, offset: int) -> None:
    """Print the output of JOB: its stdout on stdout, its stderr on stderr, in the order in which it came.

    With --json one object per piece: {"offset", "stream", "time", "text"}; offset is the position after the piece.
    """
    said = output()
    # A follower may wait long for the next line; rchd answers at least every few seconds, or the connection ends.
    chunks = api().stream(
        "jobs", bare_id(job), "log", timeout_s=86_400.0 if follow else 60.0, offset=offset, follow=int(follow)
    )
    held = b""
    position = offset
    for chunk in chunks:
        held += chunk
        taken = 0
        for stream, time_ns, payload in log_frames(held):
            taken += 16 + len(payload)
            position += 16 + len(payload)
            if stream == STREAM_MARK:
                continue
            if said.json:
                name = "stderr" if stream == STREAM_STDERR else "stdout"
                text = payload.decode("utf-8", "replace")
                said.record({"offset": position, "stream": name, "time": time_ns / 1e9, "text": text})
            else:
                _write_all(2 if stream == STREAM_STDERR else 1, payload)
        held = held[taken:]


@click.command(cls=RchCommand)
@click.argument("job", nargs=-1, required=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), help="Give up after this many seconds, exit 124.")
def wait(*, job: tuple[str, ...], timeout_s: float | None) -> int:
    """Wait until JOB has ended.

    The exit status of one job is its own; of several 0 when all were green, else 1.
    """
    said = output()
    way = api()
    until = None if timeout_s is None else time.monotonic() + timeout_s
    ended = []
    for name in job:
        found = _wait_for(way, bare_id(name), until)
        if found is None:
            said.say(f"{name} has not ended after {timeout_s:g} s")
            return 124
        ended.append(found)
        if not said.json:
            said.say(_ending(found))
    if said.json:
        said.document(ended[0] if len(job) == 1 else ended)
    codes = [exit_status(found) for found in ended]
    return codes[0] if len(codes) == 1 else int(any(codes))


@click.command(cls=RchCommand)
@click.argument("job")
def fetch(*, job: str) -> int:
    """Complete the return of JOB: bring the products that were not delivered."""
    said = output()
    found = api().post("jobs", bare_id(job), "fetch", timeout_s=FETCH_S)
    if said.json:
        said.document(found)
    else:
        said.say(_ending(found))
    return 102 if found.get("products") == "undelivered" else 0


@click.command(cls=RchCommand)
@click.argument("job", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every job that has not ended.")
@click.option(
    "--signal", "name", default="cancel", show_default=True, help="TERM, INT, KILL, …; cancel: TERM, 5 s, KILL."
)
def cancel(*, job: tuple[str, ...], every: bool, name: str) -> None:
    """End JOB, or all jobs."""
    if every == bool(job):
        raise UsageError("give either jobs or --all", what="cancel", hint="rch jobs --active")
    _check_signal(name)
    way = api()
    chosen = [bare_id(one) for one in job]
    if every:
        chosen = [found["id"] for found in way.get("jobs", limit=1000) if found.get("state") not in FINAL]
    answers = []
    for one in chosen:
        try:
            answers.append(way.post("jobs", one, "signal", body={"signal": name}))
        except NoSuchJob:
            if not every:  # with --all it has ended and gone meanwhile
                raise
    said = output()
    if said.json:
        said.document(answers)
        return
    if not answers:
        said.say("nothing runs")
    for answer in answers:
        word = "cancelled" if answer.get("signalled") else f"has already ended ({answer.get('state')})"
        said.say(f"{answer.get('job')}: {word}")


def exit_status(job: Mapping[str, Any]) -> int:
    """The exit status that the caller of the job would have got (design.md 6.1)."""
    if job.get("products") == "undelivered" and job.get("state") == "done":
        return 102
    if job.get("state") == "timeout":
        return 124
    if job.get("signal"):
        return 128 + int(job["signal"])
    if job.get("exit_status") is not None:
        return int(job["exit_status"])
    return 0 if job.get("state") == "done" else 1


def _wait_for(way: Api, job: str, until: float | None) -> dict[str, Any] | None:
    while True:
        found: dict[str, Any] = way.get("jobs", job)
        if found.get("state") in FINAL:
            return found
        left = POLL_S if until is None else min(POLL_S, until - time.monotonic())
        if left <= 0:
            return None
        time.sleep(left)


def _ending(job: Mapping[str, Any]) -> str:
    how = f"signal {job['signal']}" if job.get("signal") else f"exit {exit_status(job)}"
    returned = job.get("returned") or {}
    files = f", {returned['files']} files, {size(returned.get('bytes'))}" if returned.get("files") else ""
    next_step = f"; next: rch fetch {job.get('id')}" if job.get("products") == "undelivered" else ""
    return f"{job.get('id')}: {job.get('state')} ({how}), products {job.get('products')}{files}{next_step}"


def _list(found: list[dict[str, Any]], *, empty: str) -> None:
    said = output()
    if said.json:
        said.document(found)
        return
    now = time.time()
    rows = []
    for job in found:
        times = job.get("times") or {}
        begun = times.get("started") or times.get("created")
        elapsed = duration((times.get("ended") or now) - begun) if begun else "-"
        command = job.get("command") or []
        text = shlex.join(command) if isinstance(command, list) else str(command)
        ended = job.get("state") in FINAL
        rows.append(
            (
                job.get("id", ""),
                job.get("state", ""),
                job.get("worker") or "-",
                exit_status(job) if ended else "-",
                job.get("products", ""),
                elapsed,
                job.get("project_name") or "-",
                text if len(text) <= 60 else text[:57] + "...",
            )
        )
    said.table(("JOB", "STATE", "WORKER", "EXIT", "PRODUCTS", "TIME", "PROJECT", "COMMAND"), rows, empty=empty)


def _check_signal(name: str) -> None:
    known = {"cancel", *(one.name.removeprefix("SIG") for one in signal.Signals)}
    if name not in known:
        raise UsageError(f"{name!r} is no signal", what=name, allowed=("cancel", "INT", "TERM", "KILL", "HUP"))


def _write_all(descriptor: int, data: bytes) -> None:
    stream = sys.stderr if descriptor == 2 else sys.stdout
    with contextlib.suppress(ValueError):
        stream.flush()
    binary = getattr(stream, "buffer", None)
    if binary is not None:
        binary.write(data)
        binary.flush()
        return
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
