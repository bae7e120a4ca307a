"""Case files and pages beside the toolchains."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import rch.toolchains
from rch.intercept import decide
from rch.intercept.decision import Policy
from rch.toolchains import TOOLCHAINS
from rch.toolchains.page import page_of

FOLDER = Path(rch.toolchains.__file__).parent
CASES = sorted((FOLDER / "cases").glob("*/*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=[f"{path.parent.name}/{path.stem}" for path in CASES])
def test_a_case_is_decided_as_it_says(path: Path) -> None:
    case = yaml.safe_load(path.read_text("utf-8"))
    assert set(case) <= {"why", "command", "expect", "toolchains", "structure"}, "unknown key"
    assert case["why"], "why is required"
    expect = case["expect"]
    assert set(expect) == {"decision", "segments"}
    policy = Policy(
        structure=case.get("structure", "transparent"), toolchains=dict.fromkeys(case.get("toolchains", ()), True)
    )
    decision = decide(case["command"], "/home/me/app", policy)
    assert decision.verdict.value == expect["decision"]
    found = [
        {"text": one.text, "kind": one.kind.name}
        if not one.reason and one.kind
        else {"text": one.text, "reason": one.reason}
        for one in decision.segments
        if one.reason != "not-a-build"
    ]
    assert found == expect["segments"]


@pytest.mark.parametrize("tool", TOOLCHAINS, ids=lambda tool: tool.name)
class TestAToolchainsFolder:
    def test_has_cases(self, tool) -> None:
        assert len(list((FOLDER / "cases" / tool.name).glob("*.yaml"))) >= 2

    def test_has_the_page_that_its_module_says(self, tool) -> None:
        assert (FOLDER / f"{tool.name}.md").read_text("utf-8") == page_of(tool), "run python -m rch.toolchains.page"


def test_every_case_belongs_to_a_toolchain() -> None:
    assert {path.parent.name for path in CASES} == {tool.name for tool in TOOLCHAINS}
