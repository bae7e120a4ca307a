"""Where each harness keeps its hooks, and what rch puts there."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from rch.agents.document import Unreadable, read_json, read_toml
from rch.agents.edit import Edit, apply, json_edit, read, undo
from rch.agents.programs import Setting, render
from rch.client_paths import SHIM_MARK, path_without_shims
from rch.errors import ConfigError
from rch.intercept.argv import KEYWORDS

TIMEOUT_S = 5
"""Seconds a harness waits for the hook, which gives up by itself after less than one."""


@dataclass(frozen=True)
class Place:
    """One file of a harness: how rch gets into it and out of it."""

    path: str
    edit: Edit
    remove: Edit


@dataclass(frozen=True)
class Found:
    """What ``rch hook status`` says of a harness.

    state: "installed", "missing", "stale" (an entry of ours that is not today's) or "unreadable".
    notes: what keeps it from working, or what is left to do by hand.
    """

    harness: str
    state: str
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def command_of(harness: str, setting: Setting) -> str:
    """The shell text that a harness is given. A hook that is gone must not block the agent: Gemini and Copilot refuse
    every command when it is missing."""
    hook = shlex.quote(setting.hook)
    return f"test -x {hook} || exit 0; exec {hook} {harness}"


_HTTP_MARK = "/hook/claude"


def http_hook(port: int) -> dict[str, Any]:
    """Claude's hook without a process. The token is in Claude's environment, never in the file."""
    return {
        "type": "http",
        "url": f"http://127.0.0.1:{port}{_HTTP_MARK}",
        "timeout": TIMEOUT_S,
        "headers": {"Authorization": "Bearer $RCH_TOKEN"},
        "allowedEnvVars": ["RCH_TOKEN"],
    }


def places_of(harness: str, setting: Setting, env: Mapping[str, str]) -> list[Place]:
    """The files of *harness* that an installation edits; [] for one that gets its PATH from its parent alone."""
    home = env.get("HOME", "")
    if not home.startswith("/"):
        raise ConfigError("HOME is not set", key="HOME", hint="set HOME")
    command = command_of(harness, setting)
    marks = (setting.hook, setting.claude_path)
    if harness == "claude":
        settings = (env.get("CLAUDE_CONFIG_DIR") or home + "/.claude") + "/settings.json"
        ours: dict[str, Any] = {"type": "command", "command": command, "timeout": TIMEOUT_S}
        if setting.http_port:
            ours = http_hook(setting.http_port)
        path = shlex.quote(setting.claude_path)
        start = {"type": "command", "command": f"test -x {path} || exit 0; exec {path}", "timeout": TIMEOUT_S}
        groups: dict[str, dict[str, Any]] = {
            "PreToolUse": {"matcher": "Bash", "hooks": [ours]},
            "SessionStart": {"hooks": [start]},
        }
        return [_json_place(settings, groups, (*marks, _HTTP_MARK))]
    if harness == "codex":
        base = env.get("CODEX_HOME") or home + "/.codex"
        ours = {"type": "command", "command": command, "timeout": TIMEOUT_S, "statusMessage": "rch"}
        hooks = _json_place(base + "/hooks.json", {"PreToolUse": {"matcher": "^Bash$", "hooks": [ours]}}, marks)
        return [hooks, _codex_path(base + "/config.toml", setting.shims, env.get("PATH", os.defpath))]
    if harness == "gemini":
        base = (env.get("GEMINI_CLI_HOME") or home) + "/.gemini"
        ours = {"type": "command", "name": "rch", "command": command, "timeout": TIMEOUT_S * 1000}
        groups = {"BeforeTool": {"matcher": "run_shell_command", "hooks": [ours]}}
        return [_json_place(base + "/settings.json", groups, marks)]
    if harness == "cursor":
        ours = {"command": command, "matcher": "Shell", "timeout": TIMEOUT_S}
        return [_json_place(home + "/.cursor/hooks.json", {"preToolUse": ours}, marks, version=1)]
    if harness == "copilot":
        base = env.get("COPILOT_HOME") or home + "/.copilot"
        ours = {"type": "command", "matcher": "bash", "bash": command, "timeoutSec": TIMEOUT_S}
        return [_json_place(base + "/hooks/rch.json", {"preToolUse": ours}, marks, version=1)]
    if harness == "opencode":
        config = env.get("XDG_CONFIG_HOME", "")
        base = (config if config.startswith("/") else home + "/.config") + "/opencode"
        return [_own_file(base + "/plugins/rch.js", opencode_plugin(setting))]
    return []


def opencode_plugin(setting: Setting) -> str:
    """The plugin that asks the hook for OpenCode, which knows no hooks of other programs, and gives it the shims."""
    pattern = "|".join(rf"\b{word}\b" if len(word) == 2 else re.escape(word) for word in KEYWORDS)
    words = {
        "hook": setting.hook,
        "shims": setting.shims,
        "mark": SHIM_MARK,
        "pattern": pattern,
        "limit_ms": TIMEOUT_S * 1000,
    }
    return render("opencode.js.j2", words)


def install(harness: str, setting: Setting, env: Mapping[str, str]) -> dict[str, str]:
    """Put the hook into *harness*; file -> "written" or "unchanged". All files are looked at before one is written."""
    places = places_of(harness, setting, env)
    for place in places:
        place.edit(read(os.path.realpath(place.path)) or "")
    return {place.path: apply(place.path, place.edit, place.remove) for place in places}


def uninstall(harness: str, setting: Setting, env: Mapping[str, str]) -> dict[str, str]:
    """Take the hook out of *harness*; file -> what became of it, as :func:`rch.agents.edit.undo` says."""
    setting = as_installed(harness, setting, env)
    return {place.path: undo(place.path, place.edit, place.remove) for place in places_of(harness, setting, env)}


def as_installed(harness: str, setting: Setting, env: Mapping[str, str]) -> Setting:
    """*setting* with the port that Claude's http hook names, 0 where it is a command or not there."""
    if harness != "claude":
        return setting
    port = 0
    for place in places_of(harness, setting, env):
        named = re.search(rf"http://127\.0\.0\.1:([0-9]{{1,5}}){_HTTP_MARK}", read(os.path.realpath(place.path)) or "")
        port = int(named[1]) if named else port
    return replace(setting, http_port=port)


def status(harness: str, setting: Setting, env: Mapping[str, str]) -> Found:
    """What is there."""
    try:
        setting = as_installed(harness, setting, env)
        places = places_of(harness, setting, env)
        states = {_state(place) for place in places}
        notes = tuple(_notes(harness, env, os.path.isdir(setting.shims)))
        if setting.http_port:
            notes += (f"claude needs the token when it starts: RCH_TOKEN=$(cat {shlex.quote(setting.state)}/token)",)
    except (ConfigError, Unreadable) as error:
        return Found(harness, "unreadable", (), (str(error),))
    state = states.pop() if len(states) == 1 else "stale" if states else "by hand"
    return Found(harness, state, tuple(place.path for place in places), notes)


def _state(place: Place) -> str:
    text = read(os.path.realpath(place.path)) or ""
    if place.edit(text) == text:
        return "installed"
    return "stale" if place.remove(text) != text else "missing"


def _notes(harness: str, env: Mapping[str, str], shims: bool) -> list[str]:
    """What keeps the hook from working although it is installed, as far as files tell it."""
    home = env.get("HOME", "")
    notes = []
    if not shims:
        notes.append("no shims: rch shim install")
    if harness == "claude":
        own = (env.get("CLAUDE_CONFIG_DIR") or home + "/.claude") + "/settings.json"
        for path in (own, "/etc/claude-code/managed-settings.json"):
            settings = read_json(path)
            notes += [f"{path} has {k}" for k in ("disableAllHooks", "allowManagedHooksOnly") if settings.get(k)]
    elif harness == "codex":
        config = read_toml((env.get("CODEX_HOME") or home + "/.codex") + "/config.toml")
        features = config.get("features", {})
        if isinstance(features, dict) and (features.get("hooks") is False or features.get("codex_hooks") is False):
            notes.append("[features] hooks is off in config.toml")
        notes.append("codex runs a hook once you have accepted it: type /hooks in codex")
    elif harness != "opencode":
        notes.append(f'its shell has the PATH of whoever starts it: eval "$(rch shellenv)" before {harness}')
    return notes


# --- how one file is edited ---------------------------------------------------------------------------------------


def _json_place(path: str, groups: Mapping[str, dict[str, Any]], marks: tuple[str, ...], *, version: int = 0) -> Place:
    """*groups*: event -> the entry that stands first in ``hooks.<event>``. *marks*: texts that are in ours only."""

    def take_out(document: dict[str, Any]) -> None:
        hooks = document.get("hooks")
        if not isinstance(hooks, dict):
            return
        for event in groups:
            entries = hooks.get(event)
            if not isinstance(entries, list):
                continue
            for entry in [one for one in entries if _is_ours(one, marks)]:
                inner = entry.get("hooks")
                foreign = [one for one in inner if not _is_ours(one, marks)] if isinstance(inner, list) else []
                if foreign:
                    entry["hooks"] = foreign
                else:
                    entries.remove(entry)
            if not entries:
                del hooks[event]
        if not hooks:
            del document["hooks"]
            if version and document == {"version": version}:
                del document["version"]

    def put_in(document: dict[str, Any]) -> None:
        hooks = document.get("hooks", {})
        if not isinstance(hooks, dict) or not all(isinstance(hooks.get(event, []), list) for event in groups):
            raise ConfigError(f"{path}: hooks has another shape than rch knows", key=path, hint="edit it by hand")
        if all(entry in hooks.get(event, ()) for event, entry in groups.items()):
            return
        take_out(document)
        if version:
            document.setdefault("version", version)
        hooks = document.setdefault("hooks", {})
        for event, entry in groups.items():
            hooks.setdefault(event, []).insert(0, entry)

    return Place(path, json_edit(path, put_in), json_edit(path, take_out))


def _is_ours(entry: Any, marks: tuple[str, ...]) -> bool:
    """Does *entry*, or a handler in it, start one of our programs?"""
    if not isinstance(entry, dict):
        return False
    texts = [entry.get(key) for key in ("command", "bash", "url")]
    if any(isinstance(text, str) and any(mark in text for mark in marks) for text in texts):
        return True
    inner = entry.get("hooks")
    return isinstance(inner, list) and any(_is_ours(one, marks) for one in inner)


def _own_file(path: str, text: str) -> Place:
    """A file that is ours as a whole: its first line says so, also that of another day."""

    def is_ours(now: str) -> bool:
        return "Made by `rch hook install`" in now.partition("\n")[0]

    def edit(now: str) -> str:
        if now and not is_ours(now):
            raise ConfigError(f"{path} is not ours", key=path, hint="move it away")
        return text

    return Place(path, edit, lambda now: "" if is_ours(now) else now)


def _codex_path(path: str, shims: str, callers: str) -> Place:
    """``[shell_environment_policy] set.PATH``: Codex's login shells lose every other PATH."""

    def table(text: str) -> tuple[tomlkit.TOMLDocument, Any]:
        try:
            document = tomlkit.parse(text)
        except TOMLKitError as error:
            raise ConfigError(f"{path} is not TOML ({error})", key=path, hint="repair it, or edit it by hand") from None
        policy: Any = document.get("shell_environment_policy", {})
        given = policy.get("set", {}) if isinstance(policy, dict) else None
        if not isinstance(given, dict) or not isinstance(given.get("PATH", ""), str):
            raise ConfigError(f"{path}: shell_environment_policy has another shape", key=path, hint="edit it by hand")
        return document, given.get("PATH", "")

    def put_in(text: str) -> str:
        document, value = table(text)
        if value.split(":")[0] == shims:
            return text
        rest = [one for one in (value or path_without_shims(callers) or os.defpath).split(":") if one != shims]
        policy: Any = document.setdefault("shell_environment_policy", tomlkit.table())
        policy.setdefault("set", tomlkit.inline_table())["PATH"] = ":".join([shims, *rest])
        return tomlkit.dumps(document)

    def take_out(text: str) -> str:
        document, value = table(text)
        if shims not in value.split(":"):
            return text
        rest = ":".join(one for one in value.split(":") if one != shims)
        policy: Any = document["shell_environment_policy"]
        # Whether the rest was the user's own or the installer's cannot be told any more; it is the shell's PATH.
        if rest == path_without_shims(callers):
            del policy["set"]["PATH"]
            if not policy["set"]:
                del policy["set"]
            if not policy:
                del document["shell_environment_policy"]
        else:
            policy["set"]["PATH"] = rest
        return tomlkit.dumps(document)

    return Place(path, put_in, take_out)
