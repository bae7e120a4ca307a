"""Bare containers for a molecule scenario: what molecule/shared/create.yml and destroy.yml call.

``python -m rch.testing.scenario up NAME --containers 2 --inventory DIR`` starts ``box1`` and ``box2`` of the container
lab, unprovisioned, and writes DIR/hosts.yml (group ``rch_workers``) for Ansible; ``down NAME`` removes every trace,
with ``--state DIR`` the scenario's workstation too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile

from rch.errors import RchError
from rch.fleet.playbooks import close_masters
from rch.testing.lab import LAB_ROOT, remove_tree, stop_daemons, write_private
from rch.testing.lab_containers import ContainerLab

PREFIX = "molecule-"


def lab_directory(name: str) -> str:
    """Where the lab of scenario *name* lies."""
    return os.path.join(LAB_ROOT, PREFIX + name)


def up(name: str, *, containers: int, systemd: int, cpus: float | None, inventory: str) -> None:
    """Start the containers of scenario *name* and write *inventory*/hosts.yml. Raises what ContainerLab.up raises."""
    lab = ContainerLab(lab_directory(name), workers=containers, cpus=cpus, systemd=systemd)
    lab.up(with_roles=False)
    os.makedirs(inventory, mode=0o700, exist_ok=True)
    shutil.copyfile(os.path.join(lab.inventory, "hosts.yml"), os.path.join(inventory, "hosts.yml"))
    # The next lab has the same addresses and other machines: connections kept open for this one must not serve it.
    control = tempfile.mkdtemp(prefix="rch-cp-")  # short: OpenSSH has 104 bytes for the name of a socket
    write_private(os.path.join(lab.directory, "control"), control)
    # One connection for Ansible and testinfra, which would else log in anew for every command.
    extra = f"-o ControlPath={control}/%C"
    write_private(
        os.path.join(inventory, "control.yml"),
        f"---\nall: {{vars: {{ansible_control_path_dir: {control}, ansible_ssh_extra_args: {extra}}}}}\n",
    )


def down(name: str, state: str = "") -> None:
    """Remove containers, network, keys and kept connections of scenario *name*; one that is not there is down.

    state: RCH_STATE_DIR of the scenario: its rchd ends, and what it remembers of machines that are gone goes.
    """
    directory = lab_directory(name)
    if state and os.path.isdir(state):
        stop_daemons(os.path.dirname(state))
        remove_tree(state)
    try:
        with open(os.path.join(directory, "control"), encoding="utf-8") as file:
            control = file.read()
    except FileNotFoundError:
        control = ""
    if control:
        close_masters(control)
        shutil.rmtree(control, ignore_errors=True)
    ContainerLab(directory).down()


def down_all() -> None:
    """Remove what any scenario of this checkout left behind."""
    for entry in os.listdir(LAB_ROOT) if os.path.isdir(LAB_ROOT) else ():
        if entry.startswith(PREFIX):
            down(entry.removeprefix(PREFIX))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rch.testing.scenario", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for word in ("up", "down"):
        command = commands.add_parser(word)
        command.add_argument("name")
        if word == "up":
            command.add_argument("--containers", type=int, default=1)
            command.add_argument("--systemd", type=int, default=0, help="how many, from the first on, run systemd")
            command.add_argument("--cpus", type=float, help="CPUs that each may use")
            command.add_argument("--inventory", required=True, metavar="DIR")
        else:
            command.add_argument("--state", default="", metavar="DIR", help="RCH_STATE_DIR of the scenario")
    options = parser.parse_args()
    try:
        if options.command == "up":
            up(
                options.name,
                containers=options.containers,
                systemd=options.systemd,
                cpus=options.cpus,
                inventory=options.inventory,
            )
        else:
            down(options.name, options.state)
    except RchError as error:
        print(error.one_line(), file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
