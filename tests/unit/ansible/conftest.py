"""Run ansible-playbook with everything that it writes in the test's own directory."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]


def messages(output):
    """What failed tasks said, each joined to one line."""
    lines, found = output.splitlines(), []
    for number, line in enumerate(lines):
        if line.lstrip().startswith("msg: "):
            indent = len(line) - len(line.lstrip())
            text = [line.split("msg: ", 1)[1]]
            for more in lines[number + 1 :]:
                if len(more) - len(more.lstrip()) <= indent or not more.strip():
                    break
                text.append(more.strip())
            found.append(" ".join(text).strip("'\"").replace("''", "'"))
    return found


def start(scratch, playbook, *words, **environ):
    """Start ansible-playbook over *playbook*; the finished process, its output as text."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RCH_", "ANSIBLE_"))}
    env |= {
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_HOME": str(scratch / "home"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(scratch / "facts"),
        "ANSIBLE_NOCOLOR": "1",
        "RCH_STATE_DIR": str(scratch / "state"),
        "LC_ALL": "C.UTF-8",
        **environ,
    }
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, *words, playbook],
        cwd=CHECKOUT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    done.messages = messages(done.stdout)
    return done


@pytest.fixture
def run(tmp_path):
    """A function: playbook and further words -> the finished process; ``messages`` are what its tasks said."""
    return partial(start, tmp_path)


@pytest.fixture(scope="session")
def start_play():
    """A function: directory, playbook and further words -> the finished process; for fixtures that live longer."""
    return start
