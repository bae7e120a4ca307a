"""The keys that decide what a build is, from the file to the decision: interception.*, execution.run_tests."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from rch.config.policy import policy_of
from rch.intercept import classify_argv, decide
from rch.intercept.decision import Decision, Segment, Verdict
from rch.toolchains import TOOLCHAINS

FILES = ["user", "write_project"]


def judged(desk: Any, line: str) -> Decision:
    return decide(line, str(desk.project), policy_of(desk.load()))


def judged_argv(desk: Any, line: str, **how: Any) -> Segment:
    return classify_argv(shlex.split(line), str(desk.project), policy_of(desk.load()), **how)


@pytest.mark.parametrize("file", FILES)
class TestAFile:
    def test_says_whether_a_pipeline_is_looked_into(self, desk: Any, file: str) -> None:
        line = "cargo build 2>&1 | tail -5"
        assert judged(desk, line).verdict is Verdict.OFFLOAD
        getattr(desk, file)("[interception]\nstructure = 'strict'\n")
        assert judged(desk, line).verdict is Verdict.LOCAL
        assert judged(desk, "cargo build").verdict is Verdict.OFFLOAD

    def test_says_how_sure_a_match_must_be(self, desk: Any, file: str) -> None:
        assert judged_argv(desk, "make").verdict is Verdict.OFFLOAD
        getattr(desk, file)("[interception]\nconfidence_threshold = 0.9\n")
        found = judged_argv(desk, "make")
        assert (found.verdict, found.reason) == (Verdict.LOCAL, "below-threshold")
        assert judged_argv(desk, "cargo build").verdict is Verdict.OFFLOAD

    def test_leaves_commands_out(self, desk: Any, file: str) -> None:
        getattr(desk, file)("[interception]\nexclude = ['cargo build --workspace']\n")
        assert judged_argv(desk, "cargo build --workspace").reason == "excluded"
        assert judged_argv(desk, "cargo build").verdict is Verdict.OFFLOAD

    @pytest.mark.parametrize("tool", TOOLCHAINS, ids=lambda tool: tool.name)
    def test_switches_a_toolchain(self, desk: Any, file: str, tool: Any) -> None:
        example = next(one for one in tool.examples if one.kind and not one.aliases)
        usual = judged_argv(desk, example.command)
        assert (usual.reason == "") is tool.on_by_default
        getattr(desk, file)(f"[interception.toolchains]\n{tool.name} = {str(not tool.on_by_default).lower()}\n")
        if not tool.on_by_default and file == "write_project":
            assert judged_argv(desk, example.command).reason == "toolchain-off", "a project needs trust for more"
            desk.trust()
        switched = judged_argv(desk, example.command)
        assert switched.reason == ("toolchain-off" if tool.on_by_default else "")

    def test_says_where_tests_run(self, desk: Any, file: str) -> None:
        usual = judged_argv(desk, "cargo test").kind
        assert usual is not None
        assert not usual.run_locally_after
        getattr(desk, file)("[execution]\nrun_tests = 'local'\n")
        here = judged_argv(desk, "cargo test").kind
        assert here is not None
        assert here.run_locally_after
