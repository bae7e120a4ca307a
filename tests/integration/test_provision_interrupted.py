"""site.yml is killed in the middle, at places drawn by lot, and run again: the second run brings it to its end."""

import os
import random
import re
import secrets
import subprocess
import threading
import time

import pytest

from rch.fleet.playbooks import ansible_environment, control_directory
from rch.testing.lab import EmbeddedLab
from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_processes import descendants, stop
from rch.testing.lab_provision import CHECKOUT, program, provision

SEED = 4
"""Which places: the same ones in every run, so that a red test can be looked at."""

LEAN = ("--extra-vars", '{"toolchain_go_method": "none", "toolchain_node_method": "none"}')

pytestmark = pytest.mark.heavy


def run(lab, *arguments):
    return provision(
        lab.inventory,
        scratch=lab.directory,
        state_dir=lab.state_dir,
        playbook="site.yml",
        arguments=(*LEAN, *arguments),
        timeout_s=900,
    )


def killed(lab, tasks, delay_s):
    """Start site.yml and kill it, with all that it started here, *delay_s* seconds into task number *tasks*.

    Returns the name of that task, None when the play had come to its end before.
    """
    home = os.path.join(lab.directory, "ansible")
    os.makedirs(home, mode=0o700, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RCH_", "ANSIBLE_"))}
    with control_directory(home) as control:
        process = subprocess.Popen(
            [program("ansible-playbook"), "--inventory", lab.inventory, *LEAN, os.path.join(CHECKOUT, "site.yml")],
            cwd=CHECKOUT,
            env={
                **inherited,
                **ansible_environment(home),
                "ANSIBLE_REMOTE_TEMP": os.path.join(home, "remote-tmp"),
                "ANSIBLE_SSH_CONTROL_PATH_DIR": control,
                "RCH_STATE_DIR": lab.state_dir,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        guard = threading.Timer(600, process.kill)
        guard.start()
        try:
            seen = 0
            for line in process.stdout:
                seen += line.startswith("TASK [")
                if seen == tasks:
                    time.sleep(delay_s)
                    return line[6:].split("]")[0]
            return None
        finally:
            guard.cancel()
            stop({process.pid} | descendants([process.pid]), grace_s=0)
            process.stdout.close()
            process.wait(30)


def tasks_of(recap):
    return len(re.findall(r"(?m)^TASK \[", recap.output))


@pytest.fixture(scope="module")
def length(lab_place):
    """How many tasks a first run over an embedded worker has."""
    lab = EmbeddedLab(os.path.join(lab_place, "emb-whole"))
    try:
        lab.up(with_roles=False)
        return tasks_of(run(lab))
    finally:
        lab.down()


class TestAPlayThatIsKilled:
    """On an embedded worker: every row begins with a blank machine."""

    @pytest.mark.sshd
    @pytest.mark.timeout(900)
    @pytest.mark.parametrize("row", range(4))
    def test_is_completed_by_the_next_run(self, lab_place, length, row):
        chance = random.Random(f"{SEED} {row}")
        # One in each quarter of the play, so that all roles have their turn.
        place = chance.randrange(length * row // 4, length * (row + 1) // 4) + 1
        lab = EmbeddedLab(os.path.join(lab_place, f"emb-killed-{row}"))
        try:
            lab.up(with_roles=False)
            task = killed(lab, place, chance.uniform(0, 0.5))
            assert task is not None
            recap = run(lab)
            assert (recap.count("failed"), recap.count("unreachable")) == (0, 0), task
            assert run(lab).count("changed") == 0, f"killed in {task!r}"
        finally:
            lab.down()


class TestAMachineOfItsOwn:
    """On a container, with packages, account and sshd's rules: one machine, killed again and again, ever later."""

    @pytest.mark.container
    @pytest.mark.timeout(2400)
    def test_is_completed_by_the_run_that_nobody_kills(self, lab_place):
        if os.geteuid() != 0:
            pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
        chance = random.Random(SEED)
        lab = ContainerLab(os.path.join(lab_place, f"box-killed-{secrets.token_hex(2)}"))
        try:
            lab.up(with_roles=False)
            # The roles' own order of things: packages, account, compilers, Rust, rch-wkr, the workstation.
            tasks = [killed(lab, place, chance.uniform(0, 3)) for place in sorted(chance.sample(range(20, 200), 4))]
            assert all(tasks), tasks
            recap = run(lab)
            assert (recap.count("failed"), recap.count("unreachable")) == (0, 0), tasks
            assert run(lab).count("changed") == 0, f"killed in {tasks}"
            assert lab.worker.run("runuser", "-u", "rch", "--", "cc", "--version").returncode == 0
        finally:
            lab.down()
