"""``rch hook test``: the installed command is run as its harness would run it, and its answer compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rch.agents.dialect import TIMEOUT_MS, no_opinion
from rch.agents.install import command_of, http_hook, places_of
from rch.agents.programs import Setting

NO_BUILD = "git status --short"
BUILD = "cd crate && /usr/bin/make -j2 2>&1 | tail -5"
"""By its path, so that it has to be rewritten where the shims see everything else."""

LIMIT_S = 10.0

PROCESS = {
    "claude": ("claude",),
    "codex": ("codex",),
    "gemini": ("gemini", "--yolo"),
    "cursor": ("cursor-agent", "--force"),
    "copilot": ("copilot", "--allow-all-tools"),
    "opencode": ("opencode",),
}
"""How the agent's process looks when its user has allowed everything: the rules are read from there."""


@dataclass(frozen=True)
class Trial:
    """One sample. ok: the answer is the expected one."""

    harness: str
    sample: str
    ok: bool
    said: str


def sample(harness: str, command: str, cwd: str) -> dict[str, Any]:
    """What *harness* would write to its hook's stdin, with fields of the tool that rch knows nothing of."""
    given: dict[str, Any] = {"command": command, "description": "a sample", "x_unknown": [1, {"é": None}]}
    common = {"session_id": "s-1", "transcript_path": f"{cwd}/t.jsonl", "cwd": cwd}
    if harness in ("claude", "codex"):
        asked = {**common, "permission_mode": "bypassPermissions", "hook_event_name": "PreToolUse", "tool_name": "Bash"}
        if harness == "codex":
            return {**asked, "turn_id": "t-1", "model": "m", "tool_input": {"command": command}, "tool_use_id": "c-1"}
        return {
            **asked,
            "tool_input": {**given, "timeout": 300000, "run_in_background": False},
            "tool_use_id": "toolu_1",
        }
    if harness == "gemini":
        return {**common, "hook_event_name": "BeforeTool", "tool_name": "run_shell_command", "tool_input": given}
    if harness == "cursor":
        asked = {"conversation_id": "c-1", "hook_event_name": "preToolUse", "cursor_version": "1", "cwd": cwd}
        return {**asked, "tool_name": "Shell", "tool_input": {**given, "working_directory": cwd}}
    if harness == "copilot":
        return {"sessionId": "s-1", "timestamp": 1, "cwd": cwd, "toolName": "bash", "toolArgs": given}
    if harness == "opencode":
        everything = [{"permission": "*", "pattern": "*", "action": "allow"}]
        told = {"hook_event_name": "tool.execute.before", "session_id": "s-1", "cwd": cwd, "rules": everything}
        return {**told, "tool_name": "bash", "tool_input": {**given, "timeout": 300000, "workdir": cwd}}
    return {**common, "hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": given}


def expected(harness: str, command: str, rewritten: str, cwd: str) -> dict[str, Any]:
    """The answer that changes *command* into *rewritten* and nothing else."""
    asked = sample(harness, command, cwd)
    changed: dict[str, Any] = {**(asked.get("tool_input") or asked["toolArgs"]), "command": rewritten}
    if harness == "claude":
        changed.setdefault("timeout", TIMEOUT_MS)
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": changed}}
    if harness == "codex":
        decision = {"hookEventName": "PreToolUse", "permissionDecision": "allow", "updatedInput": changed}
        return {"hookSpecificOutput": decision}
    if harness == "gemini":
        return {"decision": "allow", "hookSpecificOutput": {"hookEventName": "BeforeTool", "tool_input": changed}}
    if harness == "cursor":
        return {"permission": "allow", "updated_input": changed}
    if harness == "opencode":
        return {"args": changed}
    return {"permissionDecision": "allow", "modifiedArgs": changed}


# What Claude does with an http hook: the body is the question, a 2xx body the answer.
_POST = """
import os, sys, urllib.request
url, token = sys.argv[1:3]
asked = urllib.request.Request(url, sys.stdin.buffer.read(), {"Authorization": "Bearer " + token})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.stdout.buffer.write(opener.open(asked, timeout=5).read())
"""


