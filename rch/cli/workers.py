"""``rch workers``: list, add, remove, probe, drain, enable, disable; what runs a playbook or reads other files has a
module of its own."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from typing import Any

import click

from rch.cli.api import Api, NotRunning
from rch.cli.command import RchGroup, output
from rch.cli.setting import api, load
from rch.cli.terminal import printable
from rch.errors import ConfigError, RchError, Unreachable, UsageError

PROBE_S = 60.0
"""Seconds for one probe: 5 s to connect on each plane, and room for a slow worker to look around."""


_ELSEWHERE = {
    "discover": "rch.cli.workers_discover:discover",
    "import": "rch.cli.workers_import:import_",
    "benchmark": "rch.cli.benchmark:workers_benchmark",
    "sync": "rch.cli.workers_sync:sync",
}


@click.group(cls=RchGroup, lazy=_ELSEWHERE)
def workers() -> None:
    """The machines that builds run on: hosts of the inventory's group rch_workers."""


@workers.command("list")
@click.option("--tag", "tags", multiple=True, help="a,b: with both; given twice: with either; !a: without a.")
def list_(*, tags: tuple[str, ...]) -> None:
    """List the workers with state, slots and toolchains."""
    said = output()
    found, running = all_workers(api())
    if tags:
        check_tags(tags, found)
        found = [worker for worker in found if has_tags(worker.get("tags", []), tags)]
    if said.json:
        said.document(found)
        return
    if not running:
        said.say("rchd is not running: states are unknown; next: rch daemon start")
    problem = _inventory_problem(running=running, empty=not found)
    if problem:
        said.say(f"the inventory cannot be used: {problem}; next: rch inventory show")
        if not found:
            return
    rows = []
    for worker in found:
        used, total = worker.get("slots_used"), worker.get("slots_total")
        score = worker.get("speed_score")
        tools = worker.get("toolchains") or {}
        rows.append(
            (
                worker.get("name", ""),
                worker.get("host", ""),
                worker.get("state", ""),
                f"{'?' if used is None else used}/{'?' if total is None else total}",
                "-" if score is None else f"{float(score):.0f}",
                ",".join(map(str, worker.get("tags", []))) or "-",
                "; ".join(str(shown) for _, shown in sorted(tools.items())) or "-",
                worker.get("reason") or "",
            )
        )
    headers = ("NAME", "HOST", "STATE", "SLOTS", "SCORE", "TAGS", "TOOLCHAINS", "REASON")
    said.table(headers, rows, empty="no workers; next: rch workers add, or rch init")


def _inventory_problem(*, running: bool, empty: bool) -> str:
    """Why what is listed is not what the inventory means, "" where nothing is known to be wrong with it."""
    from rch.fleet.inventory import find_inventory
    from rch.fleet.registry import load_registry

    if running:
        return str(api().get("status").get("registry_error") or "")
    if not empty:
        return ""
    try:
        source = find_inventory()
    except ConfigError:
        return ""  # none is there yet
    try:
        load_registry(load().places.state, source)
    except ConfigError as error:
        return error.message
    return ""


