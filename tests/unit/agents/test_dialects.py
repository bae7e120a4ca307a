"""Whose question it is comes from the question (coverage B-12), and nobody is ever denied anything."""

from __future__ import annotations

import itertools
import json
import subprocess

import pytest

from rch.agents.answer import answer
from rch.agents.caller import Caller
from rch.agents.dialect import DIALECTS, no_opinion
from rch.agents.trial import BUILD, PROCESS, expected, sample
from rch.errors import ConfigError
from rch.intercept.decision import Policy

REWRITTEN = BUILD.replace("/usr/bin/make", "rch exec -- /usr/bin/make")


def said(harness: str, named: str, question: dict, *, env: dict[str, str] | None = None, mode: str = "") -> bytes:
    """What the hook that was installed as *named* says to *question*, below the process of *harness*."""
    caller = Caller({"HOME": "/nowhere", **(env or {})}, (PROCESS[harness],))
    asked = {**question, **({"permission_mode": mode} if mode else {})}
    return answer(
        json.dumps(asked).encode(), named, caller, policy_of=lambda _cwd, _caller: Policy(), prefix="rch exec -- "
    ).data


class TestTheDialect:
    @pytest.mark.parametrize(
        ("harness", "named"),
        # Claude's input does not tell whose it is.
        [
            (one, named)
            for one in DIALECTS
            for named in ("", "any", *DIALECTS)
            if one != "claude" or named not in DIALECTS[1:]
        ],
    )
    def test_b_12_is_that_of_the_input_whatever_was_named(self, harness, named):
        found = said(harness, named, sample(harness, BUILD, "/src"))
        assert json.loads(found) == expected(harness, BUILD, REWRITTEN, "/src")

    @pytest.mark.parametrize("harness", DIALECTS)
    def test_b_12_needs_no_name_in_the_installed_programs(self, desk, harness):
        """`rch hook` without a word: through the program, the socket and rchd, below a process with the agent's name."""
        name, *flags = PROCESS[harness]
        asked = json.dumps(sample(harness, BUILD, desk.project)).encode()
        with desk.rchd():
            for _ in range(5):
                done = subprocess.run(
                    [name, "-c", 'sh -c "$0"; exit $?', desk.setting.hook, *flags], executable="/bin/sh",
                    input=asked, capture_output=True, timeout=60, check=False, env=desk.env, cwd=desk.project,
                )  # fmt: skip
                if done.stdout:  # silence is right on a machine that is too busy for an answer
                    break
        rewritten = BUILD.replace("/usr/bin/make", f"{desk.setting.launcher} exec -- /usr/bin/make")
        assert json.loads(done.stdout) == expected(harness, BUILD, rewritten, desk.project)


class TestNoAnswer:
    def test_b_12_ever_denies_asks_or_stops(self):
        """Over every agent, mode, switch and line: an answer changes the command, or there is none."""
        lines = (BUILD, "rm -rf / && make", "make deploy", "sudo make", "git push", "", "make (", "cargo build; make")
        modes = ("", "default", "plan", "acceptEdits", "dontAsk", "bypassPermissions")
        switches: tuple[dict[str, str], ...] = (
            {},
            {"RCH_BYPASS": "1"},
            {"RCH_LOCAL_ONLY": "x"},
            {"RCH_REQUIRE_REMOTE": "1"},
        )
        answered = 0
        for harness, line, mode, env in itertools.product(DIALECTS, lines, modes, switches):
            found = said(harness, harness, sample(harness, line, "/src"), env=env, mode=mode)
            if found == no_opinion(harness):
                continue
            answered += 1
            told = json.loads(found)
            inner = told.get("hookSpecificOutput", {})
            verdicts = {
                where.get(key) for where in (told, inner) for key in ("permissionDecision", "permission", "decision")
            }
            assert verdicts <= {None, "allow"}
            known = {
                "hookSpecificOutput",
                "decision",
                "permission",
                "permissionDecision",
                "updated_input",
                "modifiedArgs",
                "args",
            }
            assert set(told) <= known
        assert answered > 100

    @pytest.mark.parametrize("harness", DIALECTS)
    def test_a_5_of_a_wrong_configuration_leaves_the_word_to_rch_exec(self, harness):
        def wrong(_cwd: str, _caller: Caller) -> Policy:
            raise ConfigError("config.toml:1: no key")

        caller = Caller({"HOME": "/nowhere"}, (PROCESS[harness],))
        asked = json.dumps(sample(harness, BUILD, "/src")).encode()
        found = answer(asked, harness, caller, policy_of=wrong, prefix="rch exec -- ")
        assert json.loads(found.data) == expected(harness, BUILD, REWRITTEN, "/src")