# What OpenCode does with the plugin: its hooks are called, what is changed of the tool's input is printed.
_OPENCODE = """
import { readFileSync } from "node:fs"
const text = readFileSync(process.argv.at(-1), "utf8")
const { default: plugin } = await import("data:text/javascript," + encodeURIComponent(text))
let asked
try { asked = JSON.parse(readFileSync(0, "utf8")) } catch { process.exit(0) }
const client = {
  session: { get: async () => ({ data: { agent: "build", permission: [] } }) },
  app: { agents: async () => ({ data: [{ name: "build", permission: asked.rules }] }) },
}
const hooks = await plugin.server({ client, directory: asked.cwd })
const before = JSON.stringify(asked.tool_input)
const call = { tool: asked.tool_name, sessionID: asked.session_id, callID: "c-1" }
await hooks["tool.execute.before"](call, { args: asked.tool_input })
if (JSON.stringify(asked.tool_input) !== before) console.log(JSON.stringify({ args: asked.tool_input }))
"""


def run(harness: str, setting: Setting, env: Mapping[str, str], cwd: str, data: bytes) -> tuple[int, bytes]:
    """Run the installed command of *harness* below a process that looks like it; its status and stdout.

    Claude's http hook is asked by a process that looks like Claude, OpenCode's plugin is run by node where there
    is one. Raises OSError, or subprocess.TimeoutExpired after LIMIT_S.
    """
    engine = shutil.which("node") if harness == "opencode" else None
    plugin = places_of(harness, setting, env)[0].path if engine else ""
    if engine and os.path.exists(plugin):
        words = [engine, "--input-type=module", "--eval", _OPENCODE, plugin]
        done = subprocess.run(
            words, input=data, capture_output=True, env=dict(env), cwd=cwd, timeout=LIMIT_S, check=False
        )
        return done.returncode, done.stdout
    name, *flags = PROCESS.get(harness, (harness,))
    if harness == "claude" and setting.http_port:
        words = [name, "-I", "-c", _POST, http_hook(setting.http_port)["url"], _token(setting, env)]
        done = subprocess.run(
            words, executable=setting.python, input=data, capture_output=True, env=dict(env), cwd=cwd, timeout=LIMIT_S,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout
    done = subprocess.run(
        # The outer shell stays, under the agent's name, as the agent would.
        [name, "-c", 'sh -c "$0"; exit $?', command_of(harness, setting), *flags],
        executable="/bin/sh",
        input=data,
        capture_output=True,
        env=dict(env),
        cwd=cwd,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout


def _token(setting: Setting, env: Mapping[str, str]) -> str:
    if env.get("RCH_TOKEN"):
        return env["RCH_TOKEN"]
    with open(f"{setting.state}/token", encoding="ascii") as file:
        return file.read().strip()


def trials(harness: str, setting: Setting, env: Mapping[str, str], cwd: str) -> list[Trial]:
    """A command that is no build, a build, the rewritten build, and garbage."""
    quiet = no_opinion(harness)
    prefix = f"{setting.launcher} exec -- "
    rewritten = BUILD.replace("/usr/bin/make", f"{prefix}/usr/bin/make")
    found = []
    for name, data, wanted in (
        ("no build", _bytes(sample(harness, NO_BUILD, cwd)), None),
        ("build", _bytes(sample(harness, BUILD, cwd)), expected(harness, BUILD, rewritten, cwd)),
        ("rewritten build", _bytes(sample(harness, rewritten, cwd)), None),
        ("garbage", b'{"command": "make', None),
    ):
        try:
            status, said = run(harness, setting, env, cwd, data)
        except (OSError, subprocess.TimeoutExpired) as error:
            found.append(Trial(harness, name, False, str(error)))
            continue
        ok = status == 0 and (said == quiet if wanted is None else _object(said) == wanted)
        found.append(Trial(harness, name, ok, _said(status, said, quiet)))
    return found


def _said(status: int, said: bytes, quiet: bytes) -> str:
    if status:
        return f"status {status}"
    if said == quiet:
        return "no opinion"
    return said.decode("utf-8", "replace").strip()[:300]


def _bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _object(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """*env* without what would switch the hook off or say that another agent is the caller."""
    dropped = ("CLAUDECODE", "COPILOT_CLI", "RCH_ON_WORKER", "RCH_BYPASS", "RCH_ENABLED")
    return {name: value for name, value in (env or os.environ).items() if name not in dropped}
