"""``rch status``: what runs, where, and how the workers are; says so plainly when rchd does not run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import click

from rch.cli.api import Api, NotRunning
from rch.cli.command import RchCommand, output
from rch.cli.setting import api, load
from rch.cli.terminal import Output, colour, duration, printable

WATCH_S = 2.0
"""Seconds between two looks of --watch."""


@click.command(cls=RchCommand)
@click.option("-w", "--workers", is_flag=True, help="Workers with tags, toolchains and the reason of their state.")
@click.option("-j", "--jobs", is_flag=True, help="The jobs that run or wait.")
@click.option("-m", "--metrics", is_flag=True, help="Figures of today and of all time.")
@click.option("--watch", is_flag=True, help="Show it again every 2 seconds until interrupted.")
def status(*, workers: bool, jobs: bool, metrics: bool, watch: bool) -> int:
    """Show the daemon, the workers and the running jobs.

    Exit status 0 when rchd runs, 1 when it does not.
    """
    said = output()
    way = api()
    while True:
        code = _once(said, way, workers=workers, jobs=jobs, metrics=metrics, clear=watch)
        if not watch:
            return code
        time.sleep(WATCH_S)


def _once(said: Output, way: Api, *, workers: bool, jobs: bool, metrics: bool, clear: bool) -> int:
    try:
        found = way.get("status")
    except NotRunning:
        found = None
    if workers and found is not None:
        from rch.cli.drift import drift_of_workers

        names = [str(worker.get("name", "")) for worker in found.get("workers", [])]
        drift = drift_of_workers(load().places.state, names, os.environ)
        found = {**found, "workers": [{**w, "drift": drift.get(w.get("name"), [])} for w in found.get("workers", [])]}
    if said.json:
        document = {"running": True, **found} if found is not None else stopped_status()
        if clear:
            said.record(document)
        else:
            said.document(document)
        return 0 if found is not None else 1
    lines = tree(found, jobs_only=jobs and not workers, details=workers, metrics=metrics)
    if clear:
        click.clear()
    for line in lines:
        print(line)
    if found is None:
        said.say("rchd is not running; builds start it, or: rch daemon start")
    return 0 if found is not None else 1


def stopped_status() -> dict[str, Any]:
    """The document of ``rch status --json`` when rchd does not run: what the files here can tell."""
    return {
        "running": False,
        "uptime_seconds": 0,
        "active_compilations": 0,
        "total_compilations": 0,
        "workers": declared_workers(),
    }


def declared_workers() -> list[dict[str, Any]]:
    """Worker objects from the compiled registry, without asking anyone; none where there is no registry."""
    from rch.errors import ConfigError
    from rch.fleet.registry import read_registry
    from rch.fleet.toolchains import shown

    try:
        registry = read_registry(load().places.state)
    except ConfigError:
        return []
    found = []
    for worker in registry.workers.values():
        facts = worker.observed.facts
        total = worker.declared.slots or facts.get("cores")
        found.append(
            {
                "name": worker.name,
                "host": worker.declared.host,
                "state": "unknown" if worker.declared.enabled else "disabled",
                "slots_total": total if isinstance(total, int) else None,
                "slots_used": None,
                "speed_score": facts.get("speed_score"),
                "tags": list(worker.declared.tags),
                "toolchains": shown(facts),
                "last_heartbeat": None,
                "active_jobs": [],
                "reason": "rchd is not running" if worker.declared.enabled else "rch_enabled is false in the inventory",
            }
        )
    return found


def tree(found: Mapping[str, Any] | None, *, jobs_only: bool, details: bool, metrics: bool) -> list[str]:
    """The lines of the text form (coverage C-20); *found* is rchd's document, None when it does not run."""
    if jobs_only and found is not None:
        running = list(found.get("jobs", []))
        return ["Active jobs", *_branches([job_line(job) for job in running] or ["none"])]
    workers = declared_workers() if found is None else list(found.get("workers", []))
    branches: list[str | tuple[str, list[str]]] = []
    if found is None:
        branches.append("Daemon: not running")
    else:
        branches.append(f"Daemon: running (pid {found.get('pid', '?')}, up {duration(found.get('uptime_seconds'))})")
        branches.append(f"Active compilations: {found.get('active_compilations', 0)}")
        if found.get("registry_error"):
            branches.append(colour("Inventory: ", "fail") + printable(str(found["registry_error"])))
    lines = []
    for worker in workers:
        lines.append(worker_line(worker))
        if details:
            lines.extend("    " + line for line in _details(worker))
        lines.extend("    " + job_line(job) for job in worker.get("active_jobs", []))
    branches.append(("Workers:", lines or ["none (rch workers add, or rch init)"]))
    queued = [job for job in (found or {}).get("jobs", []) if job.get("state") == "queued"]
    if queued:
        branches.append(("Queue:", [job_line(job) for job in queued]))
    if metrics and found is not None:
        branches.append(("Metrics:", _metrics(found)))
    return ["rch status", *_branches(branches)]


