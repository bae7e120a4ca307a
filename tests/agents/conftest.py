"""Real agent CLIs against a fake model, on a workstation with a real worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from rch.testing.agent_clis import Agent, NoClis, install_clis


@pytest.fixture(scope="session")
def clis() -> str:
    try:
        return install_clis()
    except NoClis as error:
        pytest.skip(f"{error}; the CI machine (node 20, npm) runs this")


class Scene:
    """A workstation, a project ``crate`` with a Makefile below it, and an agent that knows rch."""

    def __init__(self, state, clis: str, project: str, name: str) -> None:
        self.state = state
        place = state.directory
        self.agent = Agent(name, clis, os.path.join(place, "home"), os.path.join(place, "proj"))
        # As rchd has it; a client that was told of another one says so in a line.
        self.agent.env["RCH_INVENTORY"] = state.environment["RCH_INVENTORY"]
        os.makedirs(self.agent.home)
        os.makedirs(self.agent.project)
        self.crate = os.path.join(self.agent.project, "crate")
        shutil.copytree(project, self.crate)

    @property
    def environment(self) -> dict[str, str]:
        """Of the person who installs: this workstation's, with the agent's HOME and PATH."""
        home = self.agent.home
        return {**self.state.environment, "HOME": home, "XDG_CONFIG_HOME": os.path.join(home, ".config")}

    def rch(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        done = self.state.run("rch", *words, env=self.environment)
        assert done.returncode == 0, done
        return done

    def put_away(self) -> None:
        """Make room for another scene on this workstation."""
        shutil.rmtree(self.agent.home)
        shutil.rmtree(self.agent.project)

    def jobs(self) -> list[dict]:
        return json.loads(self.rch("jobs", "--json").stdout)

    def local_result(self, line: str) -> str:
        """What the same line prints here, without rch."""
        copy = os.path.join(self.state.directory, "copy", "crate")
        shutil.copytree(self.crate, copy)
        done = subprocess.run(
            ["bash", "-c", line], cwd=os.path.dirname(copy), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self.agent.home, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL, timeout=120, check=False, text=True,
        )  # fmt: skip
        return done.stdout


@pytest.fixture
def scene(rch_state, clis, project_copy):
    project = project_copy("hello-c")
    return lambda name: Scene(rch_state, clis, project, name)
