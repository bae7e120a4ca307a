"""The golden set, in both structure modes: no false positive, no false negative."""

from __future__ import annotations

import pytest
from golden_lines import Golden, load

from rch.intercept import decide
from rch.intercept.decision import Decision, Policy, Verdict
from rch.schedule.reasons import REASONS

CWD = "/home/me/app"
GOLDEN = load()


def _decide(golden: Golden, structure: str) -> Decision:
    policy = Policy(structure=structure, toolchains=dict.fromkeys(golden.toolchains, True))
    return decide(golden.line, CWD, policy)


def _offloads(decision: Decision) -> dict[tuple[int, int], str]:
    return {
        (segment.start, segment.end): segment.kind.name
        for segment in decision.segments
        if segment.verdict is Verdict.OFFLOAD and segment.kind
    }


@pytest.mark.parametrize("golden", GOLDEN, ids=[f"{g.theme}: {g.line}" for g in GOLDEN])
class TestAGoldenLine:
    def test_ic_01_every_build_goes_out_and_nothing_else(self, golden: Golden) -> None:
        assert _offloads(_decide(golden, "transparent")) == golden.offloads

    def test_ic_07_what_stays_says_why(self, golden: Golden) -> None:
        local = {
            (segment.start, segment.end): segment.reason
            for segment in _decide(golden, "transparent").segments
            if segment.verdict is Verdict.LOCAL and segment.reason != "not-a-build"
        }
        assert local == golden.locals
        assert set(local.values()) <= set(REASONS)

    def test_strict_keeps_to_the_seeds_table(self, golden: Golden) -> None:
        assert set(_offloads(_decide(golden, "strict"))) == golden.strict

    def test_is_rewritten_only_before_its_builds(self, golden: Golden) -> None:
        data = golden.line.encode()
        told = [span for span, reason in golden.locals.items() if reason in ("local-only", "bad-environment")]
        for start, _end in sorted([*golden.offloads, *told], reverse=True):
            data = data[:start] + b"rch exec -- " + data[start:]
        assert _decide(golden, "transparent").rewritten == data.decode()

    def test_is_left_alone_the_second_time(self, golden: Golden) -> None:
        once = _decide(golden, "transparent").rewritten
        again = decide(once, CWD, Policy(toolchains=dict.fromkeys(golden.toolchains, True)))
        assert again.rewritten == once
        assert again.verdict is Verdict.LOCAL


def test_the_set_is_large_and_has_no_false_answers(capsys: pytest.CaptureFixture[str]) -> None:
    wrong_out = wrong_here = builds = commands = 0
    for golden in GOLDEN:
        decision = _decide(golden, "transparent")
        found = set(_offloads(decision))
        wrong_out += len(found - set(golden.offloads))
        wrong_here += len(set(golden.offloads) - found)
        builds += len(golden.offloads)
        commands += len(decision.segments)
    with capsys.disabled():
        print(
            f"\ngolden set: {len(GOLDEN)} lines, {commands} simple commands, {builds} builds; "
            f"{wrong_out} false positives, {wrong_here} false negatives"
        )
    assert len({(golden.line, golden.toolchains) for golden in GOLDEN}) == len(GOLDEN) >= 600
    assert (wrong_out, wrong_here) == (0, 0)