@workers.command()
@click.option("--id", "name", required=True, help="Name in the inventory.")
@click.option("--host", required=True, help="Address or name to connect to.")
@click.option("--user", help="The administrator's account (ansible_user).")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of sshd.")
@click.option("--identity-file", help="The administrator's key (ansible_ssh_private_key_file).")
@click.option("--slots", type=click.IntRange(1, 1024), help="Slots; without it one per CPU.")
@click.option("--priority", type=click.IntRange(0, 1000), help="Higher is preferred.")
@click.option("--tag", "tags", multiple=True, help="Group to put it into; may be given again.")
def add(
    *,
    name: str,
    host: str,
    user: str | None,
    port: int | None,
    identity_file: str | None,
    slots: int | None,
    priority: int | None,
    tags: tuple[str, ...],
) -> None:
    """Write a worker into the inventory. Comments and order of the file stay."""
    from rch.cli.inventory_file import add_host, inventory_file, replace_inventory

    said = output()
    for what, text in (("--id", name), ("--host", host), *(("--tag", tag) for tag in tags)):
        _check_name(what, text)
    key = key_file(identity_file or "") or None
    variables: dict[str, Any] = {"ansible_host": host}
    given = {
        "ansible_user": user,
        "ansible_port": port,
        "ansible_ssh_private_key_file": key,
        "rch_slots": slots,
        "rch_priority": priority,
    }
    variables.update({key: value for key, value in given.items() if value is not None})
    path = inventory_file(os.environ)
    replace_inventory(path, add_host(path, name, variables, tags), load().places.state, os.environ)
    probe_answer = _probe_quietly(api(), name)
    next_step = f"rch fleet apply --limit {name}"
    if said.json:
        said.document({"name": name, "inventory": path, "probe": probe_answer, "next": next_step})
        return
    said.line(f"{name} added to {path}")
    if probe_answer is not None and not probe_answer.get("ok"):
        from rch.cli.probe import failure

        said.say(f"{name} is not ready yet: {failure(probe_answer).removeprefix(f'{name}: ')}")
    said.say(f"next: {next_step}")


@workers.command()
@click.argument("name", nargs=-1, required=True)
@click.option("--purge", is_flag=True, help="First take from the host what rch has put there (playbook remove).")
@click.option("-K", "--ask-become-pass", is_flag=True, help="With --purge: ask for the password of sudo there.")
def remove(*, name: tuple[str, ...], purge: bool, ask_become_pass: bool) -> None:
    """Take workers out of the inventory. When --purge fails (exit status 5), they stay in it."""
    from rch.cli.inventory_file import inventory_file, remove_host, replace_inventory

    said = output()
    path = inventory_file(os.environ)
    for one in name:
        remove_host(path, one)  # all of them are there, or nothing is done
    if purge:
        from rch.cli.playing import play, report

        outcome = play("remove", limit=name, ask_password=ask_become_pass)
        report(outcome, with_json=False)
    removed = []
    for one in name:
        replace_inventory(path, remove_host(path, one), load().places.state, os.environ)
        removed.append(one)
        if not said.json:
            left = "" if purge else "; what rch has put there stays (with --purge it goes first)"
            said.line(f"{one} removed from {path}{left}")
    _refresh(api())
    if said.json:
        said.document({"removed": removed, "inventory": path})


@workers.command()
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every worker.")
def probe(*, name: tuple[str, ...], every: bool) -> int:
    """Look at workers (all of them without NAME) over both planes: what they are and have, what only one plane can do.

    Exit status 4 when one cannot be reached.
    """
    from rch.cli.probe import probe_lines

    said = output()
    way = api()
    answers = []
    for one in _chosen(way, name, every=every or not name):
        try:
            answer = way.post("workers", one, "probe", timeout_s=PROBE_S)
        except (NotRunning, UsageError):
            raise
        except RchError as error:
            why = {"ok": False, "error": error.message, "hint": error.hint, "class": error.label}
            answer = {"name": one, "ok": False, "control": why}
        answers.append({"name": one, **answer})
        if not said.json:
            for line in probe_lines(answers[-1]):
                print(printable(line))
    if said.json:
        said.document(answers)
    elif not answers:
        said.say("no workers; next: rch workers add, or rch init")
    return 0 if all(answer.get("ok") for answer in answers) else Unreachable.exit_status


@workers.command()
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every worker.")
@click.option("--wait", "wait_s", type=click.FloatRange(0), help="Seconds to wait until their jobs have ended.")
def drain(*, name: tuple[str, ...], every: bool, wait_s: float | None) -> int:
    """Give workers no new jobs."""
    way = api()
    chosen = _switch(way, "drain", name, every=every)
    if wait_s is None:
        return 0
    return wait_until_idle(way, chosen, wait_s)


