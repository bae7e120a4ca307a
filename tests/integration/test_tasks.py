"""``inv lab.*``, ``inv remote-build`` and playbooks/lab.yml: the lab as people start it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rch.testing.lab_provision import CHECKOUT

pytestmark = pytest.mark.sshd

BIN = os.path.dirname(sys.executable)


@pytest.fixture
def place(lab_place):
    """A directory of labs of this test's own; whatever is in it goes down."""
    root = os.path.join(lab_place, "tasks")
    yield root
    run(root, "inv", "lab.down")
    assert not os.path.exists(root)


def run(root, *words, timeout_s=200):
    env = {name: value for name, value in os.environ.items() if not name.startswith("RCH_")}
    env |= {"RCH_LAB_ROOT": root, "PATH": f"{BIN}:{env['PATH']}"}
    return subprocess.run(
        words, cwd=CHECKOUT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
    )  # fmt: skip


class TestTheTasks:
    def test_bring_a_lab_up_build_on_it_and_take_it_down(self, place, tmp_path):
        up = run(place, "inv", "lab.up")
        assert up.returncode == 0, up.stdout + up.stderr
        assert "failed=0" in up.stdout
        assert f"RCH_INVENTORY={place}/embedded/inventory" in up.stdout
        (worker,) = json.loads(run(place, "inv", "lab.status", "--as-json").stdout)
        assert worker["up"] is True

        project = tmp_path / "hello c"
        shutil.copytree(
            os.path.join(CHECKOUT, "examples/hello-c"), project, ignore=shutil.ignore_patterns("*.o", "*.d", "hello")
        )
        built = run(
            place,
            "inv",
            "remote-build",
            "--command",
            "make -j2 CFLAGS='-O1 -g'",
            "--project",
            str(project),
            "--require-remote",
        )
        assert built.returncode == 0, built.stdout + built.stderr
        assert "cc -O1 -g" in built.stdout
        assert (project / "hello").exists()

        red = run(place, "inv", "remote-build", "--command", "make no-such-target", "--project", str(project))
        assert red.returncode == 2
        assert "Traceback" not in red.stderr

        down = run(place, "inv", "lab.down")
        assert down.returncode == 0, down.stderr
        assert not os.path.exists(place)

    def test_say_in_one_line_what_is_wrong(self, place):
        done = run(place, "inv", "remote-build", "--require-remote", "--command", "make", "--project", "/no/such/place")
        assert done.returncode == 2
        assert done.stderr.strip().count("\n") == 0

    def test_of_a_lab_that_is_not_up_change_nothing(self, place):
        assert json.loads(run(place, "inv", "lab.status", "--as-json").stdout) == []
        assert run(place, "inv", "lab.down").returncode == 0


class TestThePlaybook:
    @pytest.mark.slow
    def test_does_the_same_and_changes_nothing_the_second_time(self, place):
        playbook = str(Path(CHECKOUT, "playbooks/lab.yml"))
        first = run(place, "ansible-playbook", "-i", "localhost,", playbook)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "changed=1 " in first.stdout
        assert "lab1" in first.stdout
        again = run(place, "ansible-playbook", "-i", "localhost,", playbook)
        assert "changed=0 " in again.stdout, again.stdout
        gone = run(place, "ansible-playbook", "-i", "localhost,", playbook, "-e", "lab_state=absent")
        assert "changed=1 " in gone.stdout
        assert not os.path.exists(place)

    def test_refuses_another_state(self, place):
        done = run(
            place,
            "ansible-playbook",
            "-i",
            "localhost,",
            str(Path(CHECKOUT, "playbooks/lab.yml")),
            "-e",
            "lab_state=gone",
        )
        assert done.returncode == 2
        assert "lab_state is present or absent" in done.stdout
