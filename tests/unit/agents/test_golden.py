"""Golden questions of every harness and their answers: in process, and through the installed programs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rch.agents.answer import answer
from rch.agents.caller import Caller
from rch.agents.dialect import DIALECTS
from rch.agents.install import command_of
from rch.agents.programs import Setting
from rch.client_paths import SHIM_MARK

FOLDER = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str, rch: str, shims: str) -> dict[str, Any]:
    text = (FOLDER / f"{name}.json").read_text().replace("@RCH@", rch).replace("@SHIMS@", shims)
    case: dict[str, Any] = json.loads(text)
    assert set(case) <= {"why", "harness", "process", "env", "files", "stdin", "raw", "answer"}, name
    return case


def question(case: dict[str, Any]) -> bytes:
    return case["raw"].encode() if "raw" in case else json.dumps(case["stdin"], ensure_ascii=False).encode()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, desk) -> dict[str, Any]:
    made = load(request.param, desk.setting.launcher, desk.setting.shims)
    os.mkdir(desk.setting.shims)
    Path(desk.setting.shims, SHIM_MARK).write_text("")
    for name, text in made.get("files", {}).items():
        desk.write(name, text)
    return made


class TestAQuestion:
    def test_ic_05_is_answered_in_its_dialect(self, desk, case):
        """Through sh, the installed program, the socket, the API and back, below a process with the agent's name."""
        name, *words = case["process"]
        with desk.rchd():
            for _ in range(5):
                done = subprocess.run(
                    # Words stand before the script's own, where an agent has them; sh does not look at them.
                    [name, "-c", 'sh -c "$0"; exit $?', command_of(case["harness"], desk.setting), *words],
                    executable="/bin/sh", input=question(case), capture_output=True, timeout=60, check=False,
                    env={**desk.env, **case.get("env", {})}, cwd=desk.project,
                )  # fmt: skip
                # Silence after ANSWER_S is right on a machine that is too busy for an answer.
                if done.stdout or case["answer"] is None:
                    break
        assert done.returncode == 0
        assert done.stderr == b""
        if case["answer"] is None:
            assert done.stdout == b""
        else:
            assert json.loads(done.stdout) == case["answer"]
            assert done.stdout.count(b"\n") == 1


def test_every_dialect_has_the_three_cases() -> None:
    for harness in DIALECTS:
        for what in ("offload", "pass", "error"):
            assert any(name.startswith(f"{harness}-{what}") for name in CASES), (harness, what)


class TestAnAnswer:
    def test_asked_about_again_is_none(self, tmp_path):
        """Two installed copies must not wrap twice."""
        from rch.intercept.decision import Policy

        setting = Setting(str(tmp_path), "/p")
        made = load("claude-offload", setting.launcher, setting.shims)
        caller = Caller({"HOME": str(tmp_path)}, (("claude",),))
        again = json.loads(question(made))
        for expected in (True, False):
            found = answer(
                json.dumps(again).encode(), "claude", caller,
                policy_of=lambda _cwd, _caller: Policy(), prefix=f"{setting.launcher} exec -- ",
            )  # fmt: skip
            assert bool(found.data) is expected
            if found.data:
                again["tool_input"] = json.loads(found.data)["hookSpecificOutput"]["updatedInput"]
