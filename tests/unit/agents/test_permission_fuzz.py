"""For any rule set of any agent and any line: the hook gives nothing that the rules would not (lessons IC-03).

The lines are made from a tree, so the test knows their simple commands without parsing them; the rules are matched by
readings of their own, kept as plain as each vendor's documentation. Rules are written into files and flags as users do.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rch.agents.answer import answer
from rch.agents.caller import Caller
from rch.agents.trial import sample
from rch.intercept.decision import Policy

PREFIX = "/opt/rch/bin/rch exec -- "


@dataclass(frozen=True)
class Made:
    """A line and what it runs. commands: words of every simple command, wrapped and bare. more: it does more than they."""

    text: str
    commands: tuple[tuple[str, ...], ...]
    more: bool = False
    parts: tuple[Made, ...] = field(default=())


def simple(*words: str) -> Made:
    return Made(shlex.join(words), (words,))


BUILDS = [
    simple("make"), simple("make", "-j4"), simple("cargo", "build"), simple("cargo", "test", "-p", "x"),
    simple("gcc", "-c", "a.c"), simple("ninja", "-C", "out"), simple("go", "test", "./..."), simple("make", "a b"),
]  # fmt: skip
OTHERS = [
    simple("rm", "-rf", "x"), simple("git", "push"), simple("curl", "http://x"), simple("npm", "publish"),
    simple("cp", "a", "/etc/x"), simple("make", "install"), simple("cargo", "publish"), simple("python3", "-c", "x"),
    simple("tee", "/etc/motd"), simple("sed", "-i", "s/a/b/", "f"),
]  # fmt: skip
QUIET = [simple("ls"), simple("echo", "ok"), simple("tail", "-5"), simple("cd", "crate"), simple("true")]


def joined(a: Made, operator: str, b: Made) -> Made:
    return Made(f"{a.text}{operator}{b.text}", a.commands + b.commands, a.more or b.more)


def inside(form: str, a: Made, *, more: bool = False) -> Made:
    return Made(form.format(a.text), a.commands, a.more or more)


def wrapped(words: tuple[str, ...], a: Made, *, more: bool = False) -> Made:
    """Behind a wrapper both the whole and the inner command are commands."""
    return Made(
        f"{shlex.join(words)} {a.text}", tuple((*words, *one) for one in a.commands[:1]) + a.commands, a.more or more
    )


def by_shell(shell: tuple[str, ...], a: Made) -> Made:
    return Made(f"{shlex.join(shell)} {shlex.quote(a.text)}", ((*shell, a.text), *a.commands), more=True)


leaf = st.one_of(st.sampled_from(BUILDS), st.sampled_from(BUILDS), st.sampled_from(OTHERS), st.sampled_from(QUIET))
dressed = st.one_of(
    leaf,
    leaf,
    st.builds(
        wrapped,
        st.sampled_from(
            [("timeout", "60"), ("nice", "-n", "5"), ("time",), ("command",), ("nohup",), ("sudo",), ("xargs",)]
        ),
        leaf,
    ),
    st.builds(lambda a: Made(f"FOO=1 {a.text}", a.commands, more=True), leaf),
    st.builds(
        lambda a, to: Made(f"{a.text} {to}", a.commands, more=True), leaf, st.sampled_from(["> out", ">> out", "< in"])
    ),
    st.builds(lambda a, to: Made(f"{a.text} {to}", a.commands), leaf, st.sampled_from(["2>&1", ">/dev/null 2>&1"])),
)
lines = st.recursive(
    dressed,
    lambda inner: st.one_of(
        st.builds(joined, inner, st.sampled_from([" && ", " || ", "; ", " | ", " & ", "\n"]), inner),
        st.builds(lambda a: inside("({})", a), inner),
        st.builds(lambda a: inside("{{ {}; }}", a), inner),
        st.builds(lambda a: inside("x=$({})", a, more=True), inner),
        st.builds(lambda a: inside("if {}; then true; fi", a), inner),
        st.builds(lambda a: inside("for i in 1 2; do {}; done", a), inner),
        st.builds(by_shell, st.sampled_from([("bash", "-c"), ("sh", "-c"), ("bash", "-lc")]), inner),
    ),
    max_leaves=5,
)

SPECS = [
    "make",
    "make -j4",
    "cargo",
    "cargo build",
    "rm",
    "git push",
    "gcc -c",
    "npm",
    "curl",
    "sudo",
    "timeout",
    "bash",
    "ninja",
    "ls",
]
specs = st.lists(st.sampled_from(SPECS), max_size=3)


def begins(words: tuple[str, ...], spec: str) -> bool:
    """Prefix rules of every vendor: the command is these words, or begins with them."""
    wanted = spec.split()
    return list(words[: len(wanted)]) == wanted


@dataclass(frozen=True)
class User:
    """What a user wrote into an agent's files and flags. everything: no prompt is ever due."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    everything: bool


users = st.builds(User, specs.map(tuple), specs.map(tuple), st.booleans())


