"""Each supported CLI, driven by a model that asks for a build: by hook, by shim, and without rchd.

One test per agent runs with every ``./dev test``; the rest of the matrix is ``heavy``.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
from pathlib import Path

import pytest

from rch.testing.fake_model import FakeModel

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

LINE = "cd crate && make 2>&1 | tail -5"
AGENTS = ("claude", "codex", "gemini", "copilot", "opencode")


def allow_everything(scene) -> None:
    """The user's word that nothing needs asking, in the agent's own way."""
    scene.agent.words = {
        "claude": ["--dangerously-skip-permissions"],
        "codex": ["-s", "workspace-write"],
        "gemini": ["--yolo"],
        "copilot": ["--allow-all-tools"],
        "opencode": [],  # what nobody forbids is allowed
    }[scene.agent.name]


def without(_scene) -> None:
    """No rch at all: what the others are compared with."""


def by_hook(scene) -> None:
    scene.rch("hook", "install", "--no-shims", scene.agent.name)


def by_shim(scene) -> None:
    """As the installer does it; where that is the parent's PATH, as `rch shellenv` does."""
    scene.rch("shim", "install")
    scene.rch("hook", "install", scene.agent.name)
    if scene.agent.name in ("gemini", "copilot"):
        scene.agent.env["PATH"] = f"{scene.state.state_dir}/shims:/usr/local/bin:/usr/bin:/bin"


WAYS = (by_hook, by_shim)
IN_CI = {("claude", by_hook), ("codex", by_shim), ("gemini", by_hook), ("copilot", by_hook), ("opencode", by_hook)}
MATRIX = [
    pytest.param(name, way, id=f"{name}-{way.__name__}", marks=() if (name, way) in IN_CI else pytest.mark.heavy)
    for name in AGENTS
    for way in WAYS
]


def play(scene, line: str = LINE, **given) -> str:
    """What the model was shown of *line*."""
    with FakeModel((line, given)) as model:
        done = scene.agent.run(model)
    assert model.play.problems == []
    assert len(model.results) == 1, (done, [path for path, _ in model.play.requests])
    return model.results[0]


# What the harnesses put around a command's output.
_FRAME = ("Process Group PGID:", "[System]", "Background PIDs:", "<untrusted_context>", "</untrusted_context>")
_MODIFIED = re.compile(r"\s*\[System\] Tool input parameters were modified by a hook before execution\.")
_TIMES = re.compile(r"(Wall time: |Chunk ID: |Process Group PGID: )\S+")
_SHELL_ENDED = re.compile(r"\n?<shellId: \d+ completed with exit code \d+>\s*\Z")


def output_of(shown: str) -> str:
    """The command's own output in what a harness makes of it."""
    text = shown.partition("\nOutput:\n")[2] if "\nOutput:\n" in shown else shown
    text = _SHELL_ENDED.sub("", text.partition("\n\n<system-reminder>")[0])
    kept = [line.removeprefix("Output: ") for line in text.splitlines() if not line.startswith(_FRAME)]
    return "\n".join(kept).strip()


def is_built(scene) -> bool:
    program = Path(scene.crate, "hello")
    return program.exists() and bool(program.stat().st_mode & stat.S_IXUSR)


@pytest.mark.parametrize(("name", "way"), MATRIX)
class TestABuild:
    def test_ic_05_runs_on_a_worker_and_the_model_sees_what_a_local_run_prints(self, scene, name, way):
        here = scene(name)
        expected = here.local_result(LINE)
        allow_everything(here)
        way(here)
        here.rch("daemon", "start")
        shown = play(here, **({"timeout": 300000} if name == "claude" else {}))
        assert output_of(shown) == expected.strip()
        (job,) = here.jobs()
        assert job["worker"] == here.state.lab.worker.name
        assert "make" in " ".join(job["command"]) if isinstance(job["command"], list) else "make" in job["command"]
        assert job["state"] == "done"
        assert is_built(here)


