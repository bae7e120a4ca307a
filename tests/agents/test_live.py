"""Each supported CLI, driven by a model that asks for a build: by hook, by shim, and without rchd."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from rch.testing.fake_model import FakeModel

pytestmark = [pytest.mark.sshd, pytest.mark.slow]

LINE = "cd crate && make 2>&1 | tail -5"
AGENTS = ("claude", "codex", "gemini")


def allow_everything(scene) -> None:
    """The user's word that nothing needs asking, in the agent's own way."""
    scene.agent.words = {
        "claude": ["--dangerously-skip-permissions"],
        "codex": ["-s", "workspace-write"],
        "gemini": ["--yolo"],
    }[scene.agent.name]


def by_hook(scene) -> None:
    scene.rch("hook", "install", "--no-shims", scene.agent.name)


def by_shim(scene) -> None:
    """As the installer does it; where that is the parent's PATH, as `rch shellenv` does."""
    scene.rch("shim", "install")
    scene.rch("hook", "install", scene.agent.name)
    if scene.agent.name == "gemini":
        scene.agent.env["PATH"] = f"{scene.state.state_dir}/shims:/usr/local/bin:/usr/bin:/bin"


def play(scene, line: str = LINE, **given) -> str:
    """What the model was shown of *line*."""
    with FakeModel((line, given)) as model:
        done = scene.agent.run(model)
    assert model.play.problems == []
    assert len(model.results) == 1, (done, [path for path, _ in model.play.requests])
    return model.results[0]


# What the harnesses put around a command's output.
_FRAME = ("Process Group PGID:", "[System]", "Background PIDs:", "<untrusted_context>", "</untrusted_context>")


def output_of(shown: str) -> str:
    """The command's own output in what a harness makes of it."""
    text = shown.partition("\nOutput:\n")[2] if "\nOutput:\n" in shown else shown
    text = text.partition("\n\n<system-reminder>")[0]
    kept = [line.removeprefix("Output: ") for line in text.splitlines() if not line.startswith(_FRAME)]
    return "\n".join(kept).strip()


def is_built(scene) -> bool:
    program = Path(scene.crate, "hello")
    return program.exists() and bool(program.stat().st_mode & stat.S_IXUSR)


@pytest.mark.parametrize("way", [by_hook, by_shim])
@pytest.mark.parametrize("name", AGENTS)
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


@pytest.mark.parametrize("way", [by_hook, by_shim])
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


class TestTheUsersRules:
    @pytest.mark.parametrize("way", [by_hook, by_shim])
    def test_ic_03_of_claude_still_deny(self, scene, way):
        here = scene("claude")
        allow_everything(here)
        way(here)
        path = Path(here.agent.home, ".claude", "settings.json")
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({**settings, "permissions": {"deny": ["Bash(make *)"]}}))
        here.rch("daemon", "start")
        shown = play(here)
        assert "denied" in shown.lower()
        assert here.jobs() == []
        assert not os.path.exists(os.path.join(here.crate, "hello"))

    @pytest.mark.parametrize("way", [by_hook, by_shim])
    def test_ic_03_of_codex_still_forbid(self, scene, way):
        here = scene("codex")
        allow_everything(here)
        way(here)
        rules = Path(here.agent.home, ".codex", "rules", "default.rules")
        rules.parent.mkdir()
        rules.write_text('prefix_rule(pattern=["make"], decision="forbidden")\n')
        here.rch("daemon", "start")
        play(here, "make -C crate")
        assert here.jobs() == []
        assert not os.path.exists(os.path.join(here.crate, "hello"))

    @pytest.mark.parametrize("way", [by_hook, by_shim])
    def test_ic_03_of_gemini_still_deny(self, scene, way):
        here = scene("gemini")
        allow_everything(here)
        way(here)
        policy = Path(here.agent.home, ".gemini", "policies", "mine.toml")
        policy.parent.mkdir(parents=True)
        policy.write_text(
            '[[rule]]\ntoolName = "run_shell_command"\ncommandPrefix = "make"\ndecision = "deny"\npriority = 900\n'
        )
        here.rch("daemon", "start")
        play(here, "make -C crate")
        assert here.jobs() == []
        assert not os.path.exists(os.path.join(here.crate, "hello"))

    def test_of_claude_that_allow_make_alone_offload_it_by_hook(self, scene):
        here = scene("claude")
        by_hook(here)
        here.agent.words = ["--allowedTools", "Bash(make *)"]
        here.rch("daemon", "start")
        shown = play(here)
        assert "hello" in shown
        assert len(here.jobs()) == 1
