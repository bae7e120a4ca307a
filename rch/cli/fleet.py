"""``rch fleet``: plan, apply, upgrade, gc: the playbooks through ansible-runner."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import click

from rch.cli.command import RchGroup, output
from rch.cli.playing import ASK_PASSWORD, LIMIT, play, report, tell_rchd
from rch.cli.setting import api
from rch.cli.terminal import printable
from rch.errors import UsageError
from rch.fleet.playbooks import known_tags
from rch.fleet.run import Change, Outcome


@click.group(cls=RchGroup)
def fleet() -> None:
    """Provision the workers of the inventory; exit status 5 when a playbook fails."""


@fleet.command()
@LIMIT
@ASK_PASSWORD
def plan(*, limit: tuple[str, ...], ask_become_pass: bool) -> int:
    """Show what apply would change, and change nothing.

    With --json {"playbook", "status", "seconds", "hosts", "changes", "failures", "log"}; a change is
    {"host", "role", "what", "detail"}.
    """
    said = output()
    outcome = play("site", limit=limit, check=True, ask_password=ask_become_pass, shown=False)
    if not said.json:
        for line in plan_lines(outcome):
            print(printable(line))
    report(outcome)
    return 0


@fleet.command()
@LIMIT
@click.option("-t", "--tag", "tags", multiple=True, metavar="TAG", help="Only tasks with this tag, such as rch_worker.")
@ASK_PASSWORD
def apply(*, limit: tuple[str, ...], tags: tuple[str, ...], ask_become_pass: bool) -> int:
    """Run site.yml: accounts, tools, toolchains, rch-wkr, and this workstation. Changes nothing the second time."""
    known = known_tags()
    for tag in tags:
        if tag not in known:  # Ansible would run next to nothing, and call it a success
            near = difflib.get_close_matches(tag, known, 1) or ["rch_worker"]
            raise UsageError(
                f"no task has the tag {tag!r}: a tag is a role, or ROLE_install, ROLE_configure, ROLE_run",
                what=tag,
                allowed=known,
                hint=f"rch fleet apply --tag {near[0]}",
            )
    return _run("site", limit, ask_become_pass=ask_become_pass, tags=tags)


@fleet.command()
@LIMIT
@ASK_PASSWORD
def upgrade(*, limit: tuple[str, ...], ask_become_pass: bool) -> int:
    """Bring this version's rch-wkr to the workers, batch by batch: drain, switch, canary build, back on failure."""
    return _run("upgrade", limit, ask_become_pass=ask_become_pass)


@fleet.command()
@LIMIT
@ASK_PASSWORD
def gc(*, limit: tuple[str, ...], ask_become_pass: bool) -> int:
    """Remove what no job and no project needs any more from the workers' caches."""
    return _run("gc", limit, ask_become_pass=ask_become_pass)


def _run(playbook: str, limit: Sequence[str], *, ask_become_pass: bool, tags: Sequence[str] = ()) -> int:
    outcome = play(playbook, limit=limit, tags=tags, ask_password=ask_become_pass)
    tell_rchd(api())
    report(outcome)
    return 0


def plan_lines(outcome: Outcome) -> list[str]:
    """A run in check mode as a diff to read: host, role, what, then one line that counts."""
    # A play that only keeps what was found on this machine is no news about a worker.
    hosts = [name for name in outcome.hosts if name != "localhost"]
    rows = _rows(outcome.changes)
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    lines = []
    before = ("", "")
    for host, role, text in rows:
        same_host, same_role = host == before[0], (host, role) == before
        left = ("" if same_host else host).ljust(widths[0])
        middle = ("" if same_role else role).ljust(widths[1])
        lines.append(f"{left}  {middle}  {text}".rstrip())
        before = (host, role)
    touched = {change.host for change in outcome.changes} & set(hosts)
    # Where a play ended early, what would have come after that is not known.
    unknown = [name for name in hosts if not outcome.came_through(name)]
    tail = f"; not known: {', '.join(unknown)}" if unknown else ""
    if rows:
        told = f"{len(touched)} of {_count(len(hosts), 'host')} would change{tail or ', nothing else'}."
        lines.append(f"{told} Apply with: rch fleet apply")
    elif len(unknown) < len(hosts):
        lines.append(f"nothing would change on {_count(len(hosts) - len(unknown), 'host')}{tail}")
    return lines


def _rows(changes: Sequence[Change]) -> list[tuple[str, str, str]]:
    ordered: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        host = "here" if change.host == "localhost" else change.host
        text = f"{change.what}: {change.detail}" if change.detail else change.what
        found = ordered.setdefault((host, change.role or "-"), [])
        if text not in found:
            found.append(text)
    rows = [(host, role, text) for (host, role), texts in ordered.items() for text in texts]
    return sorted(rows, key=lambda row: (row[0] == "here", row[0]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
