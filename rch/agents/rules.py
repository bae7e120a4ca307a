"""What the user of each harness allowed, denied or wants to be asked about, read from where that harness keeps it."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from rch.agents.caller import Caller, runs
from rch.agents.document import Unreadable, files, json_object, read_json, read_text, read_toml, table, texts
from rch.agents.permission import EVERY_COMMAND, GlobRule, PatternRule, Rule, Rules, WordsRule, merged

_NOT_SEEN = "how the agent was started cannot be seen"


def rules_of(harness: str, mode: str, cwd: str, caller: Caller, told: Any = None) -> Rules:
    """The rules that hold for a command of *harness* in *cwd*; unsure wherever anything is not certain.

    mode: the permission mode that the harness told, "" when it tells none.
    told: the rules themselves, from a harness that tells them.
    """
    if harness == "opencode":
        return _opencode(told)
    reader = _READERS.get(harness)
    if reader is None:
        return Rules(unsure=f"the rules of {harness} are not known to rch")
    if not caller.home:
        return Rules(unsure="HOME is not set")
    try:
        return reader(mode, cwd, caller)
    except Unreadable as error:
        return Rules(unsure=str(error))


# --- Claude Code --------------------------------------------------------------------------------------------------

_CLAUDE = re.compile(r"claude|claude-code|claude\.exe")
_CLAUDE_MODES = {"default", "acceptEdits", "dontAsk", "auto", "bypassPermissions"}
_MANAGED = "/etc/claude-code"


def _claude(mode: str, cwd: str, caller: Caller) -> Rules:
    if mode not in _CLAUDE_MODES:
        return Rules(unsure=f"permission mode {mode!r}")
    words = caller.agent(lambda w: runs(w, _CLAUDE))
    if words is None:
        return Rules(unsure=_NOT_SEEN)
    flags = flag_values(words, _CLAUDE_FLAGS)
    sources = set(",".join(flags["--setting-sources"]).split(",")) if "--setting-sources" in flags else None
    parts: list[Rules] = []
    managed = [read_json(f"{_MANAGED}/managed-settings.json")]
    managed += [read_json(path) for path in files(f"{_MANAGED}/managed-settings.d/*.json")]
    config = caller.env.get("CLAUDE_CONFIG_DIR") or caller.home + "/.claude"
    managed.append(read_json(config + "/remote-settings.json"))
    project = caller.env.get("CLAUDE_PROJECT_DIR", "")
    own = [("user", config + "/settings.json")]
    if project:
        own += [("project", project + "/.claude/settings.json"), ("local", project + "/.claude/settings.local.json")]
    parts += [_claude_settings(one, "managed settings") for one in managed]
    alone = any(one.get("allowManagedPermissionRulesOnly") for one in managed)
    for source, path in own:
        found = _claude_settings(read_json(path), path)
        listed = sources is None or source in sources
        # A source that may not count still may: its denials are kept.
        parts.append(Rules(allow=found.allow if listed and not alone else (), hold=found.hold))
    for place in _above(cwd):
        for name in ("settings.json", "settings.local.json"):
            found = _claude_settings(read_json(f"{place}/.claude/{name}"), f"{place}/.claude/{name}")
            parts.append(Rules(hold=found.hold))
    for text in flags.get("--settings", ()):
        given = json_object(text, "--settings") if text.lstrip().startswith("{") else read_json(os.path.join(cwd, text))
        parts.append(_claude_settings(given, "--settings"))
    if not alone:
        parts.append(Rules(allow=_claude_rules(_split_rules(flags.get("--allowedTools", ())))))
    parts.append(Rules(hold=_claude_rules(_split_rules(flags.get("--disallowedTools", ())))))
    parts.append(Rules(everything=mode == "bypassPermissions"))
    return merged(parts)


_CLAUDE_FLAGS = {
    "--allowedTools": "--allowedTools",
    "--allowed-tools": "--allowedTools",
    "--disallowedTools": "--disallowedTools",
    "--disallowed-tools": "--disallowedTools",
    "--settings": "--settings",
    "--managed-settings": "--settings",
    "--setting-sources": "--setting-sources",
}


def _claude_settings(settings: Mapping[str, Any], place: str) -> Rules:
    permissions = table(settings, "permissions", place)
    held = texts(permissions, "deny", place) + texts(permissions, "ask", place)
    return Rules(allow=_claude_rules(texts(permissions, "allow", place)), hold=_claude_rules(held))


def _claude_rules(rules: Sequence[str]) -> tuple[Rule, ...]:
    """The rules about Bash: ``Bash``, ``Bash(make *)``, ``Bash(npm run test:*)``."""
    found: list[Rule] = []
    for rule in rules:
        tool, paren, rest = rule.strip().partition("(")
        if tool not in ("Bash", "*"):
            continue
        spec = rest.rstrip().removesuffix(")") if paren else "*"
        found.append(EVERY_COMMAND if spec.strip() in ("", "*", ":*") else GlobRule(spec))
    return tuple(found)


def _split_rules(values: Sequence[str]) -> list[str]:
    """``Bash(a *) Edit,Read`` as the command line takes it: blanks and commas separate, not within parentheses."""
    return [rule for value in values for rule in re.findall(r"[^\s,(]+(?:\([^)]*\))?", value)]


# --- Codex --------------------------------------------------------------------------------------------------------


def _codex(mode: str, cwd: str, caller: Caller) -> Rules:
    home = caller.env.get("CODEX_HOME") or caller.home + "/.codex"
    parts = [_codex_rules(path) for path in files(home + "/rules/*.rules", "/etc/codex/rules/*.rules")]
    for place in _above(cwd):
        # A project's rules count once it is trusted; that it denies something is believed at once.
        parts += [Rules(hold=_codex_rules(path).hold) for path in files(f"{place}/.codex/rules/*.rules")]
    requirements = read_toml("/etc/codex/requirements.toml")
    if "rules" in requirements:
        return Rules(unsure="/etc/codex/requirements.toml has rules")
    words = caller.agent(lambda w: runs(w, re.compile("codex")))
    if words is not None and "--ignore-rules" in words:
        parts = [Rules(hold=part.hold, unsure=part.unsure) for part in parts]
    # In this mode nobody is ever asked; what runs, runs in the sandbox, rewritten or not.
    return merged([*parts, Rules(everything=mode == "bypassPermissions")])


def _codex_rules(path: str) -> Rules:
    """``prefix_rule(pattern=["git", ["push", "fetch"]], decision="prompt")``: a language whose syntax is Python's."""
    try:
        tree = ast.parse(read_text(path) or "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unreadable(f"{path}: not understood") from None
    allow: list[Rule] = []
    hold: list[Rule] = []
    for statement in tree.body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Constant):
            continue
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise Unreadable(f"{path}:{statement.lineno}: not understood")
        if call.func.id == "network_rule":
            continue
        if call.func.id != "prefix_rule" or call.args:
            raise Unreadable(f"{path}:{statement.lineno}: {call.func.id} is not known to rch")
        try:
            given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
            pattern = tuple((one,) if isinstance(one, str) else tuple(map(str, one)) for one in given["pattern"])
        except (ValueError, KeyError, TypeError):
            raise Unreadable(f"{path}:{statement.lineno}: not understood") from None
        (allow if given.get("decision", "allow") == "allow" else hold).append(WordsRule(pattern))
    return Rules(tuple(allow), tuple(hold))


