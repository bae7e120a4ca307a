"""Running playbooks from the command line: which workers, the bar on a terminal, one line at the end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from rch.cli.api import Api, NotRunning
from rch.cli.asking import answered
from rch.cli.command import output
from rch.cli.setting import load
from rch.cli.terminal import Output, duration, printable, wants_colour
from rch.errors import UsageError
from rch.fleet.run import Outcome, Progress, run_playbook

BAR = "█" * 16

ASK_PASSWORD = click.option(
    "-K", "--ask-become-pass", is_flag=True, help="Ask for the password of sudo on the workers."
)
LIMIT = click.option("-l", "--limit", multiple=True, metavar="NAME", help="This worker only; may be given again.")


def play(
    name: str,
    *,
    limit: Sequence[str] = (),
    check: bool = False,
    variables: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    ask_password: bool = False,
    root: str = "",
    inventory: str = "",
    shown: bool = True,
) -> Outcome:
    """Run playbook *name*, showing where it is; the outcome is not judged.

    limit: worker names, checked. inventory: another source than the user's. shown: print the one line at the end.
    """
    from rch.fleet.inventory import find_inventory

    said = output()
    state = load().places.state
    os.makedirs(state, mode=0o700, exist_ok=True)
    source = inventory or find_inventory()
    if not inventory:
        _check_names(state, limit, source)
    password = answered(_ask_password) if ask_password else None
    with _bar(said, name) as tell:
        outcome = run_playbook(
            name,
            state=state,
            inventory=source,
            limit=limit,
            check=check,
            variables=variables,
            tags=tags,
            become_password=password,
            root=root,
            on_progress=tell,
            on_text=_aloud if said.verbose else lambda _: None,
        )
    if outcome.status == "canceled":
        stays = "nothing was changed" if check else "what was done stays, running it again completes it"
        said.say(f"interrupted; {stays} (all of it: {outcome.log})")
        raise click.Abort
    if shown:
        said.say(summary(outcome))
    return outcome


def _ask_password() -> str:
    return str(click.prompt("Password of sudo on the workers", hide_input=True, err=True))


def summary(outcome: Outcome) -> str:
    """``ansible-playbook site.yml  ████  4 hosts  ok=212 changed=96  2 m 41 s``."""
    hosts = [name for name in outcome.hosts if name != "localhost"] or list(outcome.hosts)
    failed = outcome.count("failures") + outcome.count("dark")
    counts = f"ok={outcome.count('ok')} changed={outcome.count('changed')}" + (f" failed={failed}" if failed else "")
    noun = "host" if len(hosts) == 1 else "hosts"
    bar = f"{BAR}  " if sys.stderr.isatty() else ""
    return f"ansible-playbook {outcome.playbook}.yml  {bar}{len(hosts)} {noun}  {counts}  {duration(outcome.seconds)}"


def tell_rchd(way: Api) -> None:
    """Tell rchd, if it runs, that inventory or facts have changed."""
    with contextlib.suppress(NotRunning):
        way.post("refresh")


def _check_names(state: str, limit: Sequence[str], source: str) -> None:
    from rch.fleet.registry import load_registry
    from rch.paths import AbsPath

    known = load_registry(AbsPath(state), AbsPath(source)).workers
    if not known:
        raise UsageError(f"{source} has no workers", what="rch_workers", hint="rch init, or rch workers add")
    for name in limit:
        if name not in known:
            raise UsageError(
                f"no worker {name!r} (known: {', '.join(known)})",
                what=name,
                allowed=tuple(known),
                hint="rch workers list",
            )


def _aloud(text: str) -> None:
    print(printable(text.replace("\r", "")), file=sys.stderr)  # Ansible writes to a terminal of the runner's


@contextlib.contextmanager
def _bar(said: Output, name: str) -> Iterator[Callable[[Progress], None]]:
    """What shows a run's progress: a moving bar on a terminal, nothing elsewhere."""
    if said.quiet or said.verbose or said.json or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, no_color=not wants_colour(), highlight=False)
    # How many tasks there will be is known when the last include has been read: the bar moves and does not fill.
    columns = (
        TextColumn(f"ansible-playbook {name}.yml"),
        BarColumn(bar_width=len(BAR)),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        line = bars.add_task("starting", total=None)

        def tell(now: Progress) -> None:
            what = f"{now.role}: {now.task}" if now.role else now.task
            failed = f" failed={now.failed}" if now.failed else ""
            bars.update(line, description=f"ok={now.ok} changed={now.changed}{failed}  {printable(what)[:60]}")

        yield tell


def report(outcome: Outcome, *, with_json: bool = True) -> None:
    """With ``--json`` the outcome as a document; then the error, if a host failed."""
    said = output()
    if said.json and with_json:
        said.document(outcome.as_json())
    for failure in outcome.failures[1:]:
        said.say(f"{failure.host}: {failure.message}")
    outcome.check()