def worker_line(worker: Mapping[str, Any]) -> str:
    """``css (203.0.113.20): healthy, 8/32 slots, score 87.3``, and why where something is wrong."""
    state = str(worker.get("state", "unknown"))
    used, total = worker.get("slots_used"), worker.get("slots_total")
    slots = f"{'?' if used is None else used}/{'?' if total is None else total} slots"
    score = worker.get("speed_score")
    line = printable(f"{worker.get('name')} ({worker.get('host')}): ") + colour(printable(state), state) + f", {slots}"
    if score is not None:
        line += f", score {float(score):.1f}"
    if worker.get("reason"):
        line += f", {printable(str(worker['reason']))}"
    return line


def job_line(job: Mapping[str, Any]) -> str:
    """``j-1: cargo build (css, 4 slots, 45 s)``."""
    import shlex

    command = job.get("command") or []
    text = shlex.join(command) if isinstance(command, list) else str(command)
    if len(text) > 80:
        text = text[:77] + "..."
    times = job.get("times") or {}
    begun = times.get("started") or times.get("created")
    elapsed = duration(time.time() - begun) if begun else "-"
    slots = job.get("slots") or 0
    where = job.get("worker") or job.get("state", "")
    return printable(f"{job.get('id')}: {text} ({where}, {slots} {'slot' if slots == 1 else 'slots'}, {elapsed})")


def _details(worker: Mapping[str, Any]) -> list[str]:
    lines = []
    if worker.get("tags"):
        lines.append("tags: " + ", ".join(map(str, worker["tags"])))
    for tool, shown in sorted((worker.get("toolchains") or {}).items()):
        lines.append(f"{tool}: {shown}")
    lines += [f"drift: {line}; next: rch workers sync {worker.get('name')}" for line in worker.get("drift", [])]
    if worker.get("last_heartbeat"):
        lines.append(f"last heartbeat: {worker['last_heartbeat']}")
    if worker.get("clock_offset_ms") is not None:
        lines.append(f"clock: {float(worker['clock_offset_ms']):+.1f} ms")
    return [printable(line) for line in lines]


def _metrics(found: Mapping[str, Any]) -> list[str]:
    today = found.get("today") or {}
    lines = [
        f"builds today: {today.get('builds', 0)}, {today.get('remote', 0)} remote",
        f"CPU kept off this machine today: {duration(today.get('cpu_seconds', 0))}",
        f"builds in all: {found.get('total_compilations', 0)}",
    ]
    for state, count in sorted(((found.get("metrics") or {}).get("jobs_by_state") or {}).items()):
        lines.append(f"{state}: {count}")
    return [printable(line) for line in lines]


def _branches(items: list[Any], indent: str = "") -> list[str]:
    """Lines of a tree; a pair is a branch with leaves. A leaf that begins with spaces belongs to the one before."""
    lines = []
    for index, item in enumerate(items):
        last = index == len(items) - 1
        text, leaves = item if isinstance(item, tuple) else (item, [])
        lines.append(f"{indent}{'└── ' if last else '├── '}{text}")
        inner = indent + ("    " if last else "│   ")
        own = [i for i, leaf in enumerate(leaves) if not leaf.startswith("    ")]
        for i, leaf in enumerate(leaves):
            if leaf.startswith("    "):
                lines.append(inner + ("│   " if any(j > i for j in own) else "    ") + leaf.strip())
            else:
                lines.append(inner + ("└── " if i == own[-1] else "├── ") + leaf)
    return lines
