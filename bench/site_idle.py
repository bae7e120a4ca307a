"""site.yml on two hosts with nothing to change: how long, and what pipelining, forks and leaving facts alone give.

    python bench/site_idle.py [--rounds 3]          needs root, for podman containers

Two containers that share this machine's programs are provisioned once. Then the same playbook runs over them in several
configurations, which take turns, round by round; every run has to end with changed=0. Each finds what a person's own
next run would find, but for connections that OpenSSH keeps open: those are closed in between. Prints least and median
seconds of each configuration, and their ratio to the configuration that is shipped.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from rch.fleet.playbooks import ansible_environment, control_directory
from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_provision import CHECKOUT, parse_recap, program

SHIPPED = "as shipped"

CONFIGURATIONS: dict[str, dict[str, str]] = {
    SHIPPED: {},
    "no pipelining": {"ANSIBLE_PIPELINING": "False"},
    "one fork": {"ANSIBLE_FORKS": "1"},
    "no kept connection": {"ANSIBLE_SSH_ARGS": "-C -o ControlMaster=no"},
}
"""Name -> what of ansible.cfg is otherwise."""

SUBSETS = {"all facts": "all", "minimal facts": "min", "local facts": "!all,!min,local"}
"""What a play would spend at its beginning if it gathered facts; ours ask for the few things that they need."""


def main() -> int:
    """0 when every run ended with changed=0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {}
    os.makedirs(os.path.join(CHECKOUT, ".cache"), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="idle-", dir=os.path.join(CHECKOUT, ".cache")) as place:
        lab = ContainerLab(os.path.join(place, "box"), workers=2, twin=True)
        try:
            first = lab.up(playbook="site.yml")
            if first is not None:
                print(f"first run: {first.shown()}, {first.seconds:.0f} s", flush=True)
            for number in range(rounds):
                print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}", flush=True)
                names = [*CONFIGURATIONS, *SUBSETS]
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    taken = gather(lab, SUBSETS[name]) if name in SUBSETS else play(lab, CONFIGURATIONS[name])
                    seconds.setdefault(name, []).append(taken)
                    print(f"  {name:20} {taken:6.1f} s", flush=True)
        finally:
            lab.down()
    report(seconds)
    return 0


def play(lab: ContainerLab, settings: dict[str, str]) -> float:
    """Seconds of site.yml with *settings*; AssertionError unless it changed nothing."""
    taken, output = run(lab, settings, "ansible-playbook", os.path.join(CHECKOUT, "site.yml"))
    counts = parse_recap(output)
    if not counts or any(host["changed"] or host["failed"] or host["unreachable"] for host in counts.values()):
        raise AssertionError(output[-4000:])
    return taken


def gather(lab: ContainerLab, subset: str) -> float:
    """Seconds of an ad-hoc run that gathers the facts of *subset*, less those of one that asks for nothing."""
    command = ("ansible", "rch_workers", "--module-name")
    empty, _ = run(lab, {}, *command, "ansible.builtin.raw", "--args", "true")
    full, _ = run(lab, {}, *command, "ansible.builtin.setup", "--args", f"gather_subset={subset}")
    return full - empty


def run(lab: ContainerLab, settings: dict[str, str], name: str, *words: str) -> tuple[float, str]:
    """Seconds and output of an Ansible program over the lab's inventory, on connections of its own."""
    home = os.path.join(lab.directory, "ansible")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RCH_", "ANSIBLE_"))}
    with control_directory(home) as control:
        environment = {
            **inherited,
            **ansible_environment(home),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": control,
            "RCH_STATE_DIR": lab.state_dir,
            **settings,
        }
        started = time.monotonic()
        done = subprocess.run(
            [program(name), "--inventory", lab.inventory, *words],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        taken = time.monotonic() - started
    if done.returncode != 0:
        raise AssertionError(done.stdout[-4000:])
    return taken, done.stdout


def report(seconds: dict[str, list[float]]) -> None:
    usual = statistics.median(seconds[SHIPPED])
    for name, found in seconds.items():
        mark = "+" if name in SUBSETS else " "
        least, median = f"{mark}{min(found):.1f} s", f"{mark}{statistics.median(found):.1f} s"
        print(f"{name:20} least {least}, median {median}, {statistics.median(found) / usual:.2f} of the shipped")


if __name__ == "__main__":
    sys.exit(main())
