"""Shims in a directory of their own, with real and scripted tools behind them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from rch.shims.directory import install
from rch.shims.judge import PROGRAMS
from rch.shims.program import Setting

sys.path.append(str(Path(__file__).parents[1] / "client"))  # fake_rchd; importlib mode adds no directory

LIMIT_S = 60.0


class Shimmed:
    """A PATH: shims, then ``tools`` (programs of the test), then the system's.

    client: what stands for the thin client; it prints ASKED and its words, one a line, unless it is the real one.
    """

    def __init__(self, place: str, *, client: str = "") -> None:
        self.place = place
        self.state = os.path.join(place, "state")
        self.shims = os.path.join(self.state, "shims")
        self.tools = os.path.join(place, "tools")
        self.project = os.path.join(place, "project")
        for made in (self.state, self.tools, self.project):
            os.mkdir(made, 0o700)
        fake = os.path.join(place, "client.py")
        Path(fake).write_text("import sys\nprint('ASKED', *sys.argv[1:], sep='\\n')\n")
        self.setting = Setting(sys.executable, client or fake, self.state)
        every = {program: name for name, programs in PROGRAMS.items() for program in programs}
        install(self.shims, every, self.setting)
        self.environ = {
            "PATH": f"{self.shims}:{self.tools}:/usr/bin:/bin",
            "HOME": self.project,
            "LANG": "C.UTF-8",
        }

    def tool(self, name: str, script: str) -> str:
        """A program of the test: an sh script behind the shims."""
        path = os.path.join(self.tools, name)
        Path(path).write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(path, stat.S_IRWXU)
        return path

    def run(
        self, words: Sequence[str], env: Mapping[str, str] | None = None, **how: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - it is among the words below
            list(words),
            **{
                "cwd": self.project,
                "env": {**self.environ, **(env or {})},
                "capture_output": True,
                "text": True,
                "timeout": LIMIT_S,
                "check": False,
                "stdin": subprocess.DEVNULL,
                **how,
            },
        )

    def asked(self, *words: str, env: Mapping[str, str] | None = None) -> bool:
        """Did the shim of ``words[0]`` ask the client? The real tool is one that prints HERE."""
        self.tool(words[0], "echo HERE")
        out = self.run(words, env).stdout
        assert out.startswith(("ASKED\n", "HERE\n")), out
        return out.startswith("ASKED\n")


@pytest.fixture
def shimmed() -> Iterator[Shimmed]:
    with tempfile.TemporaryDirectory(prefix="rch-s-") as place:
        yield Shimmed(place)