def wait_until_idle(way: Api, chosen: Sequence[str], wait_s: float) -> int:
    """0 once none of *chosen* has a job, 1 when one still has after *wait_s* seconds."""
    until = time.monotonic() + wait_s
    said = output()
    while True:
        busy = [w["name"] for w in way.get("workers") if w.get("name") in chosen and w.get("active_jobs")]
        if not busy:
            return 0
        if time.monotonic() >= until:
            said.say(f"still busy after {wait_s:g} s: {', '.join(busy)}; next: rch jobs --active")
            return 1
        time.sleep(min(0.5, max(0.0, until - time.monotonic())))


@workers.command()
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every worker.")
def enable(*, name: tuple[str, ...], every: bool) -> None:
    """Give workers jobs again after drain or disable."""
    _switch(api(), "enable", name, every=every)


@workers.command()
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every worker.")
def disable(*, name: tuple[str, ...], every: bool) -> None:
    """Take workers out of the choice, also over restarts of rchd."""
    _switch(api(), "disable", name, every=every)


def all_workers(way: Api) -> tuple[list[dict[str, Any]], bool]:
    """All workers, and whether rchd was there to say how they are."""
    from rch.cli.status import declared_workers

    try:
        found: list[dict[str, Any]] = way.get("workers")
    except NotRunning:
        return declared_workers(), False
    return found, True


def has_tags(tags: Sequence[str], wanted: Sequence[str]) -> bool:
    """True when one of *wanted* ("a,b" both, "!a" without) holds for *tags* (checklist A12)."""
    own = set(tags)
    return any(
        all((part[1:] not in own) if part[:1] == "!" else (part in own) for part in _parts(one)) for one in wanted
    )


def check_tags(wanted: Sequence[str], found: Sequence[dict[str, Any]]) -> None:
    """Raise UsageError naming the tags that exist when *wanted* names one that no worker has."""
    known = {str(tag) for worker in found for tag in worker.get("tags", [])}
    for one in wanted:
        for part in _parts(one):
            tag = part.removeprefix("!")
            if tag not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise UsageError(
                    f"no worker has the tag {tag!r} (known: {listed})", what=tag, allowed=tuple(sorted(known))
                )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _chosen(way: Api, names: Sequence[str], *, every: bool) -> list[str]:
    if every == bool(names):
        raise UsageError("give either names or --all", what="workers", hint="rch workers list")
    if not every:
        return list(dict.fromkeys(names))
    return [str(worker["name"]) for worker in way.get("workers")]


def _switch(way: Api, verb: str, names: Sequence[str], *, every: bool) -> list[str]:
    said = output()
    chosen = _chosen(way, names, every=every)
    answers = [way.post("workers", one, verb) for one in chosen]
    if said.json:
        said.document(answers)
    else:
        for answer in answers:
            said.line(f"{answer.get('name')}: {answer.get('state')}")
    return chosen


def key_file(path: str) -> str:
    """The key that --identity-file names, as a whole path; "" for none. Raises UsageError where there is no file."""
    key = os.path.abspath(os.path.expanduser(path)) if path else ""
    if key and not os.path.isfile(key):
        raise UsageError(f"--identity-file {key} is no file", what="--identity-file", hint=f"ls -l {shlex.quote(key)}")
    return key


def _check_name(what: str, text: str) -> None:
    import re

    if not re.fullmatch(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\]-]{0,252}", text) or "{" in text:
        raise UsageError(f"{what} must be a plain name or address, got {text!r}", what=what)


def _probe_quietly(way: Api, name: str) -> dict[str, Any] | None:
    """What a probe of a worker that was just added says; None where nobody can probe now."""
    try:
        _refresh(way)
        found: dict[str, Any] = way.post("workers", name, "probe", timeout_s=PROBE_S)
    except NotRunning:
        return None
    except RchError as error:
        return {"ok": False, "control": {"ok": False, "error": error.message, "hint": error.hint}}
    return found


def _refresh(way: Api) -> None:
    """Tell rchd, if it runs, that the inventory has changed."""
    try:
        way.post("refresh")
    except NotRunning:
        return
