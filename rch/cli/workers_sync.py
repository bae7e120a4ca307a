"""``rch workers sync``: toolchains of the workers as the lock or this machine has them."""

from __future__ import annotations

from typing import Any

import click

from rch.cli.command import RchCommand, output
from rch.cli.playing import ASK_PASSWORD, play, report, tell_rchd
from rch.cli.setting import api, load
from rch.errors import UsageError


@click.command(cls=RchCommand)
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every worker.")
@click.option("--check", is_flag=True, help="Change nothing; only say what differs.")
@ASK_PASSWORD
def sync(*, name: tuple[str, ...], every: bool, check: bool, ask_become_pass: bool) -> int:
    """Bring toolchains to workers (all of them without NAME), in parallel; versions found per worker at the end."""
    from rch.fleet.registry import read_registry
    from rch.fleet.toolchains import shown

    if name and every:
        raise UsageError("give either names or --all", what="workers", hint="rch workers list")
    said = output()
    outcome = play("toolchains", limit=name, check=check, ask_password=ask_become_pass)
    tell_rchd(api())
    workers = read_registry(load().places.state).workers
    rows: dict[str, dict[str, Any]] = {one: dict(shown(workers[one].observed.facts)) for one in name or workers}
    if said.json:
        said.document({**outcome.as_json(), "toolchains": rows})
    else:
        for one, tools in rows.items():
            said.line(f"{one}: {', '.join(str(text) for _, text in sorted(tools.items())) or 'no toolchain'}")
        for change in outcome.changes if check else ():
            said.line(f"{change.host}: {change.what}{f': {change.detail}' if change.detail else ''}")
    report(outcome, with_json=False)
    return 0
