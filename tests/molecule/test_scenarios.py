"""Every molecule scenario, from the blank host to the verified one, on podman containers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rch.testing.lab_provision import parse_recap
from rch.testing.scenario import down

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name for path in CHECKOUT.glob("molecule/*/molecule.yml"))

IN_CI = {"site"}
"""Scenarios that are worth their minutes in every run; the others run in ./dev test --all."""

LIMIT_S = 1500

pytestmark = [pytest.mark.container, pytest.mark.timeout(LIMIT_S + 60)]


def steps(output):
    """(name, output) of every step that molecule ran, in order."""
    parts = re.split(r"(?m)^INFO\s+\[\S+ > (\w+)\] Executing$", output)
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.heavy) for name in NAMES]
)
def test_a_scenario_ends_well(name):
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    kept = {k: v for k, v in os.environ.items() if not re.match("RCH_(?!LAB_)|ANSIBLE_|MOLECULE_|PYTEST_", k)}
    place = CHECKOUT / ".cache" / "molecule" / name
    try:
        done = subprocess.run(
            ["molecule", "test", "--no-command-borders", "--scenario-name", name],
            cwd=CHECKOUT,
            env={
                **kept,
                "PATH": f"{os.path.dirname(sys.executable)}:{kept['PATH']}:/usr/sbin:/sbin",
                # Not in the user's ~/.ansible, where all checkouts of one name meet.
                "MOLECULE_EPHEMERAL_DIRECTORY": str(place),
                "NO_COLOR": "1",
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    finally:
        down(name, str(place / "state"))
    assert done.returncode == 0, done.stdout[-8000:]
    # molecule itself does not look at what a check says would change.
    last_check = next(output for step, output in reversed(steps(done.stdout)) if step == "check")
    counts = parse_recap(last_check)
    assert counts
    assert all(host["changed"] == 0 for host in counts.values()), last_check
