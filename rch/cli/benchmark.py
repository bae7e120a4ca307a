"""``rch workers benchmark`` and ``rch benchmark``: how fast the machines are, 0 to 100."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from rch.cli.command import RchCommand, output
from rch.cli.playing import ASK_PASSWORD, play, report, tell_rchd
from rch.cli.setting import api, load
from rch.cli.terminal import Output
from rch.errors import UsageError

_PARTS = {"compile": "compile_score", "cpu": "cpu_score", "memory": "memory_score", "disk": "disk_io_score"}
_HEADERS = ("NAME", "SCORE", *(name.upper() for name in _PARTS))


@click.command("benchmark", cls=RchCommand)
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every worker.")
@ASK_PASSWORD
def workers_benchmark(*, name: tuple[str, ...], every: bool, ask_become_pass: bool) -> int:
    """Measure workers (all of them without NAME) and keep the scores as facts."""
    if name and every:
        raise UsageError("give either names or --all", what="workers", hint="rch workers list")
    said = output()
    outcome = play("benchmark", limit=name, ask_password=ask_become_pass)
    tell_rchd(api())
    _show(said, _of_workers(name))
    report(outcome, with_json=False)
    return 0


@click.command(cls=RchCommand)
@ASK_PASSWORD
def benchmark(*, ask_become_pass: bool) -> int:
    """Measure every worker and this machine. With --json an array of {"name", "score", "compile", "cpu", "memory",
    "disk"}."""
    said = output()
    outcome = play("benchmark", ask_password=ask_become_pass)
    tell_rchd(api())
    _show(said, [*_of_workers(()), _of_this_machine()])
    report(outcome, with_json=False)
    return 0


def _of_workers(names: Sequence[str]) -> list[dict[str, Any]]:
    from rch.fleet.registry import read_registry

    workers = read_registry(load().places.state).workers
    return [_row(name, workers[name].observed.facts) for name in names or workers]


def _of_this_machine() -> dict[str, Any]:
    """What the playbook's own play measured here; it keeps the score where a worker would."""
    from rch.worker import facts, speed
    from rch.worker.cache import Cache

    place = os.path.join(load().places.state, "local-worker", "here")
    found = speed.kept(Cache(place), facts.machine()) if os.path.isdir(place) else None
    return _row("here", {"speed_score": found["speed_score"], "speed": found} if found else {})


def _row(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    parts = facts.get("speed")
    parts = parts if isinstance(parts, Mapping) else {}
    return {
        "name": name,
        "score": facts.get("speed_score"),
        **{short: parts.get(long) for short, long in _PARTS.items()},
    }


def _show(said: Output, rows: Sequence[Mapping[str, Any]]) -> None:
    if said.json:
        said.document(rows)
        return
    shown = [[("-" if value is None else value) for value in row.values()] for row in rows]
    said.table(_HEADERS, shown, empty="no workers; next: rch workers add, or rch init")