# --- Gemini CLI ---------------------------------------------------------------------------------------------------

_GEMINI = re.compile(r"gemini|gemini-cli|gemini\.js")
_GEMINI_SHELL = ("run_shell_command", "ShellTool")


def _gemini(_mode: str, cwd: str, caller: Caller) -> Rules:
    """Rewritten only under yolo: an allow rule for ``make`` would not cover the rewritten text."""
    words = caller.agent(lambda w: runs(w, _GEMINI))
    if words is None:
        return Rules(unsure=_NOT_SEEN)
    if flag_values(words, {"--policy": "p", "--admin-policy": "p", "-e": "e", "--extensions": "e"}).get("p"):
        return Rules(unsure="--policy names rules of its own")
    home = (caller.env.get("GEMINI_CLI_HOME") or caller.home) + "/.gemini"
    policies = files(
        home + "/policies/*.toml", "/etc/gemini-cli/policies/*.toml", home + "/extensions/*/policies/*.toml"
    )
    parts = [_gemini_policy(read_toml(path), path) for path in policies]
    places = [home + "/settings.json", "/etc/gemini-cli/settings.json", "/etc/gemini-cli/system-defaults.json"]
    places += [place + "/.gemini/settings.json" for place in _above(cwd)] + files(
        home + "/extensions/*/gemini-extension.json"
    )
    for path in places:
        settings = read_json(path)
        held = texts(settings, "excludeTools", path) + texts(table(settings, "tools", path), "exclude", path)
        parts.append(Rules(hold=tuple(_named_rules(held, _GEMINI_SHELL))))
    modes = flag_values(words, {"--approval-mode": "mode"}).get("mode", [])
    yolo = modes == ["yolo"] or (not modes and ("--yolo" in words or "-y" in words))
    return merged([*parts, Rules(everything=yolo)])