def write(home: Path, name: str, text: str) -> None:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def claude(user: User, home: Path, style: int) -> tuple[str, ...]:
    forms = ["Bash({}:*)", "Bash({} *)"]
    rules = {
        "allow": [forms[style % 2].format(one) for one in user.allow],
        ("deny", "ask")[style // 2 % 2]: [forms[style % 2].format(one) for one in user.deny],
    }
    write(home, ".claude/settings.json", json.dumps({"permissions": rules}))
    return ("claude",)


def codex(user: User, home: Path, style: int) -> tuple[str, ...]:
    held = ("forbidden", "prompt")[style % 2]
    text = "".join(
        f"prefix_rule(pattern={spec.split()}, decision={decision!r})\n"
        for decision, given in (("allow", user.allow), (held, user.deny))
        for spec in given
    )
    write(home, ".codex/rules/a.rules", text)
    return ("codex",)


def gemini(user: User, home: Path, style: int) -> tuple[str, ...]:
    held = ("deny", "ask_user")[style % 2]
    tool = ("run_shell_command", "*", "run_*")[style % 3]
    how = style // 2 % 4
    rules = []
    for spec in user.deny:
        what = (
            f"commandPrefix = {json.dumps(spec)}",
            f"commandPrefix = [{json.dumps(spec)}]",
            f"commandRegex = {json.dumps(re.escape(spec))}",
            f"argsPattern = {json.dumps(chr(34) + 'command' + chr(34) + ':' + chr(34) + re.escape(spec))}",
        )[how]
        rules.append(f'[[rule]]\ntoolName = "{tool}"\n{what}\ndecision = "{held}"\npriority = 900\n')
    write(home, ".gemini/policies/a.toml", "\n".join(rules))
    return ("gemini", *(("--yolo",) if user.everything else ()))


def copilot(user: User, _home: Path, style: int) -> tuple[str, ...]:
    forms = ["shell({})", "shell({}:*)"]
    denied = [word for one in user.deny for word in ("--deny-tool", forms[style % 2].format(one))]
    return ("copilot", *denied, *(("--allow-all-tools",) if user.everything else ()))


def cursor(user: User, home: Path, _style: int) -> tuple[str, ...]:
    permissions = {"allow": [f"Shell({one})" for one in user.allow], "deny": [f"Shell({one})" for one in user.deny]}
    write(home, ".cursor/cli-config.json", json.dumps({"permissions": permissions}))
    return ("cursor-agent", *(("--force",) if user.everything else ()))


AGENTS = {"claude": claude, "codex": codex, "gemini": gemini, "copilot": copilot, "cursor": cursor}
ALLOWS = ("claude", "codex", "cursor")
"""Agents whose allow rules can be enough by themselves."""


@pytest.mark.parametrize("name", AGENTS)
class TestForAnyRulesAndAnyLine:
    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(made=lines, user=users, style=st.integers(0, 23))
    def test_ic_03_the_outcome_is_equal_or_stricter(self, tmp_path, name, made, user, style):
        words = AGENTS[name](user, tmp_path, style)
        asked = sample(name, made.text, "/src")
        if "permission_mode" in asked:
            asked["permission_mode"] = "bypassPermissions" if user.everything else "default"
        found = answer(
            json.dumps(asked).encode(), name, Caller({"HOME": str(tmp_path)}, (words,)),
            policy_of=lambda _cwd, _caller: Policy(), prefix=PREFIX,
        )  # fmt: skip
        said = json.loads(found.data) if found.data.strip() else {}
        if not found.rewritten:
            assert said == {}, "no rewrite, no word"
            return
        # Only insertions, so the agent runs what its model wrote.
        assert found.rewritten.replace(PREFIX, "") == made.text
        held = [one for one in made.commands for spec in user.deny if begins(one, spec)]
        assert not held, "a command that a rule denies or asks about was hidden behind rch exec"
        if user.everything:
            return
        assert name in ALLOWS, "this agent's rules allow nothing, and somebody would have been asked"
        asking = [
            one
            for one in made.commands
            if not any(begins(one, spec) for spec in user.allow) and one not in [w for q in QUIET for w in q.commands]
        ]
        assert not asking, "a prompt was due for a command that no rule allows"
        assert not made.more, "redirections, substitutions and variables are no rule's to allow"

    def test_a_rewrite_does_happen(self, tmp_path, name):
        """The property above would hold for a hook that never speaks."""
        user = User(("make",), ("git push",), everything=True)
        words = AGENTS[name](user, tmp_path, 0)
        asked = sample(name, "cd crate && make -j4 2>&1 | tail -5", "/src")
        found = answer(
            json.dumps(asked).encode(), name, Caller({"HOME": str(tmp_path)}, (words,)),
            policy_of=lambda _cwd, _caller: Policy(), prefix=PREFIX,
        )  # fmt: skip
        assert found.rewritten == f"cd crate && {PREFIX}make -j4 2>&1 | tail -5"


@pytest.mark.parametrize("name", ALLOWS)
def test_rules_that_allow_every_command_are_enough(tmp_path, name):
    words = AGENTS[name](User(("make", "cargo build"), (), everything=False), tmp_path, 0)
    asked = sample(name, "make -j4 && cargo build | tail -5", "/src")
    if "permission_mode" in asked:
        asked["permission_mode"] = "default"
    found = answer(
        json.dumps(asked).encode(), name, Caller({"HOME": str(tmp_path)}, (words,)),
        policy_of=lambda _cwd, _caller: Policy(), prefix=PREFIX,
    )  # fmt: skip
    assert found.rewritten == f"{PREFIX}make -j4 && {PREFIX}cargo build | tail -5"