@pytest.mark.heavy
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", AGENTS)
class TestTheWholeResult:
    @pytest.mark.parametrize(
        "line",
        [
            "cd crate && make",
            "cd crate && make -s && echo 'int x = ;' >>greet.c && make 2>&1",
            "cd crate; make -s; ./hello; exit 3",
        ],
        ids=["green", "red", "status"],
    )
    def test_of_a_tool_call_is_that_of_the_same_agent_without_rch(self, scene, name, way, line):
        results = []
        for how in (without, way):
            here = scene(name)
            allow_everything(here)
            how(here)
            if how is way:
                here.rch("daemon", "start")
            shown = play(here, line)
            results.append(_TIMES.sub(r"\1N", shown.replace(here.agent.project, "P").replace(here.agent.home, "H")))
            if how is way:
                assert {job["worker"] for job in here.jobs()} == {here.state.lab.worker.name}
            here.put_away()
        assert _MODIFIED.sub("", results[1]).strip() == results[0].strip()


@pytest.mark.heavy
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", AGENTS)
class TestWithoutRchd:
    def test_ic_10_the_build_runs_here_and_the_agent_is_undisturbed(self, scene, name, way):
        here = scene(name)
        expected = here.local_result(LINE)
        allow_everything(here)
        way(here)
        # The hooks and shims are told to start none: this workstation's session is said to be another one.
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        session = {"boot": boot, "mnt": "mnt:[1]", "pid": "pid:[1]", "user": "user:[1]"}
        Path(here.state.state_dir, "session.json").write_text(json.dumps(session))
        shown = output_of(play(here))
        # make's own lines, and one that says why it ran here.
        lines = [line for line in shown.splitlines() if "[rch]" not in line]
        assert "\n".join(lines) in expected
        assert lines
        assert is_built(here)


@pytest.mark.heavy
class TestInCodexsSandbox:
    def test_ic_11_the_build_goes_out_through_the_spool(self, scene):
        """connect() is forbidden there, as the model's first command shows, and the build is offloaded all the same."""
        here = scene("codex")
        allow_everything(here)
        by_shim(here)
        here.rch("daemon", "start")
        sock = f"{here.state.state_dir}/run/rchd.sock"
        knock = f"python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{sock}\")'"
        assert Path(sock).is_socket()
        with FakeModel((knock, {}), (LINE, {})) as model:
            here.agent.run(model)
        assert "PermissionError" in model.results[0]
        assert "[rch]" not in model.results[1]
        (job,) = here.jobs()
        assert (job["worker"], job["products"]) == (here.state.lab.worker.name, "verified")
        assert is_built(here)


def deny(scene, decision: str) -> str:
    """The user's own rule about make, in the agent's way; the line that it is about."""
    name = scene.agent.name
    home = Path(scene.agent.home)
    if name == "claude":
        path = home / ".claude" / "settings.json"
        settings = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**settings, "permissions": {decision: ["Bash(make *)"]}}))
        if decision == "ask":
            scene.agent.words = ["--allowedTools", "Bash"]
        return LINE
    if name == "codex":
        rules = home / ".codex" / "rules" / "default.rules"
        rules.parent.mkdir(parents=True)
        meant = {"deny": "forbidden", "ask": "prompt"}[decision]
        rules.write_text(f'prefix_rule(pattern=["make"], decision="{meant}")\n')
        return "make -C crate"
    if name == "opencode":
        path = home / ".config" / "opencode" / "opencode.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"permission": {"bash": {"*": "allow", "make *": decision}}}))
        return LINE
    if name == "copilot":
        # Its rules are words of its command line, and it asks about whatever none of them names.
        more = ["--deny-tool=shell(make)"] if decision == "deny" else ["--allow-tool=shell(cd:*)"]
        scene.agent.words = [*more, *(scene.agent.words if decision == "deny" else ())]
        return "make -C crate"
    policy = home / ".gemini" / "policies" / "mine.toml"
    policy.parent.mkdir(parents=True)
    meant = {"deny": "deny", "ask": "ask_user"}[decision]
    policy.write_text(
        f'[[rule]]\ntoolName = "run_shell_command"\ncommandPrefix = "make"\ndecision = "{meant}"\npriority = 900\n'
    )
    return "make -C crate"