def _gemini_policy(policy: Mapping[str, Any], path: str) -> Rules:
    hold: list[Rule] = []
    rules = policy.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise Unreadable(f"{path}: rule is no list of tables")
    for rule in rules:
        names = rule.get("toolName", "*")
        named = [names] if isinstance(names, str) else names
        if rule.get("decision") == "allow" or not any(
            fnmatchcase(tool, str(name)) for name in named for tool in _GEMINI_SHELL
        ):
            continue
        prefixes = rule.get("commandPrefix", [])
        hold += [GlobRule(f"{prefix} *") for prefix in ([prefixes] if isinstance(prefixes, str) else prefixes)]
        try:
            hold += [PatternRule(re.compile(rule["commandRegex"]))] if "commandRegex" in rule else []
        except (re.error, TypeError):
            raise Unreadable(f"{path}: a pattern is not understood") from None
        # An argsPattern is matched against the tool's whole input as JSON, of which this is a part.
        if "argsPattern" in rule or (not prefixes and "commandRegex" not in rule):
            hold.append(EVERY_COMMAND)
    return Rules(hold=tuple(hold))


def _named_rules(rules: Sequence[str], tools: Sequence[str]) -> Iterator[Rule]:
    """``tool`` and ``tool(prefix)``."""
    for rule in rules:
        tool, paren, rest = rule.strip().partition("(")
        if tool in tools or tool == "*":
            spec = rest.rstrip().removesuffix(")").removesuffix(":*").strip()
            yield GlobRule(f"{spec} *") if paren and spec not in ("", "*") else EVERY_COMMAND


# --- Copilot CLI, Cursor CLI --------------------------------------------------------------------------------------

_COPILOT = re.compile(r"copilot|copilot-linux-x64|@github")


def _copilot(_mode: str, _cwd: str, caller: Caller) -> Rules:
    """Rewritten only where every tool is allowed: ``allow`` is needed and would answer a prompt for the user."""
    words = caller.agent(lambda w: runs(w, _COPILOT))
    if words is None:
        return Rules(unsure=_NOT_SEEN)
    if files("/etc/github-copilot/policy.d/*"):
        return Rules(unsure="/etc/github-copilot/policy.d has policies")
    denied = flag_values(words, {"--deny-tool": "deny"}).get("deny", [])
    everything = bool({"--allow-all-tools", "--allow-all", "--yolo"} & set(words))
    return Rules(hold=tuple(_named_rules(denied, ("shell",))), everything=everything)


def _cursor(_mode: str, cwd: str, caller: Caller) -> Rules:
    """Known for the command line program alone: the editor keeps its list where no other program reads it."""
    words = caller.agent(lambda w: runs(w, re.compile("cursor-agent")))
    if words is None:
        return Rules(unsure="the rules of the editor cannot be read")
    allow: list[Rule] = []
    hold: list[Rule] = []
    for path in (caller.home + "/.cursor/cli-config.json", *(place + "/.cursor/cli.json" for place in _above(cwd))):
        permissions = table(read_json(path), "permissions", path)
        allow += _named_rules(texts(permissions, "allow", path), ("Shell",))
        hold += _named_rules(texts(permissions, "deny", path), ("Shell",))
    return Rules(tuple(allow), tuple(hold), everything=bool({"-f", "--force", "--yolo"} & set(words)))


# --- OpenCode -----------------------------------------------------------------------------------------------------


def _opencode(told: Any) -> Rules:
    """OpenCode's rules in its own order, of which the last that matches counts.

    Rewritten only where everything else is allowed: an allow rule for ``make`` would not cover the rewritten text.
    """
    hold: list[Rule] = []
    everything = False
    for rule in told if isinstance(told, list) else ():
        names = ("permission", "pattern", "action")
        if not isinstance(rule, dict) or not all(isinstance(rule.get(name), str) for name in names):
            return Rules(unsure="a rule of OpenCode is not understood")
        if not fnmatchcase("bash", rule["permission"]):
            continue
        everywhere = rule["pattern"] == "*"
        if rule["action"] == "allow":
            hold, everything = ([], True) if everywhere else (hold, everything)
        elif everywhere:
            everything = False
        else:
            hold.append(GlobRule(rule["pattern"].replace("?", "*")))
    return Rules(hold=tuple(hold), everything=everything)


# --- words of a command line --------------------------------------------------------------------------------------


def flag_values(words: Sequence[str], flags: Mapping[str, str]) -> dict[str, list[str]]:
    """Values of the options *flags* (spelling -> name) among *words*: ``--x a b``, ``--x=a``, repeated or not."""
    found: dict[str, list[str]] = {}
    taking = ""
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if name in flags:
            taking = flags[name]
            found.setdefault(taking, [])
            if equals:
                found[taking].append(value)
                taking = ""
        elif word.startswith("-"):
            taking = ""
        elif taking:
            found[taking].append(word)
    return found


def _above(cwd: str) -> Iterator[str]:
    """*cwd* and every directory above it."""
    place = os.path.normpath(cwd)
    while True:
        yield place
        if place == os.path.dirname(place):
            return
        place = os.path.dirname(place)


_READERS: Mapping[str, Callable[[str, str, Caller], Rules]] = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "copilot": _copilot,
    "cursor": _cursor,
}
