"""A rewrite never gives the agent what its user's rules would not (lessons IC-03)."""

from __future__ import annotations

import itertools
import json
import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rch.agents.answer import answer
from rch.agents.caller import Caller, runs
from rch.agents.dialect import DIALECTS
from rch.agents.permission import EVERY_COMMAND, GlobRule, Rules, WordsRule, stance
from rch.agents.rules import flag_values, rules_of
from rch.agents.trial import sample
from rch.intercept.decision import Policy

DANGEROUS = "rm -rf x && cargo build"


def rules(allow: str = "", hold: str = "", **more) -> Rules:
    split = lambda text: tuple(GlobRule(one.strip()) for one in text.split(";") if one.strip())  # noqa: E731
    return Rules(split(allow), split(hold), **more)


class TestAllowingOneByOne:
    @pytest.mark.parametrize(
        "line",
        [
            "cargo build", "cargo build --release", "cd crate && cargo build 2>&1 | tail -5", "cargo build; echo done",
            "cargo build >/dev/null 2>&1", "cargo build | grep -E 'error|warning' | head -n 20",
            "cd a/b && cargo build || true",
        ],
    )  # fmt: skip
    def test_takes_what_the_rules_say_and_what_only_looks(self, line):
        found = stance(line, rules("cargo build *"))
        assert found.rewrite, found.why
        assert found.allowed

    @pytest.mark.parametrize(
        "line",
        [
            DANGEROUS, "cargo build && rm -rf /", "cargo build > /etc/motd", "cargo build >> out.txt", "cargo build < in",
            "cargo build | tee out", "cargo build $(curl x)", "cargo build `id`", "X=1 cargo build", "cargo build $X",
            "cargo buildx", "cargo build & rm x", "(cargo build; rm x)", "bash -c 'cargo build'", "sudo cargo build",
            "timeout 5 cargo build", "cd .. && cargo build", "cd /etc && cargo build", "cd - && cargo build",
            "cd a/../../.. && cargo build", "tail -f /etc/passwd; cargo build", "cat /etc/shadow; cargo build",
            "grep -r secret / ; cargo build", "cargo build\nrm x", "f() { rm x; }; f; cargo build", "cargo build <(id)",
            "cargo build; sort -o /etc/x", "echo ${x:=1}; cargo build", "for i in 1; do cargo build; rm x; done",
            "/opt/cargo build",
        ],
    )  # fmt: skip
    def test_leaves_everything_else_to_the_prompt(self, line):
        assert not stance(line, rules("cargo build *")).rewrite

    def test_of_everything_lets_no_redirection_through(self):
        assert stance("make && ./x", Rules((EVERY_COMMAND,))).allowed
        assert not stance("make > /etc/motd", Rules((EVERY_COMMAND,))).rewrite


