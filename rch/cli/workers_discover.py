"""``rch workers discover``: machines that this user logs in to already, looked at, and added when asked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import click

from rch.cli.asking import answered
from rch.cli.command import RchCommand, output
from rch.cli.inventory_file import inventory_file, merge_hosts, replace_inventory
from rch.cli.playing import tell_rchd
from rch.cli.setting import api, load
from rch.cli.terminal import Output, printable
from rch.errors import UsageError
from rch.fleet.discover import Candidate, Found, probe_all, variables_of
from rch.fleet.discover import discover as find_candidates

SSH_CONFIG = click.option(
    "-F", "--ssh-config", type=click.Path(exists=True, dir_okay=False), help="Instead of ~/.ssh/config."
)


EMBEDDED = click.option(
    "--embedded", is_flag=True, help="Install nothing on the workers; jobs run as USER (rch_embedded)."
)


@click.command(cls=RchCommand)
@SSH_CONFIG
@EMBEDDED
@click.option("--add", is_flag=True, help="Write the usable ones into the inventory, after a choice.")
@click.option("-y", "--yes", is_flag=True, help="With --add: all of them, without asking.")
@click.argument("name", nargs=-1)
def discover(*, ssh_config: str | None, embedded: bool, add: bool, yes: bool, name: tuple[str, ...]) -> int:
    """Look at the hosts of ~/.ssh/config and of 'ssh' aliases in shell rc files (all of them without NAME).

    Files are parsed, never run. Each host gets one login, without questions; 5 s to connect. With --json an array of
    {"name", "host", "port", "user", "identity_file", "source", "system", "cores", "rust", "c", "administrator",
    "usable", "reason"}.
    """
    said = output()
    config = os.path.abspath(ssh_config) if ssh_config else ""
    candidates = candidates_here(config)
    if name:
        known = {one.name: one for one in candidates}
        for one in name:
            if one not in known:
                listed = ", ".join(known) or "none"
                raise UsageError(f"no host or alias {one!r} here (known: {listed})", what=one, allowed=tuple(known))
        candidates = [known[one] for one in name]
    if candidates:
        said.say(f"{found_line(candidates)} Probing …")
    found = probe_all(candidates, ssh_config=config)
    if said.json:
        said.document([one.as_json() for one in found])
    else:
        show_found(said, found)
    usable = [one for one in found if not one.why]
    if not add:
        if usable and not said.json:
            said.say("next: rch workers discover --add, or rch init")
        return 0
    chosen = usable if yes else choose(usable)
    if chosen:
        add_found(said, chosen, config, embedded=embedded)
        said.say("next: rch fleet apply")
    return 0


def candidates_here(ssh_config: str = "") -> list[Candidate]:
    """What the files of this user's home name."""
    return find_candidates(os.path.expanduser("~"), ssh_config)


def found_line(candidates: Sequence[Candidate]) -> str:
    """``Found 4 hosts in ~/.ssh/config and 1 alias in ~/.zshrc.``"""
    counts: dict[str, int] = {}
    for one in candidates:
        counts[one.source] = counts.get(one.source, 0) + 1
    home = os.path.expanduser("~")
    parts = []
    for source, count in counts.items():
        noun = "alias" if os.path.basename(source).startswith((".zsh", ".bash")) else "host"
        plural = {"alias": "aliases", "host": "hosts"}[noun] if count != 1 else noun
        parts.append(f"{count} {plural} in {re.sub(f'^{re.escape(home)}/', '~/', source)}")
    return f"Found {' and '.join(parts)}."


def show_found(said: Output, found: Sequence[Found]) -> None:
    """One row a machine."""
    rows = []
    for one in found:
        place = one.candidate
        yes = {True: "yes", False: "no"}
        seen = (one.cores or "-", yes[one.rust], yes[one.c]) if one.system else ("-", "-", "-")
        note = one.why or ("" if one.root else "no sudo there without a password: rch_embedded, nothing is installed")
        rows.append((place.name, f"{place.user}@{place.host}:{place.port}", *seen, "no" if one.why else "yes", note))
    headers = ("NAME", "ADDRESS", "CORES", "RUST", "C", "USABLE", "NOTE")
    said.table(headers, rows, empty="no hosts in ~/.ssh/config and no ssh aliases; next: rch workers add")


def short(one: Found) -> str:
    """``css 32 cores ✓`` or ``mac ✗ (Darwin)``."""
    if not one.why:
        return f"{one.candidate.name} {one.cores} cores ✓"
    return f"{one.candidate.name} ✗ ({one.why.partition(';')[0]})"


def choose(usable: Sequence[Found]) -> list[Found]:
    """Ask which of *usable* become workers: return takes all, "-" none, else names."""
    if not usable:
        return []
    names = [one.candidate.name for one in usable]
    question = f"Which become workers? ({', '.join(names)}; - for none)"
    while True:
        text = answered(lambda: click.prompt(question, default="all", err=True, show_default=True))
        words = [word for word in re.split(r"[\s,]+", str(text)) if word]
        if words == ["-"]:
            return []
        if words == ["all"]:
            return list(usable)
        unknown = [word for word in words if word not in names]
        if not unknown:
            return [one for one in usable if one.candidate.name in words]
        click.echo(f"not among them: {printable(', '.join(unknown))}", err=True)


def add_found(said: Output, chosen: Sequence[Found], ssh_config: str, *, embedded: bool) -> str:
    """Write *chosen* into the inventory; its path."""
    path = inventory_file(os.environ)
    hosts = [(one.candidate.name, variables_of(one, ssh_config, embedded=embedded), ()) for one in chosen]
    merged = merge_hosts(path, hosts)
    if merged is None:
        said.say(f"all of them are in {path} already")
        return path
    replace_inventory(path, merged.text, load().places.state, os.environ)
    tell_rchd(api())
    said.say(f"{path}: {', '.join([*merged.added, *merged.changed])} written")
    return path
