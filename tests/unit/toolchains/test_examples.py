"""Every toolchain's examples are its tests."""

from __future__ import annotations

import shlex

import pytest

from rch.intercept import classify_argv
from rch.intercept.decision import Policy, Verdict
from rch.schedule.reasons import REASONS
from rch.toolchains import KINDS, TOOLCHAINS
from rch.toolchains.rule import Example

ALL_ON = Policy(toolchains={tool.name: True for tool in TOOLCHAINS})
EXAMPLES = [(tool.name, example) for tool in TOOLCHAINS for example in tool.examples]


@pytest.mark.parametrize(("tool", "example"), EXAMPLES, ids=[f"{t}: {e.command}" for t, e in EXAMPLES])
def test_an_example_is_judged_as_it_says(tool: str, example: Example) -> None:
    segment = classify_argv(shlex.split(example.command), "/home/me/app", ALL_ON, aliases=lambda _: example.aliases)
    assert (segment.kind.name if segment.kind else "", segment.reason) == (example.kind, example.reason), segment.detail
    assert segment.verdict is (Verdict.OFFLOAD if example.kind else Verdict.LOCAL)
    assert not example.reason or example.reason in REASONS


@pytest.mark.parametrize("tool", TOOLCHAINS, ids=lambda tool: tool.name)
class TestAToolchain:
    def test_has_an_example_of_each_of_its_kinds(self, tool) -> None:
        shown = {example.kind for example in tool.examples}
        missing = {kind.name for kind in tool.kinds} - shown - {"cargo.test-here"}
        assert not missing

    def test_has_examples_that_stay_here(self, tool) -> None:
        assert any(example.reason for example in tool.examples)

    def test_has_a_keyword_in_every_example_that_goes_out(self, tool) -> None:
        for example in tool.examples:
            if example.kind:
                assert any(word in example.command for word in tool.keywords), example.command


def test_kinds_have_names_of_their_own() -> None:
    assert len(KINDS) == sum(len(tool.kinds) for tool in TOOLCHAINS) + 1