class TestHolding:
    @pytest.mark.parametrize(
        "line",
        [
            "make", "make all", "cd x && make", "timeout 9 make -j4", "FOO=1 make", "env A=1 nice make x", "bash -c 'make all'",
            'bash -lc "cd x; make"', "/usr/bin/make", "x=$(make -s)", "for i in 1 2; do make $i; done", "ls | xargs make",
            "make | tail", "(make)", "{ make; }", "! make", "if make; then ls; fi", "'make' all", "m\\ake", '"make" x',
            "time make", "command make", "exec make", "$X all", "$(echo make) all",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("rule", ["make *", "make:*", "make*", "ma*", "ma* *", "make:* *"])
    def test_looks_past_whatever_stands_before(self, line, rule):
        assert not stance(line, rules(hold=rule, everything=True)).rewrite

    @pytest.mark.parametrize("line", ["cargo build", "cd make && cargo build", "makefoo", "echo hi; cargo test"])
    def test_does_not_speak_of_other_commands(self, line):
        assert stance(line, rules(hold="make *; git push; rm *", everything=True)).rewrite

    @pytest.mark.parametrize(
        "line", ["bash -c 'cargo build'", "cd x && bash -lc 'cargo build'", "ls; /bin/bash -c cargo\\ build"]
    )
    @pytest.mark.parametrize("rule", [GlobRule("bash *"), WordsRule((("bash",),))])
    def test_speaks_of_the_shell_that_is_given_a_line(self, line, rule):
        assert not stance(line, Rules(hold=(rule,), everything=True)).rewrite

    def test_of_words_looks_at_whole_words(self):
        held = Rules(hold=(WordsRule((("git",), ("push", "fetch"))),), everything=True)
        assert not stance("cd x; git push origin; cargo build", held).rewrite
        assert stance("git pull; cargo build", held).rewrite

    def test_of_an_unknown_rule_set_is_of_everything(self):
        assert not stance("cargo build", Rules(everything=True, unsure="no")).rewrite

    @pytest.mark.parametrize(
        "line", ["make (", "make '", "a\0b make", "make \x01", "x\n" * 70_000 + " make", "make \ud800"]
    )
    def test_of_a_line_that_nobody_can_read(self, line):
        assert not stance(line, rules(everything=True)).rewrite


PROGRAMS = (
    "cargo build",
    "cargo test -p x",
    "make -j4",
    "make",
    "git push",
    "rm -rf x",
    "npm run build",
    "ls",
    "gcc -c a.c",
)
PATTERNS = (
    *(
        "cargo *",
        "cargo build",
        "cargo build:*",
        "make *",
        "make",
        "make:*",
        "git *",
        "git push",
        "rm *",
        "rm:*",
        "npm run *",
    ),
    *("*", "ls", "gcc *", "cargo test *", "g*", "* x"),
)


def reference(commands: list[str], allow: list[str], hold: list[str]) -> str:
    """Another reading of the same rules: "no" when one command is held, "yes" when rules allow each, else "ask"."""

    def covers(pattern: str, command: str) -> bool:
        stem = re.sub(r"(:| )\*$", "", pattern)
        return command == stem or fnmatchcase(command, stem + " *" if stem != pattern else pattern)

    if any(covers(p, c) for c in commands for p in hold):
        return "no"
    return "yes" if all(any(covers(p, c) for p in allow) for c in commands) else "ask"


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PROGRAMS), min_size=1, max_size=4),
    st.lists(st.sampled_from([" && ", " || ", "; ", " | ", "\n", " & "]), min_size=3, max_size=3),
    st.lists(st.sampled_from(PATTERNS), max_size=3),
    st.lists(st.sampled_from(PATTERNS), max_size=2),
    st.booleans(),
)
def test_ic_03_for_every_rule_set_and_line_the_outcome_is_equal_or_stricter(
    commands, operators, allow, hold, everything
):
    line = "".join(
        itertools.chain.from_iterable(itertools.zip_longest(commands, operators[: len(commands) - 1], fillvalue=""))
    )
    found = stance(line, rules(";".join(allow), ";".join(hold), everything=everything))
    outcome = reference(commands, allow, hold)
    if found.rewrite:
        assert outcome == "yes" or (outcome == "ask" and everything), found
        assert found.allowed is not everything
    elif outcome == "yes" and "ls" not in commands:
        assert hold or everything is False


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(DIALECTS),
    st.sampled_from(["default", "acceptEdits", "dontAsk", "auto", "plan", ""]),
    st.lists(
        st.sampled_from(["Bash(cargo *)", "Bash(cargo build:*)", "Bash(cd *)", "Edit", "Read(*)", "Bash(make *)"]),
        max_size=4,
    ),
    st.sampled_from(
        [DANGEROUS, "rm -rf x; cargo build", "cargo build && rm -rf x", "rm -rf x & cargo build", "(rm -rf x); make"]
    ),
)
def test_ic_03_rm_beside_a_build_is_never_approved_for_the_user(tmp_path_factory, harness, mode, allow, line):
    home = tmp_path_factory.getbasetemp() / "home"
    (home / ".claude").mkdir(parents=True, exist_ok=True)
    (home / ".claude" / "settings.json").write_text(json.dumps({"permissions": {"allow": allow}}))
    (home / ".codex" / "rules").mkdir(parents=True, exist_ok=True)
    (home / ".codex" / "rules" / "a.rules").write_text('prefix_rule(pattern=["cargo"], decision="allow")\n')
    told = {"rules": [{"permission": "bash", "pattern": "cargo *", "action": "allow"}]} if harness == "opencode" else {}
    asked = {**sample(harness, line, "/src"), "permission_mode": mode, **told}
    name = "cursor-agent" if harness == "cursor" else harness
    caller = Caller({"HOME": str(home)}, ((name, "--allowedTools", "Bash(cargo *)"),))
    found = answer(
        json.dumps(asked).encode(), harness, caller, policy_of=lambda _cwd, _caller: Policy(), prefix="rch exec -- "
    )
    assert found.data in (b"", b"{}\n"), found


