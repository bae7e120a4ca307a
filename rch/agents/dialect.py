"""What each harness asks and how it wants to be answered: JSON in, JSON out. Pure."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DIALECTS = ("claude", "codex", "gemini", "cursor", "copilot", "opencode")
"""Harnesses whose hooks may rewrite a command."""

PATH_ONLY = ("cline", "continue", "qwen", "windsurf", "aider")
"""Harnesses that get shims and whose hooks are answered with silence."""

HARNESSES = (*DIALECTS, *PATH_ONLY)

TIMEOUT_MS = 600_000
"""The most that Claude's shell tool waits when asked to; Claude's and OpenCode's wait 120 s when not asked."""


@dataclass(frozen=True)
class Question:
    """One shell command that a harness asks about.

    given:  the tool's whole input; the answer repeats it with another command.
    cwd:    absolute directory in which the command would start.
    mode:   the permission mode, "" where none is told.
    event:  the name of the event as the harness spelled it.
    rules:  what the harness itself told of its user's rules (OpenCode does), None where it tells nothing.
    """

    harness: str
    command: str
    cwd: str
    given: Mapping[str, Any]
    mode: str = ""
    event: str = ""
    session: str = ""
    rules: Any = None


def no_opinion(harness: str) -> bytes:
    """What a hook prints that leaves a command alone: Cursor counts silence as a fault."""
    return b"{}\n" if harness == "cursor" else b""


def read_question(data: bytes, named: str, env: Mapping[str, str]) -> Question | None:
    """The question in a hook's stdin; None when it is none: garbage, another event, another tool.

    named: the harness that the installed command names, "any" or "" where it names none. What the input tells about
    itself is believed first, since several harnesses run one another's hooks; env comes second.
    """
    try:
        asked = json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(asked, dict):
        return None
    harness = _harness(asked, named, env)
    tools, key = _TOOLS.get(harness, ((), ""))
    event = asked.get("hook_event_name", "")
    tool = asked.get("toolName", asked.get("tool_name"))
    given = asked.get("toolArgs", asked.get("tool_input"))
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return None
    if tool not in tools or (
        event not in (key, "PreToolUse", "preToolUse", "") if harness == "copilot" else event != key
    ):
        return None
    if not isinstance(given, dict) or not isinstance(given.get("command"), str):
        return None
    cwd = asked.get("cwd")
    for name in ("dir_path", "working_directory", "workdir"):
        moved = given.get(name)
        if isinstance(moved, str) and moved:
            cwd = os.path.join(cwd if isinstance(cwd, str) else "", moved)
    if not isinstance(cwd, str) or not cwd.startswith("/"):
        return None
    mode, session = asked.get("permission_mode"), asked.get("session_id")
    return Question(
        harness,
        given["command"],
        os.path.normpath(cwd),
        given,
        mode if isinstance(mode, str) else "",
        event if isinstance(event, str) else "",
        session if isinstance(session, str) else "",
        asked.get("rules"),
    )


def write_answer(question: Question, command: str, *, allowed: bool, env: Mapping[str, str]) -> bytes:
    """The answer that changes the command and nothing else, as one line of JSON.

    allowed: the user's rules allow every command of the line; some harnesses must be told so.
    """
    changed = {**question.given, "command": command}
    return json.dumps(_WRITERS[question.harness](question, changed, allowed, env)).encode("ascii") + b"\n"


def _claude(question: Question, changed: dict[str, Any], allowed: bool, env: Mapping[str, str]) -> dict[str, Any]:
    if "timeout" not in changed and not changed.get("run_in_background") and "BASH_DEFAULT_TIMEOUT_MS" not in env:
        most = env.get("BASH_MAX_TIMEOUT_MS", "")
        changed["timeout"] = int(most) if most.isascii() and most.isdigit() else TIMEOUT_MS
    decision = {"permissionDecision": "allow"} if allowed else {}
    return {"hookSpecificOutput": {"hookEventName": question.event, **decision, "updatedInput": changed}}


def _codex(question: Question, changed: dict[str, Any], _allowed: bool, _env: Mapping[str, str]) -> dict[str, Any]:
    # Without "allow" the rewrite is refused and the hook marked as failed.
    return {
        "hookSpecificOutput": {
            "hookEventName": question.event,
            "permissionDecision": "allow",
            "updatedInput": changed,
        }
    }


def _gemini(question: Question, changed: dict[str, Any], _allowed: bool, _env: Mapping[str, str]) -> dict[str, Any]:
    return {"decision": "allow", "hookSpecificOutput": {"hookEventName": question.event, "tool_input": changed}}


def _cursor(_question: Question, changed: dict[str, Any], _allowed: bool, _env: Mapping[str, str]) -> dict[str, Any]:
    return {"permission": "allow", "updated_input": changed}


def _copilot(question: Question, changed: dict[str, Any], allowed: bool, env: Mapping[str, str]) -> dict[str, Any]:
    if question.event == "PreToolUse":
        return _codex(question, changed, allowed, env)
    return {"permissionDecision": "allow", "modifiedArgs": changed}


def _opencode(_question: Question, changed: dict[str, Any], _allowed: bool, env: Mapping[str, str]) -> dict[str, Any]:
    """Read by our own plugin there, which puts it in the place of the tool's input."""
    if "OPENCODE_EXPERIMENTAL_BASH_DEFAULT_TIMEOUT_MS" not in env:
        changed.setdefault("timeout", TIMEOUT_MS)
    return {"args": changed}


_WRITERS: Mapping[str, Callable[[Question, dict[str, Any], bool, Mapping[str, str]], dict[str, Any]]] = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "cursor": _cursor,
    "copilot": _copilot,
    "opencode": _opencode,
}

# Harness -> names of its shell tool, name of the event before it.
_TOOLS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "claude": (("Bash",), "PreToolUse"),
    "codex": (("Bash",), "PreToolUse"),
    "gemini": (("run_shell_command",), "BeforeTool"),
    "cursor": (("Shell",), "preToolUse"),
    "copilot": (("bash", "Bash"), "preToolUse"),
    "opencode": (("bash",), "tool.execute.before"),
}


def _harness(asked: Mapping[str, Any], named: str, env: Mapping[str, str]) -> str:
    """Whose input this is: by its own marks, then by the environment, then by what the installed command says."""
    if "cursor_version" in asked:
        return "cursor"
    if "turn_id" in asked:
        return "codex"
    if "toolName" in asked:
        return "copilot"
    event = asked.get("hook_event_name")
    if event == "BeforeTool":
        return "gemini"
    if event == "tool.execute.before":
        return "opencode"
    if "agent_action_name" in asked:
        return "windsurf"
    if event == "preToolUse":
        return "cursor" if named == "cursor" else "copilot"
    if env.get("COPILOT_CLI"):
        return "copilot"
    if env.get("CLAUDECODE") or named in ("", "any", "claude"):
        return "claude"
    return named
