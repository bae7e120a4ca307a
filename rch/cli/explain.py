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
from rch.errors import NotOffloadable, UsageError
from rch.paths import AbsPath

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rch.config.merged import Config
    from rch.intercept.decision import Segment


@click.command(cls=RchCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--batch", is_flag=True, help="Read one command per line from stdin.")
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED)
def explain(*, batch: bool, cmd: tuple[str, ...]) -> None:
    """Say of CMD what would be sent to a worker, what stays here, and why.

    One word is a whole shell line; several words are one command with its arguments. Options of rch explain stand
    before CMD. With --json one object, with --batch --json one object a line. Without --batch the project is looked at
    too: "would be local" tells why it keeps a build here that the line alone would send out.
    """
    said = output()
    config = load()
    explainer = _Explainer(said, config)
    if batch:
        if cmd:
            raise UsageError("--batch reads the commands from stdin", what="--batch")
        for line in sys.stdin:
            explainer.show(line.rstrip("\n"), batch=True)
        return
    if not cmd:
        raise UsageError("nothing to explain", what="CMD", hint="rch explain 'cargo build 2>&1 | tail'")
    explainer.show(cmd[0] if len(cmd) == 1 else shlex.join(cmd), batch=False)


class _Explainer:
    """What lines are judged by, and where the answers go."""

    def __init__(self, said: Output, config: Config) -> None:
        self._said = said
        self._config = config
        self._cwd = here()

    def show(self, command: str, *, batch: bool) -> None:
        from rch.config.policy import policy_of
        from rch.intercept import explain_json, explain_text
        from rch.intercept.explain import nothing_known

        policy = policy_of(self._config)
        stays = nothing_known if batch else self._stays
        if not self._said.json:
            text = explain_text(command, self._cwd, policy, os.environ, aliases=self._aliases, stays=stays)
            print(printable(text))
            return
        found = explain_json(command, self._cwd, policy, os.environ, aliases=self._aliases, stays=stays)
        if batch:
            self._said.record(found)
        else:
            self._said.document(found)

    def _aliases(self, cwd: str) -> Mapping[str, tuple[str, ...]]:
        from rch.project import cargo_aliases

        return cargo_aliases(cwd, os.environ)

    def _stays(self, segment: Segment) -> tuple[str, str]:
        """What rchd's preflight and search for roots would say; nothing where the line does not tell its directory."""
        from rch.daemon.deciding import checked_words
        from rch.daemon.projects import settings_of
        from rch.project import discover_roots

        if segment.kind is None or not segment.argv or not segment.cwd:
            return "", ""
        cwd, env = AbsPath(segment.cwd), {**os.environ, **segment.env}
        try:
            words = checked_words(segment.argv, segment.kind, cwd, env)
            discover_roots(
                words, segment.kind, cwd, env, settings_of(self._config), state_dir=self._config.places.state
            )
        except NotOffloadable as reason:
            return reason.code, reason.message
        return "", ""
