"""OpenCode's plugin as OpenCode runs it: whatever goes wrong, the command stays as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rch.agents.caller import Caller
from rch.agents.install import opencode_plugin
from rch.agents.permission import stance
from rch.agents.programs import Setting
from rch.agents.rules import rules_of
from rch.client_paths import SHIM_MARK

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="no node here; the CI machine (node 20) runs this")

ALLOW = {"permission": "*", "pattern": "*", "action": "allow"}

# Plays OpenCode: the plugin's hooks with the given client; prints what became of everything.
DRIVER = """
import { readFileSync } from "node:fs"
const { default: plugin } = await import("data:text/javascript," + encodeURIComponent(readFileSync(process.argv.at(-1), "utf8")))
const play = JSON.parse(readFileSync(0, "utf8"))
let asked = 0
const answer = async (data) => {
  asked += 1
  if (play.client === "throws") throw new Error("no")
  if (play.client === "hangs") await new Promise(() => setTimeout(() => {}, 3000))
  return play.client === "empty" ? {} : { data }
}
const client = { session: { get: () => answer(play.session) }, app: { agents: () => answer(play.agents) } }
const hooks = await plugin.server({ client, directory: play.directory })
if (play.agent) await hooks["chat.message"]({ sessionID: "s" }, { message: { agent: play.agent } })
const calls = []
for (const args of play.calls) {
  await hooks["tool.execute.before"]({ tool: play.tool, sessionID: "s", callID: "c" }, { args })
  calls.push(args)
}
const shell = { env: {} }
await hooks["shell.env"]({ cwd: play.directory }, shell)
console.log(JSON.stringify({ calls, asked, path: shell.env.PATH ?? null }))
process.exit(0)
"""


class Play:
    """A plugin whose hook program is *hook*, a text for sh."""

    def __init__(self, place: Path, hook: str) -> None:
        self.setting = Setting(str(place / "st"), sys.executable)
        os.makedirs(self.setting.directory)
        Path(self.setting.hook).write_text(f"#!/bin/sh\n{hook}\n")
        os.chmod(self.setting.hook, 0o700)
        self.plugin = place / "rch.js"
        self.plugin.write_text(opencode_plugin(self.setting).replace("LIMIT_MS = 5000", "LIMIT_MS = 1000"))

    def run(self, *commands: Any, **given: Any) -> dict[str, Any]:
        assert NODE
        play = {
            "tool": "bash", "directory": "/src", "calls": [{"command": one, "workdir": "w"} for one in commands],
            "session": {"agent": "build", "permission": []}, "agents": [{"name": "build", "permission": [ALLOW]}], **given,
        }  # fmt: skip
        done = subprocess.run(
            [NODE, "--input-type=module", "--eval", DRIVER, str(self.plugin)], input=json.dumps(play).encode(),
            capture_output=True, timeout=60, check=True, env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found


REWRITES = (
    """cat >"${0%/*}/asked"; echo "$PATH" >"${0%/*}/path"; printf '{"args": {"command": "rewritten", "timeout": 7}}'"""
)


def as_it_was(found: dict[str, Any], command: Any = "make") -> bool:
    return bool(found["calls"] == [{"command": command, "workdir": "w"}])


@needs_node
class TestThePlugin:
    def test_puts_the_hooks_answer_into_the_tools_input(self, tmp_path):
        play = Play(tmp_path, REWRITES)
        assert play.run("make")["calls"] == [{"command": "rewritten", "workdir": "w", "timeout": 7}]
        asked = json.loads(Path(play.setting.directory, "asked").read_text())
        assert asked == {
            "hook_event_name": "tool.execute.before", "session_id": "s", "cwd": "/src", "rules": [ALLOW],
            "tool_name": "bash", "tool_input": {"command": "make", "workdir": "w"},
        }  # fmt: skip

    def test_hands_on_the_rules_of_the_agent_that_works_and_of_the_session(self, tmp_path):
        play = Play(tmp_path, REWRITES)
        no, maybe = {**ALLOW, "action": "deny"}, {**ALLOW, "action": "ask"}
        agents = [{"name": "build", "permission": [ALLOW]}, {"name": "plan", "permission": [no]}]
        play.run("make", agents=agents, agent="plan", session={"agent": "build", "permission": [maybe]})
        assert json.loads(Path(play.setting.directory, "asked").read_text())["rules"] == [no, maybe]

    def test_asks_nobody_about_what_has_no_build_word_or_is_no_shell(self, tmp_path):
        play = Play(tmp_path, REWRITES)
        found = play.run("git status", "ls; googly category", 7, None)
        assert [one["command"] for one in found["calls"]] == ["git status", "ls; googly category", 7, None]
        assert as_it_was(play.run("make", tool="edit"))
        assert found["asked"] == 0
        assert not Path(play.setting.directory, "asked").exists()

    def test_ic_01_lets_every_golden_build_through_to_the_hook(self, tmp_path):
        sys.path.append(str(Path(__file__).parents[1] / "intercept"))
        from golden_lines import load

        lines = [one.line for one in load() if one.offloads and "c\\argo" not in one.line]
        play = Play(tmp_path, "")
        # Without an agent the question is given up once the client was asked, two times a line.
        assert play.run(*lines, agents=[])["asked"] == 2 * len(lines)

    @pytest.mark.parametrize("client", ["throws", "empty", "hangs"])
    def test_ic_10_without_rules_leaves_the_command_alone(self, tmp_path, client):
        play = Play(tmp_path, REWRITES)
        assert as_it_was(play.run("make", client=client))
        assert not Path(play.setting.directory, "asked").exists()

    @pytest.mark.parametrize(
        "hook",
        ["exit 0", "exit 3", "kill -9 $$", "echo make", "echo '[]'", "echo '{}'", "echo '{\"args\": 7}'",
         "echo '{\"args\": {\"command\": 7}}'", "echo '{\"args\": {\"command\": \"x\"}}'; exit 1"],
    )  # fmt: skip
    def test_ic_10_with_a_hook_that_fails_leaves_the_command_alone(self, tmp_path, hook):
        assert as_it_was(Play(tmp_path, f"cat >/dev/null; {hook}").run("make"))

    def test_ic_10_with_a_hook_that_hangs_goes_on_in_time(self, tmp_path):
        begun = time.monotonic()
        assert as_it_was(Play(tmp_path, "exec sleep 30").run("make"))
        assert time.monotonic() - begun < 10

    def test_of_a_removed_installation_does_nothing(self, tmp_path):
        play = Play(tmp_path, REWRITES)
        shutil.rmtree(play.setting.directory)
        found = play.run("make")
        assert as_it_was(found)
        assert found["path"] == "/usr/bin:/bin"

    def test_gives_the_shims_to_the_shell_and_says_so_to_the_hook(self, tmp_path):
        play = Play(tmp_path, REWRITES)
        os.mkdir(play.setting.shims)
        Path(play.setting.shims, SHIM_MARK).write_text("")
        assert play.run("make")["path"] == f"{play.setting.shims}:/usr/bin:/bin"
        assert Path(play.setting.directory, "path").read_text() == f"{play.setting.shims}:/usr/bin:/bin\n"


def stands(line: str, *rules: tuple[str, str, str]) -> bool:
    """Is *line* rewritten under these rules, in OpenCode's order?"""
    told = [dict(zip(("permission", "pattern", "action"), rule, strict=True)) for rule in rules]
    return stance(line, rules_of("opencode", "", "/", Caller(), told)).rewrite