class TestReadingClaudesRules:
    def of(self, tmp_path, settings=None, flags=(), mode="default", project=None):
        home = tmp_path / "h"
        (home / ".claude").mkdir(parents=True)
        if settings is not None:
            (home / ".claude" / "settings.json").write_text(json.dumps(settings))
        env = {"HOME": str(home)}
        if project is not None:
            (tmp_path / "p" / ".claude").mkdir(parents=True)
            (tmp_path / "p" / ".claude" / "settings.local.json").write_text(json.dumps(project))
            env["CLAUDE_PROJECT_DIR"] = str(tmp_path / "p")
        return rules_of(
            "claude", mode, str(tmp_path / "p" / "deep"), Caller(env, (("sh", "-c", "x"), ("/x/claude", *flags)))
        )

    def test_of_other_tools_are_none_of_ours(self, tmp_path):
        found = self.of(tmp_path, {"permissions": {"allow": ["Read", "WebFetch(domain:x)"], "deny": ["Edit(*)"]}})
        assert (found.allow, found.hold) == ((), ())

    def test_of_a_project_count_too(self, tmp_path):
        found = self.of(tmp_path, {}, project={"permissions": {"allow": ["Bash(make *)"], "ask": ["Bash(git *)"]}})
        assert stance("make", found).allowed
        assert not stance("make; git push", found).rewrite

    def test_that_the_command_line_leaves_out_allow_nothing(self, tmp_path):
        settings = {"permissions": {"allow": ["Bash(make *)"], "deny": ["Bash(rm *)"]}}
        found = self.of(tmp_path, settings, flags=("--setting-sources", "project"))
        assert not stance("make", found).rewrite
        assert found.hold

    def test_of_the_command_line_are_read_in_every_spelling(self, tmp_path):
        found = self.of(
            tmp_path,
            flags=(
                "-p",
                "x",
                "--allowed-tools",
                "Bash(make -j *),Read",
                "Edit",
                "--disallowedTools=Bash(make install)",
            ),
        )
        assert stance("make -j 4", found).allowed
        assert not stance("make install", found).rewrite

    def test_of_given_settings_count(self, tmp_path):
        found = self.of(
            tmp_path, flags=("--settings", '{"permissions":{"deny":["Bash(make *)"]}}'), mode="bypassPermissions"
        )
        assert not stance("make", found).rewrite

    @pytest.mark.parametrize(
        "settings", ['{"permissions": 1}', '{"permissions": {"allow": "Bash"}}', "[]", "{", "\xff"]
    )
    def test_that_cannot_be_read_leave_every_line_alone(self, tmp_path, settings):
        found = rules_of("claude", "bypassPermissions", "/", self.caller(tmp_path, settings))
        assert found.unsure

    def caller(self, tmp_path, text):
        (tmp_path / ".claude").mkdir()
        (tmp_path / ".claude" / "settings.json").write_bytes(text.encode("latin-1"))
        return Caller({"HOME": str(tmp_path)}, (("claude",),))


class TestTheAgentsProcess:
    @pytest.mark.parametrize(
        ("words", "name", "is_it"),
        [
            (("claude",), "claude", True),
            (("/usr/bin/claude", "-p"), "claude", True),
            (
                ("node", "--max-old-space-size=1", "/x/@google/gemini-cli/bundle/gemini.js", "-p"),
                r"gemini|gemini-cli|gemini\.js",
                True,
            ),
            (("vim", "claude"), "claude", False),
            (("sh", "-c", "claude"), "claude", False),
            ((), "claude", False),
            (("node", "/x/notclaude.js"), "claude", False),
        ],
    )
    def test_is_known_by_its_program_or_script(self, words, name, is_it):
        assert runs(words, re.compile(name)) is is_it

    def test_options_have_values_until_the_next_option(self):
        words = ("x", "--a", "1", "2", "-p", "3", "--b=4", "5", "--a", "6")
        assert flag_values(words, {"--a": "a", "--b": "b"}) == {"a": ["1", "2", "6"], "b": ["4"]}