@pytest.mark.heavy
@pytest.mark.parametrize("decision", ["deny", "ask"])
@pytest.mark.parametrize("way", [without, *WAYS])
@pytest.mark.parametrize("name", AGENTS)
class TestTheUsersRules:
    def test_ic_03_decide_with_rch_as_they_do_without(self, scene, name, way, decision):
        """Nobody can be asked here, so a rule that asks is one that refuses."""
        here = scene(name)
        allow_everything(here)
        way(here)
        line = deny(here, decision)
        here.rch("daemon", "start")
        with FakeModel((line, {})) as model:
            here.agent.run(model)
        assert model.play.problems == []
        assert model.play.played == 1
        assert here.jobs() == []
        assert not os.path.exists(os.path.join(here.crate, "hello"))


@pytest.mark.heavy
class TestClaude:
    def test_that_is_allowed_make_alone_offloads_it_by_hook(self, scene):
        here = scene("claude")
        by_hook(here)
        here.agent.words = ["--allowedTools", "Bash(make *)"]
        here.rch("daemon", "start")
        shown = play(here)
        assert "hello" in shown
        assert len(here.jobs()) == 1

    def test_ic_03_is_not_let_into_more_by_a_build_beside_it(self, scene):
        here = scene("claude")
        by_hook(here)
        here.agent.words = ["--allowedTools", "Bash(make *)"]
        here.rch("daemon", "start")
        play(here, "rm -rf crate/greet.c && make -C crate")
        assert here.jobs() == []
        assert os.path.exists(os.path.join(here.crate, "greet.c"))

    @pytest.mark.parametrize("way", WAYS)
    def test_ic_04_waits_as_long_as_its_model_said(self, scene, way):
        here = scene("claude")
        allow_everything(here)
        way(here)
        Path(here.crate, "Makefile").write_text("all:\n\t@echo begun; sleep 20; echo ended\n")
        here.rch("daemon", "start")
        # Claude puts what takes longer into the background, and tells its model twice.
        with FakeModel(("cd crate && make", {"timeout": 4000})) as model:
            here.agent.run(model)
        assert "within its 4s timeout" in model.results[0]
        (job,) = here.jobs()
        assert job["worker"] == here.state.lab.worker.name

    def test_b_11_whose_other_hook_blocks_is_blocked_for_the_original_text(self, scene, tmp_path):
        here = scene("claude")
        allow_everything(here)
        guard = tmp_path / "guard"
        guard.write_text(f'#!/bin/sh\ncat >>{tmp_path}/seen\necho "make is not for today" >&2\nexit 2\n')
        guard.chmod(0o700)
        path = Path(here.agent.home, ".claude", "settings.json")
        path.parent.mkdir()
        hooks = [{"matcher": "Bash", "hooks": [{"type": "command", "command": str(guard)}]}]
        path.write_text(json.dumps({"hooks": {"PreToolUse": hooks}}))
        by_hook(here)
        here.rch("daemon", "start")
        shown = play(here)
        assert "make is not for today" in shown
        assert json.loads((tmp_path / "seen").read_text())["tool_input"]["command"] == LINE
        assert here.jobs() == []
        assert not os.path.exists(os.path.join(here.crate, "hello"))

    def test_by_its_http_hook_starts_no_process_and_offloads(self, scene):
        here = scene("claude")
        allow_everything(here)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = Path(here.environment["XDG_CONFIG_HOME"], "rch", "config.toml")
        config.parent.mkdir(parents=True)
        config.write_text(f"[interception]\nhttp_hook_port = {port}\n")
        here.rch("daemon", "start")
        here.rch("hook", "install", "--no-shims", "--http", "claude")
        os.unlink(f"{here.state.state_dir}/hooks/rch-hook")  # nobody needs it
        here.agent.env["RCH_TOKEN"] = Path(here.state.state_dir, "token").read_text().strip()
        expected = here.local_result(LINE)
        assert output_of(play(here)) == expected.strip()
        (job,) = here.jobs()
        assert job["worker"] == here.state.lab.worker.name
        assert is_built(here)
