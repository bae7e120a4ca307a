"""``rch init``: from nothing to a fleet that builds, in one guided path."""

from __future__ import annotations

import os

import click

from rch.cli.command import RchCommand, output
from rch.cli.playing import ASK_PASSWORD
from rch.cli.setup import TITLES, Setup, problem_of
from rch.cli.workers import key_file
from rch.cli.workers_discover import EMBEDDED, SSH_CONFIG

AGENT = click.option(
    "--agent",
    "agents",
    multiple=True,
    type=click.Choice(list(TITLES)),
    help="Install for this agent; may be given again.",
)
NO_HOOKS = click.option("--no-hooks", is_flag=True, help="Leave agents and PATH alone.")


@click.command(cls=RchCommand)
@click.argument("host", nargs=-1, metavar="[[NAME=][USER@]HOST[:PORT]]...")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: yes to every question.")
@click.option("--discover", is_flag=True, help="Also with --yes: take every usable host of ~/.ssh/config and aliases.")
@click.option("-i", "--identity-file", default="", help="The administrator's key for the hosts named.")
@SSH_CONFIG
@EMBEDDED
@AGENT
@NO_HOOKS
@ASK_PASSWORD
def init(
    *,
    host: tuple[str, ...],
    yes: bool,
    discover: bool,
    identity_file: str,
    ssh_config: str | None,
    embedded: bool,
    agents: tuple[str, ...],
    no_hooks: bool,
    ask_become_pass: bool,
) -> int:
    """Set up a fleet and this machine: hosts, inventory, site.yml, rchd, hooks and shims, a canary build.

    USER is an administrator there (root, or one who may sudo); without HOST the hosts of ~/.ssh/config and of ssh
    aliases are proposed, and an inventory that has workers is used as it is. Every step may be run again; what is
    done stays. Exit status 4 when a named host cannot be reached, 5 when provisioning failed, 1 when the canary did.
    """
    setup = Setup(
        output(),
        yes=yes,
        ssh_config=os.path.abspath(ssh_config) if ssh_config else "",
        embedded=embedded,
        ask_password=ask_become_pass,
    )
    return run(
        setup, host, discover=discover, identity_file=identity_file, agents=agents, hooks=not no_hooks or bool(agents)
    )


def run(
    setup: Setup, hosts: tuple[str, ...], *, discover: bool, identity_file: str, agents: tuple[str, ...], hooks: bool
) -> int:
    """The story, step by step; the exit status."""
    found = setup.named_hosts(hosts, key_file(identity_file)) if hosts else []
    workers = setup.workers()
    if not hosts and (discover or not workers):
        found = setup.discovered_hosts(wanted=discover)
    if found:
        setup.write_inventory(found)
        workers = setup.workers()
    elif workers:
        setup.said.say(f"In the inventory: {', '.join(one.name for one in workers)}")
    setup.write_config()
    problem = None
    if workers:
        outcome = setup.provision(workers)
        problem = problem_of(outcome)
        if problem is not None and not any(outcome.came_through(one.name) for one in workers):
            raise problem
        setup.show_fleet()
    setup.start_rchd()
    if hooks:
        setup.install_hooks(agents)
    sung = setup.canary() if workers else None
    return finish(setup, problem, sung)


def finish(setup: Setup, problem: Exception | None, sung: bool | None) -> int:
    """What to do next, then the status."""
    if setup.said.json:
        setup.said.document(setup.done)
    if problem is not None:
        raise problem
    if sung is None:
        setup.said.say("Next: rch init NAME=USER@HOST for each machine that shall build; until then builds run here")
    elif sung:
        shims = "" if not setup.done.get("agents") else 'In a shell of your own: eval "$(rch shellenv)". '
        setup.said.say(f"Next: build as ever. {shims}rch status shows where, rch doctor what keeps it from going out")
    return 0 if sung in (True, None) else 1
