"""``rch hook`` and ``rch shim`` as a person uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[3]


@pytest.fixture
def home(shell: Any, tmp_path: Path) -> Path:
    place = tmp_path / "agents-home"
    (place / ".claude").mkdir(parents=True)
    (place / ".claude" / "settings.json").write_text('{"model": "x"}')
    shell.env["HOME"] = str(place)
    shell.env["PATH"] = "/usr/bin:/bin"
    return place


class TestInstalling:
    def test_finds_the_agents_of_this_home_and_can_be_undone(self, shell: Any, home: Path) -> None:
        before = (home / ".claude" / "settings.json").read_bytes()
        ended = shell("hook", "install", "--json")
        assert ended.status == 0, ended.err
        assert list(ended.json["agents"]) == ["claude"]
        state = {row["agent"]: row["state"] for row in shell("hook", "status", "--json").json["agents"]}
        assert state["claude"] == "installed"
        assert state["gemini"] == "missing"
        assert shell("hook", "uninstall").status == 0
        assert (home / ".claude" / "settings.json").read_bytes() == before
        assert shell("hook", "status", "--json").json["hook"] == ""

    def test_of_an_unknown_agent_names_the_known(self, shell: Any, home: Path) -> None:
        ended = shell("hook", "install", "hal")
        assert ended.status == 2
        assert "claude" in ended.err

    def test_of_a_broken_file_is_one_line(self, shell: Any, home: Path) -> None:
        (home / ".claude" / "settings.json").write_text("{")
        ended = shell("hook", "install", "claude", "--no-shims")
        assert ended.status == 2
        assert len(ended.err.splitlines()) == 1
        assert "settings.json" in ended.err


class TestTrying:
    def test_without_rchd_is_a_failure_that_says_what_to_do(self, shell: Any, home: Path) -> None:
        # Nothing may be started here: the session is said to be another one.
        assert shell("hook", "install", "claude", "--no-shims").status == 0
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        Path(shell.env["RCH_STATE_DIR"], "session.json").write_text(json.dumps({"boot": boot, "mnt": "x", "pid": "x"}))
        ended = shell("hook", "test", "--json")
        assert ended.status == 1
        found = {row["sample"]: row["ok"] for row in ended.json}
        assert found == {"no build": True, "build": False, "rewritten build": True, "garbage": True}


class TestAnswering:
    @pytest.mark.parametrize(
        ("words", "said"), [(["claude"], ""), ([], ""), (["gemini"], ""), (["cursor"], "{}\n"), (["aider"], "")]
    )
    def test_garbage_gets_what_the_agent_takes_for_no_opinion(
        self, shell: Any, home: Path, words: list[str], said: str
    ) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "rch", "hook", *words],
            input="garbage", capture_output=True, text=True, timeout=60, check=False,
            env={"HOME": str(home), "PATH": "/usr/bin:/bin", "RCH_BYPASS": "1"}, cwd=TOP,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


class TestShims:
    def test_come_and_go(self, shell: Any, home: Path) -> None:
        made = shell("shim", "install", "--json").json
        assert "make" in made["tools"]
        assert os.access(os.path.join(made["directory"], "make"), os.X_OK)
        found = shell("shim", "status", "--json").json
        assert found["shims"]["make"] == "/usr/bin/make"
        assert (found["installed"], found["on_path"], found["missing"], found["stale"]) == (True, False, [], [])
        assert shell("shim", "install", "--json").json["written"] == []
        assert sorted(shell("shim", "uninstall", "--json").json["removed"]) == sorted(made["tools"])
        assert not os.path.exists(made["directory"])
