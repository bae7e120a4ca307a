"""``rch explain``: the decision about a line, segment by segment, and why."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

import click

from rch.cli.command import RchCommand, output
from rch.cli.setting import here, load
from rch.cli.terminal import Output, printable
from rch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rch.config.merged import Config


@click.command(cls=RchCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--batch", is_flag=True, help="Read one command per line from stdin.")
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED)
def explain(*, batch: bool, cmd: tuple[str, ...]) -> None:
    """Say of CMD what would be sent to a worker, what stays here, and why.

    One word is a whole shell line; several words are one command with its arguments. Options of rch explain stand
    before CMD. With --json one object, with --batch --json one object a line.
    """
    said = output()
    config = load()
    if batch:
        if cmd:
            raise UsageError("--batch reads the commands from stdin", what="--batch")
        for line in sys.stdin:
            _show(said, line.rstrip("\n"), config, batch=True)
        return
    if not cmd:
        raise UsageError("nothing to explain", what="CMD", hint="rch explain 'cargo build 2>&1 | tail'")
    _show(said, cmd[0] if len(cmd) == 1 else shlex.join(cmd), config, batch=False)


def _show(said: Output, command: str, config: Config, *, batch: bool) -> None:
    from rch.config.policy import policy_of
    from rch.intercept import explain_json, explain_text
    from rch.project import cargo_aliases

    def aliases(cwd: str) -> Mapping[str, tuple[str, ...]]:
        return cargo_aliases(cwd, os.environ)

    policy = policy_of(config)
    if said.json:
        found = explain_json(command, here(), policy, os.environ, aliases=aliases)
        if batch:
            said.record(found)
        else:
            said.document(found)
        return
    print(printable(explain_text(command, here(), policy, os.environ, aliases=aliases)))
