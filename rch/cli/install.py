"""``rch install``: the seed's name for ways through ``rch init`` (coverage D-3)."""

from __future__ import annotations

import os
import tempfile

import click

from rch.cli.command import RchCommand, output
from rch.cli.init import AGENT, NO_HOOKS, finish, run
from rch.cli.playing import ASK_PASSWORD, play, report, tell_rchd
from rch.cli.setting import api
from rch.cli.setup import Setup, problem_of
from rch.cli.workers_discover import EMBEDDED, SSH_CONFIG
from rch.errors import UsageError

THIS_HOST = """\
# Made by rch install --worker-only.
all:
  children:
    rch_workers:
      hosts:
        localhost:
          ansible_connection: local
          ansible_python_interpreter: "{python}"
"""


@click.command(cls=RchCommand)
@click.argument("host", nargs=-1, metavar="[[NAME=][USER@]HOST[:PORT]]...")
@click.option("--fleet", is_flag=True, help="With workers, named or discovered; a fleet that is there is upgraded.")
@click.option("--worker-only", is_flag=True, help="Make this host a worker, and nothing else.")
@click.option("--easy-mode", "-y", "--yes", "yes", is_flag=True, help="Ask nothing: yes to every question.")
@click.option(
    "--from-source",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Playbooks, roles and rch-wkr of the checkout DIR instead of the installed ones.",
)
@SSH_CONFIG
@EMBEDDED
@AGENT
@NO_HOOKS
@ASK_PASSWORD
def install(
    *,
    host: tuple[str, ...],
    fleet: bool,
    worker_only: bool,
    yes: bool,
    from_source: str | None,
    ssh_config: str | None,
    embedded: bool,
    agents: tuple[str, ...],
    no_hooks: bool,
    ask_become_pass: bool,
) -> int:
    """Set up this machine (again: bring it up to date), with --fleet the workers too.

    Without options it is rch init without workers: configuration where there is none, rchd, hooks and shims.
    """
    if worker_only and (fleet or host):
        raise UsageError(
            "--worker-only is about this host alone", what="--worker-only", hint="rch install --fleet HOST…"
        )
    if host and not fleet:
        raise UsageError("hosts are for --fleet", what=host[0], hint=f"rch install --fleet {host[0]}")
    setup = Setup(
        output(),
        yes=yes or worker_only,
        ssh_config=os.path.abspath(ssh_config) if ssh_config else "",
        embedded=embedded,
        ask_password=ask_become_pass,
        root=os.path.abspath(from_source) if from_source else "",
    )
    if worker_only:
        return _this_host(setup)
    hooks = not no_hooks or bool(agents)
    if fleet and not host and any(one.observed.facts.get("rch_wkr") for one in setup.workers()):
        return _again(setup, agents, hooks=hooks)
    if fleet:
        return run(setup, host, discover=True, identity_file="", agents=agents, hooks=hooks)
    setup.write_config()
    setup.start_rchd()
    if hooks:
        setup.install_hooks(agents)
    return finish(setup, None, None)


def _again(setup: Setup, agents: tuple[str, ...], *, hooks: bool) -> int:
    """A fleet that is there: the rolling upgrade, then this machine."""
    outcome = setup.provision(setup.workers(), "upgrade")
    problem = problem_of(outcome)
    if problem is not None:
        raise problem
    setup.start_rchd()
    if hooks:
        setup.install_hooks(agents)
    return finish(setup, None, setup.canary())


def _this_host(setup: Setup) -> int:
    """The playbook workers over this host, by a connection that is none."""
    with tempfile.TemporaryDirectory(prefix="rch-install-") as place:
        inventory = os.path.join(place, "hosts.yml")
        with open(inventory, "w", encoding="utf-8") as file:
            file.write(THIS_HOST.format(python="/usr/bin/python3"))
        outcome = play("workers", inventory=inventory, ask_password=setup.ask_password, root=setup.root)
    tell_rchd(api())
    report(outcome)
    setup.said.say("This host is a worker. At the workstation: rch init NAME=USER@THIS-HOST adds it and its key")
    return 0