class TestItsRules:
    """The last that matches counts; ``*`` and ``?`` in both texts; ``make *`` covers ``make``."""

    @pytest.mark.parametrize(
        "rules",
        [
            [("*", "*", "allow")],
            [("*", "*", "ask"), ("bash", "*", "allow")],
            [("*", "*", "allow"), ("edit", "*", "deny"), ("external_directory", "*", "ask")],
            [("bash", "make *", "deny"), ("*", "*", "allow")],
            [("*", "*", "allow"), ("bash", "rm *", "deny"), ("bash", "git push*", "ask")],
        ],
    )
    def test_that_allow_everything_else_leave_a_build_to_us(self, rules):
        assert stands("cd x && make -j4 2>&1 | tail", *rules)

    @pytest.mark.parametrize(
        "rules",
        [
            [],
            [("*", "*", "ask")],
            [("*", "*", "allow"), ("bash", "*", "ask")],
            [("*", "*", "allow"), ("b*", "*", "deny")],
            [("*", "*", "allow"), ("bash", "*", "ask"), ("bash", "make *", "allow")],
            [("*", "*", "allow"), ("bash", "make *", "deny")],
            [("*", "*", "allow"), ("bash", "mak? *", "ask")],
            [("*", "*", "allow"), ("bash", "*make*", "deny")],
            [("*", "*", "allow"), ("bash", "tail*", "ask")],
            [("*", "*", "allow"), ("bash", "make *", "whatever")],
        ],
    )
    def test_that_may_hold_it_leave_it_as_it_is(self, rules):
        assert not stands("cd x && make -j4 2>&1 | tail", *rules)

    @pytest.mark.parametrize("told", [None, "allow", {}, [7], [{"permission": "*"}], [{**ALLOW, "action": 1}]])
    def test_that_are_not_understood_allow_nothing(self, told):
        assert not stance("make", rules_of("opencode", "", "/", Caller(), told)).rewrite
