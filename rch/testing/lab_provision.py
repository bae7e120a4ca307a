"""Run a playbook of the checkout against a lab, leaving nothing outside the lab's directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from rch.errors import Provisioning, ToolMissing
from rch.fleet.playbooks import ansible_environment, control_directory
from rch.testing.lab_processes import descendants, stop

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_RECAP = re.compile(r"^(?P<host>\S+)\s*: (?P<counts>ok=\d+\s.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Recap:
    """What a run of ansible-playbook came to; ``hosts`` maps host to its counts (ok, changed, failed, …)."""

    status: int
    hosts: Mapping[str, Mapping[str, int]]
    seconds: float
    output: str

    def count(self, name: str) -> int:
        """The sum of one count over all hosts."""
        return sum(counts.get(name, 0) for counts in self.hosts.values())

    def shown(self) -> str:
        return f"ok={self.count('ok')} changed={self.count('changed')} failed={self.count('failed')}"


class PlaybookFailed(Provisioning):
    """ansible-playbook ended with an error; ``recap.output`` is all it said."""

    def __init__(self, message: str, recap: Recap, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.recap = recap


def parse_recap(output: str) -> dict[str, dict[str, int]]:
    """The counts of a PLAY RECAP, per host; empty if there is none."""
    tail = output[output.rfind("PLAY RECAP") :] if "PLAY RECAP" in output else ""
    return {
        match["host"]: {name: int(value) for name, value in (pair.split("=") for pair in match["counts"].split())}
        for match in _RECAP.finditer(tail)
    }


def program(name: str) -> str:
    """Path of a program of the environment that runs us, else of PATH and the sbin directories."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = beside if os.access(beside, os.X_OK) else shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        message = f"{name} is not installed here"
        raise ToolMissing(message, host="here", tool=name, hint="./dev setup")
    return found


def provision(
    inventory: str,
    *,
    scratch: str,
    playbook: str = "playbooks/workers.yml",
    state_dir: str | None = None,
    arguments: tuple[str, ...] = (),
    timeout_s: float = 900,
) -> Recap:
    """Run *playbook* over *inventory* with everything that Ansible writes here below *scratch*.

    state_dir: RCH_STATE_DIR of the run: where the workers' records go; default ``<scratch>/state``.
    Raises PlaybookFailed when a task failed, a host was unreachable or the time was up.
    """
    home = os.path.join(scratch, "ansible")
    os.makedirs(home, mode=0o700, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RCH_", "ANSIBLE_"))}
    environment = {
        **inherited,
        **ansible_environment(home),
        "ANSIBLE_REMOTE_TEMP": os.path.join(home, "remote-tmp"),
        "RCH_STATE_DIR": state_dir or os.path.join(scratch, "state"),
    }
    started = time.monotonic()
    log = os.path.join(home, "last.log")
    command = [program("ansible-playbook"), "--inventory", inventory, *arguments, os.path.join(CHECKOUT, playbook)]
    with control_directory(home) as control, open(log, "wb") as file:
        status = _run(command, {**environment, "ANSIBLE_SSH_CONTROL_PATH_DIR": control}, file, timeout_s)
    with open(log, encoding="utf-8", errors="replace") as text:
        output = text.read()
    recap = Recap(status, parse_recap(output), time.monotonic() - started, output)
    if status != 0:
        message = f"{playbook} ended with status {status} ({recap.shown()}), {_first_fault(output)}"
        raise PlaybookFailed(message, recap, hint=f"read {log}")
    return recap


def _run(command: list[str], environment: dict[str, str], log: BinaryIO, timeout_s: float) -> int:
    """Run *command* in the checkout; its exit status, or 124 when it was stopped with all its children."""
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        # Also when we are interrupted: Ansible's forks, which have sessions of their own, would go on otherwise.
        if process.poll() is None:
            stop({process.pid} | descendants([process.pid]), grace_s=0)
            process.wait(10)


def _first_fault(output: str) -> str:
    """The first line in which Ansible says what is wrong, shortened in the middle: a module's own words come last."""
    for line in output.splitlines():
        if line.startswith(("fatal:", "ERROR!", "[ERROR]", "failed:")):
            return line if len(line) <= 500 else f"{line[:200]} … {line[-300:]}"
    return "and no line says why"
